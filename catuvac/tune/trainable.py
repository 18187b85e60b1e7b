"""The trainables: a trial of a search, a cell of a grid, a trunk or a branch, each resumed from its last checkpoint."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from ray import tune

from catuvac.data.store import Prepared
from catuvac.errors import CatuvacError
from catuvac.evaluation.objectives import scored
from catuvac.experiments.base import Experiment
from catuvac.experiments.branching import Branches, Trunk
from catuvac.experiments.comparison import VARIATIONAL, Comparison, test_scores
from catuvac.experiments.search import Search
from catuvac.training.run import Report, TrainingRun
from catuvac.tune import storage

AGAIN = "again"  # key of a report that a trial sends again: its epochs are not trained now

# Minimum interval between two writes of a checkpoint or a table, relative to the duration of a write: they cost at most
# 2 %. If 30 MB take 0.14 s to write, a checkpoint is written at the first evaluation after seven seconds, and an
# interrupted trial repeats the training since then.
SPACING = 50


def train_trial(point: dict[str, Any], *, study: Search, features: Prepared) -> None:
    """Trains one trial from its last checkpoint, if any, and reports every evaluation.

    Args:
        point: from the search.
        study: the study of the trial.
        features: for every split that a trial may have; trials on a node share their memory pages.
    """
    config = study.trial_config(point)
    run = TrainingRun(config, features.under(config.split).open(), device=_device(study))
    _train(run, study, point, at_end=lambda _: {})


def run_cell(point: dict[str, Any], *, grid: Comparison) -> None:
    """Runs one cell of a grid, from its last checkpoint if it has one."""
    cell = grid.cells[point["number"]]
    if cell.method in VARIATIONAL:
        _train(cell.training(_device(grid)), grid, point, at_end=test_scores)
    else:
        tune.report(cell.fit(_device(grid)))


def train_trunk(point: dict[str, Any], *, trunks: tuple[Trunk, ...], grid: Comparison) -> None:
    """Trains a trunk, and stores its state and its validation clusters at every branching point."""
    trunk, number = trunks[point["number"]], point["number"]
    run = trunk.training(_device(grid))
    stored = storage.load_checkpoint(grid, number, "last", device=run.device)
    if stored:
        run.load_state(stored["run"])
    checkpoints = Checkpoints(grid, number)
    for left in trunk.points:
        if run.epoch > left.epoch:
            continue  # its state was written before the checkpoint from which this run continues
        for report in run.until(left.epoch):
            checkpoints.add({"run": run.state()}, best=False, final=False)
            tune.report(report)
        clusters = run.infer(run.features.splits["val"])["probabilities"].argmax(axis=1)
        state = {"run": run.state(), "clusters": torch.from_numpy(clusters)}
        storage.save_checkpoint(grid, number, left.checkpoint, state)
    status = "diverged" if run.finished else "complete"
    times = {"wall_seconds": run.seconds, "train_seconds": run.train_seconds}
    tune.report({"epoch": run.epoch, "status": status, **times})


def train_branch(point: dict[str, Any], *, grid: Branches) -> None:
    """Continues from a trunk's state; at the end, stores the validation clusters of the trunk and its own."""
    cell = grid.cells[point["number"]]
    run = cell.training(_device(grid))
    trunk = storage.load_checkpoint(grid.trunk_grid, cell.trunk, cell.point.checkpoint, device=run.device)
    if trunk is None:
        raise CatuvacError(f"the state of trunk {cell.trunk} after epoch {cell.point.epoch} is gone; start again")
    run.branch(trunk["run"], cell.parent)
    if run.finished:  # the trunk has diverged before the point
        report = {**run.last_report, "epoch": cell.point.epoch, "wall_seconds": 0.0, "train_seconds": 0.0}
        tune.report({**report, **scored(report, n_clusters=cell.config.model.n_clusters)})
        return

    def keep(run: TrainingRun) -> Report:
        if run.clusters is not None:
            storage.save_partitions(grid, cell.trial_id, torch.stack([trunk["clusters"].cpu(), run.clusters]).numpy())
        return test_scores(run)

    _train(run, grid, point, at_end=keep)


def _device(plan: Experiment) -> str:
    torch.set_num_threads(plan.threads)
    return "cuda" if plan.gpus_per_trial > 0 and torch.cuda.is_available() else "cpu"


def _train(
    run: TrainingRun,
    plan: Experiment,
    point: Mapping[str, Any],
    *,
    at_end: Callable[[TrainingRun], Report],
) -> None:
    """Continues from the last checkpoint, if any, and reports every evaluation, the last one extended by `at_end`.

    A checkpoint contains the reports before it, and they are sent again: the driver may have died before storing them.
    """
    number = point["number"]
    storage.remove_leftovers(plan, number)
    reports = _restore(run, plan, number)
    for report in reports:
        tune.report({**report, AGAIN: True})
    if run.finished:
        return
    checkpoints = Checkpoints(plan, number)
    for report in from_shared_start(run, plan) if plan.shares_start(point) else run:
        more: Report = at_end(run) if run.finished else {}
        reports.append({**report, **more, **scored(report, n_clusters=run.config.model.n_clusters)})
        ranks = [plan.objective(report) or 0.0 for report in reports]
        best = bool(plan.objectives) and ranks[-1] > max(ranks[:-1], default=-math.inf)
        checkpoints.add({"run": run.state(), "reports": reports}, best=best, final=run.finished)
        tune.report(reports[-1])


def from_shared_start(run: TrainingRun, plan: Experiment) -> Iterator[Report]:
    """Trains to the end from the study's stored start with this hash, or stores a new one."""
    name = run.config.start_hash()
    return run.from_shared_start(
        lambda: storage.load_start(plan, name, device=run.device), lambda state: storage.save_start(plan, name, state)
    )


def _restore(run: TrainingRun, plan: Experiment, number: int) -> list[Report]:
    """Restores a run from its last valid checkpoint, and returns the reports before it; none for a new run."""
    for kind in ("last", "best"):  # the best one if the last is damaged or from another version
        stored = storage.load_checkpoint(plan, number, kind, device=run.device) or {}
        if isinstance(reports := stored.get("reports"), list):
            fresh = copy.deepcopy(run.state())
            try:
                run.load_state(stored.get("run", {}))
            except CatuvacError:
                run.load_state(fresh)  # it may have been loaded partially
                continue
            return reports
    return []


class Checkpoints:
    """Writes a trial's last and best state: the first, the final, and between them as often as is cheap."""

    def __init__(self, plan: Experiment, number: int) -> None:
        self.plan = plan
        self.number = number
        self.best: dict[str, Any] | None = None  # the best since the last write, if not written then
        self.written = -math.inf  # s, of the clock
        self.cost = 0.0  # s that the last write took

    def add(self, state: dict[str, Any], *, best: bool, final: bool) -> None:
        """Takes the state at an evaluation.

        Args:
            state: its tensors may change afterwards.
            best: whether its objective exceeds all earlier ones.
            final: whether it is the last of the trial, which is always written.
        """
        began = time.monotonic()
        due = final or began - self.written >= SPACING * self.cost
        if best:
            self.best = None if due else copy.deepcopy(state)
        if not due:
            return
        if self.best is not None:
            storage.save_checkpoint(self.plan, self.number, "best", self.best)
            self.best = None
        storage.save_checkpoint(self.plan, self.number, "last", state)
        if best:
            storage.last_is_best(self.plan, self.number)
        self.written = time.monotonic()
        self.cost = self.written - began
