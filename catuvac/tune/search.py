"""What Ray Tune asks for the next trial: the slots in Optuna's storage.

Ray's own OptunaSearch keeps its memory in Ray's snapshots, which are seconds old when a driver dies, and tells early
stopped trials as complete. This searcher remembers nothing: Optuna's storage does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from catuvac.slots import Slots
from catuvac.study import Point, Study
from catuvac.tune.anew import MadeAnew


class SlotSearch(MadeAnew, Searcher):  # type: ignore[misc]
    """Gives Ray the waiting slots of a study, one by one."""

    def __init__(self, study: Study) -> None:
        super().__init__()
        self.study = study
        self.slots: Slots | None = None

    def suggest(self, trial_id: str) -> Point | str | None:
        """The point of the next slot; None: ask again later; FINISHED once every slot has ended."""
        # Opened late: `Tables` has brought the slots in line with Ray's trials by then.
        self.slots = self.slots or Slots(self.study)
        limit = self.study.max_concurrent
        if limit and self.slots.running >= limit:
            return None
        point = self.slots.ask(trial_id)
        if point is None and not self.slots.running:
            finished: str = Searcher.FINISHED
            return finished
        return point

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: `Tables` tells Optuna once the trial's row is written, for the row is what a resumption believes."""

    def save(self, checkpoint_path: str) -> None:
        """Leaves an empty file, without which Ray refuses to restore."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""
