"""Training runs that share their first epochs and then continue with different temperatures. Does not use Ray.

A trunk is the training of one seed up to its last branching point. At each point every branch starts from the same
state and continues to its own tau_end, so any difference at the end is an effect of the temperature after the point.
Shares are relative to the ELBO phase: in the warm-up before it, the temperature does not affect q(y | x).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from catuvac.config import Config, ConfigError
from catuvac.experiments.base import BRANCH
from catuvac.experiments.comparison import Cell, Comparison
from catuvac.experiments.search import MARGIN

HOLD: Literal["hold"] = "hold"  # instead of a tau_end: the temperature at the branching point
TRUNKS = "trunks"  # folder of their tables and checkpoints, inside that of the branches

TauEnd = float | Literal["hold"]  # HOLD


@dataclass(frozen=True)
class Point:
    """A point at which branches leave a trunk."""

    share: float  # of the ELBO phase, in [0, 1)
    epoch: int  # number of finished epochs
    tau: float  # temperature of the next step

    @property
    def checkpoint(self) -> str:
        """The name of the trunk's checkpoint at this point."""
        return f"epoch-{self.epoch:05}"


@dataclass(frozen=True, kw_only=True)
class Trunk(Cell):
    """A training run up to its last branching point; branches deviate from its config."""

    points: tuple[Point, ...]

    @property
    def epochs(self) -> int:
        """The number of epochs that it trains."""
        return max(point.epoch for point in self.points)


@dataclass(frozen=True, kw_only=True)
class Branch(Cell):
    """A continuation of a trunk from one of its points."""

    trunk: int  # number of the trunk's cell
    parent: Config  # of the trunk
    point: Point

    @property
    def epochs(self) -> int:
        """The number of epochs that it trains after the point."""
        return self.config.training.epochs - self.point.epoch


@dataclass(frozen=True, kw_only=True)
class Branches(Comparison):
    """Branches and the trunks that they need."""

    cells: tuple[Branch, ...]
    trunks: tuple[Trunk, ...]
    arm: str = BRANCH
    margin: float = MARGIN  # a smaller effect does not matter; fixed before the first trial

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check({f"margin must be positive, got {self.margin}": self.margin > 0})

    @property
    def trunk_grid(self) -> Comparison:
        """The trunks as separate trials, which run first and have their own tables."""
        return Comparison(
            name=TRUNKS,
            storage=self.folder,
            remote=f"{self.remote}/{self.name}" if self.remote else "",
            cells=self.trunks,
            arm="trunk",
            cpus_per_trial=self.cpus_per_trial,
            gpus_per_trial=self.gpus_per_trial,
            max_concurrent=self.max_concurrent,
            autoscaling=self.autoscaling,
            max_failures=self.max_failures,
        )

    def design(self) -> dict[str, Any]:
        """Returns what must not change when the study is resumed."""
        trunks = {cell.trial_id: cell.config.hash() for cell in self.trunks}
        return {**super().design(), **trunks}

    def identify(self, point: Mapping[str, Any], trial_id: str) -> dict[str, Any]:
        """Adds to the columns of any cell where the branch left its trunk, and the trunk's tau_end."""
        cell = self.cells[point["number"]]
        return {
            **super().identify(point, trial_id),
            "branch/share": cell.point.share,
            "branch/epoch": float(cell.point.epoch),
            "branch/tau": cell.point.tau,
            "branch/parent_tau_end": cell.parent.training.tau_end,
        }

    @cached_property
    def _starts(self) -> Counter[str]:
        """Empty: branches start from their trunks."""
        return Counter()

    def trained_epochs(self, at_once: int) -> int:
        """Returns the number of epochs of the branches and of the trunks before them."""
        del at_once  # they share no start by invariance
        return self.epochs + sum(trunk.epochs for trunk in self.trunks)

    @property
    def shared_states(self) -> int:
        """The number of states that the trunks keep: the last one, and one at each point."""
        return sum(1 + len(trunk.points) for trunk in self.trunks)

    def epochs_before(self, point: Mapping[str, Any]) -> int:
        """Returns the number of epochs of the trunk."""
        cell: Branch = self.cells[point["number"]]
        return cell.point.epoch


def points(config: Config, shares: Sequence[float], *, steps: int) -> tuple[Point, ...]:
    """Returns the points at shares of the ELBO phase, each at the end of the nearest epoch but not the last one.

    Args:
        config: of the trunk.
        shares: in [0, 1).
        steps: per epoch.

    Raises:
        ConfigError: no share, one outside [0, 1), two in the same epoch, or a model without a temperature.
    """
    training = config.training
    if config.model.method != "cat_uvac" or config.model.y_estimator == "exact":
        model = config.model.method if config.model.method != "cat_uvac" else "y_estimator exact"
        raise ConfigError(f"{model} has no temperature to branch on; use cat_uvac with y_estimator gumbel")
    if not shares:
        raise ConfigError("give at least one share of the ELBO phase to branch at")
    phase, branch_points = training.epochs - training.warmup_epochs, []
    for share in shares:
        if not 0 <= share < 1:
            raise ConfigError(f"a share of the ELBO phase must lie in [0, 1), got {share:g}")
        epoch = training.warmup_epochs + min(phase - 1, round(share * phase))
        branch_points.append(Point(share, epoch, training.tau_at(epoch=epoch, steps=steps)))
    for one, other in itertools.pairwise(branch_points):
        if one.epoch >= other.epoch:
            raise ConfigError(
                f"shares {one.share:g} and {other.share:g} must increase and be an epoch apart: in an ELBO phase "
                f"of {phase} epochs they are at epochs {one.epoch} and {other.epoch}"
            )
    return tuple(branch_points)


def ends(point: Point, tau_ends: Sequence[TauEnd]) -> tuple[float, ...]:
    """Returns the distinct values of tau_end at a point in ascending order.

    Args:
        point: where the branches start.
        asked: temperatures, or `HOLD`.

    Raises:
        ConfigError: fewer than two distinct values, or one above the temperature at the point, which never rises.
    """
    values = [point.tau if isinstance(end, str) else end for end in tau_ends]
    for end in values:
        if end > point.tau * (1 + 1e-9):
            raise ConfigError(
                f"tau_end {end:g} is above {point.tau:.4g}, the temperature at share {point.share:g}; it never rises: "
                "lower tau_end, use earlier shares, or start from a training run with a constant temperature "
                "(tau_end as high as tau_start)"
            )
    distinct = sorted({min(end, point.tau) for end in values})
    if len(distinct) < 2:
        raise ConfigError(f"branches at share {point.share:g} need at least two distinct values of tau_end")
    return tuple(distinct)


def cells(
    config: Config,
    features: Any,
    *,
    shares: Sequence[float],
    tau_ends: Sequence[TauEnd],
    seeds: Sequence[int],
    steps: int,
) -> tuple[tuple[Trunk, ...], tuple[Branch, ...]]:
    """Returns one trunk per seed, and their branches seed by seed, so that an interrupted study has whole pairs.

    Args:
        config: of every trunk; its seed is ignored.
        features: a `catuvac.data.store.Prepared`.
        shares: of the ELBO phase, at which branches leave.
        tau_ends: of the branches.
        seeds: of the trunks.
        steps: per epoch.

    Raises:
        ConfigError: as `points` and `ends`.
    """
    # After a constant temperature, a branch needs a schedule that decreases.
    shape = "exponential" if config.training.tau_schedule == "constant" else config.training.tau_schedule
    branch_points = points(config, shares, steps=steps)
    trunks, branches = [], []
    for number, seed in enumerate(seeds):
        parent = config.with_settings({"seed": seed})
        trunks.append(Trunk(config.model.method, parent, features, setting="trunk", points=branch_points))
        for point in branch_points:
            for end in ends(point, tau_ends):
                same = end == parent.training.tau_end
                child = parent if same else parent.with_settings({"tau_end": end, "tau_schedule": shape})
                setting = f"share{point.share:g}-tau{end:.4g}"
                branch = Branch(
                    config.model.method, child, features, setting=setting, trunk=number, parent=parent, point=point
                )
                branches.append(branch)
    return tuple(trunks), tuple(branches)
