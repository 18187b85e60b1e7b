"""Does an early temperature choose the partition, and a late one only sharpen it? Branches trainings at a checkpoint.

    ray job submit --working-dir . -- python studies/branch.py --preset fsdd --data-root /abs/data --seeds 5 \\
      --tau-start 1 --tau-end 1 --tau-ends 0.1 0.3 hold

One training per seed is branched at several shares of its ELBO phase: the part after the warm-up, in which the
temperature affects q(y|x). From each checkpoint, branches continue to several tau_end with the same seed, so that they
differ only by the temperature after the branch point. The script writes STORAGE/NAME/ with trials.parquet, whose rows
have the arm "branch", history.parquet, the clusters of the validation clips in partitions/, and report.html.
"""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from options import GpuFlags, StudyFlags

from catuvac.config import Config, ConfigError
from catuvac.errors import guarded
from catuvac.experiments import options
from catuvac.io import expand_home
from catuvac.training.schedules import Shape

if TYPE_CHECKING:
    from catuvac.data.store import Prepared
    from catuvac.experiments.branching import Branches, TauEnd


@dataclass(kw_only=True)
class BranchStudy(StudyFlags, GpuFlags):
    """Branch one training per seed to several end temperatures."""

    shares: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
    """shares of the ELBO phase at which to branch, in ascending order; 0 is the end of the warm-up"""
    tau_ends: tuple[float | Literal["hold"], ...] = ()
    """temperatures at the last step of the branches, none above the one at the branch point; hold keeps that one;
    default: the training's own tau_end, and hold"""
    n_clusters: int | None = None
    """K; default: the preset's"""
    tau_start: float | None = None
    """temperature of the training at the first step after the warm-up; default: the preset's"""
    tau_end: float | None = None
    """and at its last step; if equal to tau_start, all shares can use the same tau_ends; default: the preset's"""
    tau_schedule: Shape | None = None
    """schedule of the training and its branches; default: the preset's"""
    invariance: float | None = None
    """weight of the balanced invariance term, added to the ELBO; default: the preset's"""
    channels: int | None = None
    """channels of the first convolution, which determine the widths of the networks; default: the preset's"""
    gru_size: int | None = None
    """hidden size of each recurrent layer; default: the preset's"""
    seeds: int = 5
    """number of trainings to branch, each with its own seed: the pairs of every comparison"""
    seed: int = 0
    """seed of the first training; the next ones count up"""
    margin: float = 0.03
    """AMI below which an effect does not matter; fixed before the first trial"""

    def run(self) -> None:
        began = time.monotonic()
        if self.seeds < 2:
            raise ConfigError(f"seeds must be at least 2, to estimate a spread; got {self.seeds}")
        chosen = self.chosen()
        config = self._trunk(self.config(chosen))

        # Ray and torch take seconds to import; errors in flags should not wait for them.
        from analysis.questions import branches as question
        from catuvac.experiments.base import duration
        from catuvac.tune import driver, preflight, storage

        prepared = options.prepare(config, data_root=self.data_root, cache_dir=self.cache_dir)
        branches = self._branches(config, prepared, tuple(chosen["objectives"]))
        driver.check_folder(branches, resume=self.resume)
        remote = f", trials in {branches.remote}" if branches.remote else ""
        print(f"study      {branches.folder}{remote}")
        trunks = branches.trunk_grid
        print(f"trunks     {trunks.trials} of {trunks.epochs} epochs in all, before the branches")
        for line in _designed(branches):
            print(line)
        print(question.power(self.seeds, len(self.shares), self.margin), flush=True)
        driver.connect()
        for line in preflight.preflight(branches, config=config, features=prepared, estimate=self.dry_run):
            print(line, flush=True)
        if self.dry_run:
            return
        driver.run_branches(branches, prepared, resume=self.resume)
        if self.report:
            from analysis import report

            report.build(branches.folder, command=shlex.join(["python", *sys.argv]), figures="none")
        storage.push(branches)
        print(f"wall time  {duration(time.monotonic() - began)}")
        print(f"report     {'' if self.report else 'catuvac report '}{branches.folder}{'/report.html' * self.report}")

    def _trunk(self, config: Config) -> Config:
        names = ("n_clusters", "tau_start", "tau_end", "tau_schedule", "invariance", "channels", "gru_size")
        flags = {name: getattr(self, name) for name in names}
        return config.with_settings({name: value for name, value in flags.items() if value is not None})

    def _branches(self, config: Config, prepared: Prepared, objectives: tuple[str, ...]) -> Branches:
        from catuvac.experiments import branching

        train = len(prepared.open().splits["train"])
        default: tuple[TauEnd, ...] = (config.training.tau_end, branching.HOLD)
        tau_ends = self.tau_ends or default
        trunks, cells = branching.cells(
            config,
            prepared,
            shares=self.shares,
            tau_ends=tau_ends,
            seeds=range(self.seed, self.seed + self.seeds),
            steps=train // min(config.training.batch_size, train),
        )
        return branching.Branches(
            name=self.name or f"{Path(self.preset).stem}-branch-{datetime.now():%Y%m%d-%H%M%S}",
            cells=cells,
            trunks=trunks,
            margin=self.margin,
            objectives=objectives,
            gpus_per_trial=self.gpus_per_trial,
            keep_top=self.keep_top,
            **self.resources(),
        )


def _designed(branches: Branches) -> list[str]:
    """Returns one line per branch point, with the temperature there and at the end of each branch."""
    first = [cell for cell in branches.cells if cell.trunk == 0]
    lines = []
    for point in dict.fromkeys(cell.point for cell in first):
        ends = ", ".join(f"{cell.config.training.tau_end:.4g}" for cell in first if cell.point == point)
        lines.append(f"branches   at share {point.share:g}, after epoch {point.epoch}: τ {point.tau:.4g} → {ends}")
    return lines


if __name__ == "__main__":
    sys.exit(guarded(lambda: tyro.cli(BranchStudy, args=expand_home(sys.argv[1:]), description=__doc__).run()))
