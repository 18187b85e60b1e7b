"""A study's own gauges for Prometheus and Grafana, through Ray's exporter (cluster_configs/monitoring/README.md).

Ray puts `ray_` before the names and exports them on the metrics port of the driver's node.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import Any

from ray import tune
from ray.util.metrics import Gauge

from catuvac import results
from catuvac.experiments.base import Experiment
from catuvac.training.run import Report
from catuvac.tune.process_local import ProcessLocal
from catuvac.tune.trainable import AGAIN

TRIALS = "catuvac_trials"
BEST_OBJECTIVE = "catuvac_best_objective"
EPOCHS_PER_SECOND = "catuvac_epochs_per_second"
STATES = ("waiting", "running", *results.STATUSES)
REFRESH_SECONDS = 5.0  # s; Ray forgets a gauge that is not set for 20
SPEED_SECONDS = 60.0  # s over which the speed is averaged; longer if reports are less frequent


class Gauges(ProcessLocal, tune.Callback):  # type: ignore[misc]
    """Trials by state, the best objective of the complete ones, and epochs per second over the last minute.

    After a resume, earlier trials are read from the table of trials.
    """

    def __init__(self, plan: Experiment) -> None:
        self.plan = plan
        self.ended: dict[int, str] = {}  # status, by number
        self.over: set[str] = set()  # Ray's ids of the trials that ended since the driver started
        self.epochs: dict[str, int] = {}  # the last one reported, by Ray's id
        self.best: float | None = None

    def setup(self, **info: Any) -> None:
        """Registers the gauges and reads the table; called once, before the first trial."""
        del info
        self.trials = self._gauge(TRIALS, "Trials of the study, by state.", "state")
        self.best_objective = self._gauge(BEST_OBJECTIVE, "Best objective of the complete trials.")
        self.speed = self._gauge(EPOCHS_PER_SECOND, "Training epochs per second, summed over all trials.")
        self.points = deque([(time.monotonic(), 0)])  # time, and epochs finished since the driver started
        self.refreshed = 0.0
        if (self.plan.folder / results.TRIALS).exists():
            table = results.read_trials(self.plan.folder)
            self.ended = dict(zip(table["number"].tolist(), table["status"].tolist(), strict=True))
            objectives = table.loc[table["status"] == "complete", "objective"].dropna()
            self.best = None if objectives.empty else float(objectives.max())

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Records the epoch at which a trial starts, which is not 0 after an interruption."""
        del iteration, trials, info
        self.epochs[trial.trial_id] = (trial.last_result or {}).get("epoch", 0)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Report, **info: Any) -> None:
        """Counts epochs."""
        del iteration, trials, info
        fresh = 0 if AGAIN in result else max(0, result["epoch"] - self.epochs[trial.trial_id])
        self.epochs[trial.trial_id] = result["epoch"]
        self.points.append((time.monotonic(), self.points[-1][1] + fresh))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Counts a trial and updates the best objective."""
        del iteration, info
        report, number = trial.last_result, trial.config["number"]
        self.over.add(trial.trial_id)
        self.ended[number] = "stopped" if report["status"] == "running" else report["status"]
        objective = self.plan.objective(report) if report["status"] == "complete" else None
        if objective is not None:
            self.best = objective if self.best is None else max(self.best, objective)
        self._refresh(trials)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Counts a trial that failed permanently."""
        del iteration, info
        self.over.add(trial.trial_id)
        self.ended[trial.config["number"]] = "error"
        self._refresh(trials)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Refreshes the gauges regularly, whether or not anything has changed."""
        del iteration, info
        if time.monotonic() - self.refreshed > REFRESH_SECONDS:
            self._refresh(trials)

    def counts(self, trials: list[Any]) -> dict[str, int]:
        """Returns the number of trials in each of `STATES`."""
        live = (trial for trial in trials if trial.status == "RUNNING" and trial.trial_id not in self.over)
        running = {trial.config["number"] for trial in live}
        counts = Counter(status for number, status in self.ended.items() if number not in running)
        counts["running"] = len(running)
        counts["waiting"] = max(0, self.plan.trials - counts.total())
        return {state: counts[state] for state in STATES}

    def epochs_per_second(self) -> float:
        """Returns the speed over the last minute, or since the report before the last one if that is longer ago."""
        now = time.monotonic()
        while len(self.points) > 2 and self.points[1][0] < now - SPEED_SECONDS:
            self.points.popleft()
        (began, before), (_, done) = self.points[0], self.points[-1]
        return (done - before) / max(1e-3, now - began)

    def _gauge(self, name: str, description: str, *tags: str) -> Gauge:
        return Gauge(name, description, tag_keys=("study", *tags)).set_default_tags({"study": self.plan.name})

    def _refresh(self, trials: list[Any]) -> None:
        self.refreshed = time.monotonic()
        for state, count in self.counts(trials).items():
            self.trials.set(count, {"state": state})
        self.speed.set(self.epochs_per_second())
        if self.best is not None:
            self.best_objective.set(self.best)
