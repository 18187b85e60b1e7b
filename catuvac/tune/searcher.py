"""What Ray Tune asks for the next trial: the slots in Optuna's storage.

Ray's own OptunaSearch keeps its memory in Ray's snapshots, which are seconds old when a driver dies, and tells early
stopped trials as complete. This searcher remembers nothing: Optuna's storage does.

It gives no more trials than the cluster carries. Left to itself, Ray asks for one more, requests a placement group for
it, which occupies a worker process, and cancels the group when the trial takes over the process of one that has ended;
and of processes whose trials end together it keeps as many as trials wait: one. The others go, with all that they have
imported. A trial that is asked for once there is room costs none of this, and Optuna knows more by then.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from catuvac.experiments.search import Search
from catuvac.experiments.search_space import Point
from catuvac.experiments.trial_queue import TrialQueue
from catuvac.tune.preflight import carried
from catuvac.tune.process_local import ProcessLocal

LOOK_SECONDS = 2.0  # s between looks at how many trials the cluster carries: nodes come and go


class SlotSearch(ProcessLocal, Searcher):  # type: ignore[misc]
    """Gives Ray the waiting slots of a study, one by one."""

    def __init__(self, study: Search) -> None:
        super().__init__()
        self.study = study
        self.slots: TrialQueue | None = None
        self.live: set[str] = set()  # ids of the trials that are with Ray
        self.room = 0  # trials that the cluster carries
        self.looked = float("-inf")

    def suggest(self, trial_id: str) -> Point | str | None:
        """The point of the next slot; None: ask again later; FINISHED once every slot has ended."""
        if self.slots is None:  # opened late: `Tables` has brought the slots in line with Ray's trials by then
            self.slots = TrialQueue(self.study)
            self.live = self.slots.running()
        if len(self.live) >= self._limit():
            return None
        point = self.slots.ask(trial_id)
        if point is not None:
            self.live.add(trial_id)
        elif not self.live:
            finished: str = Searcher.FINISHED
            return finished
        return point

    def _limit(self) -> int:
        """How many trials may be with Ray at once."""
        if time.monotonic() - self.looked > LOOK_SECONDS:
            self.room, self.looked = carried(self.study), time.monotonic()
        # An autoscaler adds a node for a trial that waits, so one must.
        limit = self.room + 1 if self.study.autoscaling else max(1, self.room)
        return min(limit, self.study.max_concurrent or limit)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Makes room. `Tables` tells Optuna, once the trial's row is written: the row is what a resumption believes."""
        del result, error
        self.live.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Leaves an empty file, without which Ray refuses to restore."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""
