"""The search algorithm that provides trials to Ray Tune: the slots in Optuna's storage.

Ray's own OptunaSearch keeps its state in Ray's snapshots, which are seconds old when a driver dies, and reports
early-stopped trials as complete. This searcher has no state of its own; the state is in Optuna's storage.

It provides no more trials than the cluster can run. By default, Ray asks for one more, requests a placement group for
it, which occupies a worker process, and cancels the group when the trial reuses the process of an ended one. Of the
processes whose trials end together, Ray keeps only as many as trials are waiting: one. The others end, with all their
imports. A trial that is requested only once there is room avoids this cost, and Optuna knows more results by then.
"""

from __future__ import annotations

import time
from typing import Any

from ray.tune.search import Searcher

from catuvac.experiments.search import Search
from catuvac.experiments.search_space import Point
from catuvac.experiments.trial_queue import TrialQueue
from catuvac.tune.preflight import carried
from catuvac.tune.process_local import ProcessLocal

LOOK_SECONDS = 2.0  # s between checks of how many trials the cluster can run: nodes join and leave


class SlotSearch(ProcessLocal, Searcher):  # type: ignore[misc]
    """Provides the waiting slots of a study to Ray, one by one."""

    def __init__(self, study: Search) -> None:
        super().__init__()
        self.study = study
        self.slots: TrialQueue | None = None
        self.live: set[str] = set()  # ids of the trials that Ray has
        self.room = 0  # number of trials that the cluster can run
        self.looked = float("-inf")

    def suggest(self, trial_id: str) -> Point | str | None:
        """Returns the point of the next slot; None: ask again later; FINISHED once every slot has ended."""
        if self.slots is None:  # opened late: `ResultsCallback` has synchronised the slots by then
            self.slots = TrialQueue(self.study)
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
        """Returns how many trials Ray may have at once."""
        if time.monotonic() - self.looked > LOOK_SECONDS:
            self.room, self.looked = carried(self.study), time.monotonic()
        # An autoscaler adds a node only for a waiting trial, so one must wait.
        limit = self.room + 1 if self.study.autoscaling else max(1, self.room)
        return min(limit, self.study.max_concurrent or limit)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Makes room. `ResultsCallback` tells Optuna after it has written the row, on which a resume relies."""
        del result, error
        self.live.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: there is no state to store."""
