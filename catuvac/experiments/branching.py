"""Trainings that share their first epochs and part in how the temperature goes on. No Ray.

A trunk is a training of one seed up to the last point where something leaves it. At each point every branch starts from
the same state and goes on to its own tau_end, so that whatever differs at the end is what the temperature did after the
point. Shares are of the ELBO phase: before it, in the warm-up, the temperature does not reach q(y | x).
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

HOLD: Literal["hold"] = "hold"  # in place of a tau_end: the temperature that the training has reached
TRUNKS = "trunks"  # the folder of their tables and checkpoints, in that of the branches

TauEnd = float | Literal["hold"]  # HOLD


@dataclass(frozen=True)
class Point:
    """Where branches leave a training."""

    share: float  # of the ELBO phase, in [0, 1)
    epoch: int  # finished ones
    tau: float  # of the next step

    @property
    def checkpoint(self) -> str:
        """The name of the trunk's state there."""
        return f"epoch-{self.epoch:05}"


@dataclass(frozen=True, kw_only=True)
class Trunk(Cell):
    """A training up to its last point; its config is the one that branches deviate from."""

    points: tuple[Point, ...]

    @property
    def epochs(self) -> int:
        """How many it trains for."""
        return max(point.epoch for point in self.points)


@dataclass(frozen=True, kw_only=True)
class Branch(Cell):
    """What goes on from a point of a trunk."""

    trunk: int  # number of the cell among the trunks
    parent: Config  # of the trunk
    point: Point

    @property
    def epochs(self) -> int:
        """How many it trains for after the point."""
        return self.config.training.epochs - self.point.epoch


@dataclass(frozen=True, kw_only=True)
class Branches(Comparison):
    """Branches, and the trunks that they need."""

    cells: tuple[Branch, ...]
    trunks: tuple[Trunk, ...]
    arm: str = BRANCH
    margin: float = MARGIN  # an effect smaller than this does not matter; fixed before the first trial

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check({f"margin must be positive, got {self.margin}": self.margin > 0})

    @property
    def trunk_grid(self) -> Comparison:
        """The trunks as trials of their own, which come first and have tables of their own."""
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
        """What must not change when the study is resumed."""
        trunks = {cell.trial_id: cell.config.hash() for cell in self.trunks}
        return {**super().design(), **trunks}

    def identify(self, point: Mapping[str, Any], trial_id: str) -> dict[str, Any]:
        """As of a cell of any grid, and where it has left its trunk, which tau_end had it not."""
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
        """None: branches start from their trunks."""
        return Counter()

    def epochs_before(self, point: Mapping[str, Any]) -> int:
        """Those of the trunk."""
        cell: Branch = self.cells[point["number"]]
        return cell.point.epoch


def points(config: Config, shares: Sequence[float], *, steps: int) -> tuple[Point, ...]:
    """The points at shares of the ELBO phase, each at the end of the nearest epoch; at least one epoch is left.

    Args:
        config: of the trunk.
        shares: in [0, 1).
        steps: of an epoch.

    Raises:
        ConfigError: a share outside of [0, 1), two that are the same epoch, none, or a model without a temperature.
    """
    training = config.training
    if config.model.method != "cat_uvac" or config.model.y_estimator == "exact":
        what = config.model.method if config.model.method != "cat_uvac" else "y_estimator exact"
        raise ConfigError(f"{what} has no temperature to branch on; use cat_uvac with y_estimator gumbel")
    if not shares:
        raise ConfigError("give at least one share of the ELBO phase to branch at")
    phase, found = training.epochs - training.warmup_epochs, []
    for share in shares:
        if not 0 <= share < 1:
            raise ConfigError(f"a share of the ELBO phase must lie in [0, 1), got {share:g}")
        epoch = training.warmup_epochs + min(phase - 1, round(share * phase))
        found.append(Point(share, epoch, training.tau_at(epoch=epoch, steps=steps)))
    for one, other in itertools.pairwise(found):
        if one.epoch >= other.epoch:
            raise ConfigError(
                f"shares {one.share:g} and {other.share:g} must rise and lie an epoch apart: both are of an ELBO phase "
                f"of {phase} epochs, at epochs {one.epoch} and {other.epoch}"
            )
    return tuple(found)


def ends(point: Point, asked: Sequence[TauEnd]) -> tuple[float, ...]:
    """The values of tau_end at a point, each once, from the lowest to the highest.

    Args:
        point: where the branches start.
        asked: temperatures, or `HOLD`.

    Raises:
        ConfigError: fewer than two different ones, or one above the temperature there, which only falls.
    """
    values = [point.tau if isinstance(end, str) else end for end in asked]
    for end in values:
        if end > point.tau * (1 + 1e-9):
            raise ConfigError(
                f"tau_end {end:g} lies above {point.tau:.4g}, which the temperature has reached at share "
                f"{point.share:g}; it only falls, so lower it, use earlier shares, or start from a training that keeps "
                "its temperature (tau_end as high as tau_start)"
            )
    found = sorted({min(end, point.tau) for end in values})
    if len(found) < 2:
        raise ConfigError(f"branches at share {point.share:g} need two values of tau_end or more to differ in")
    return tuple(found)


def cells(
    config: Config,
    features: Any,
    *,
    shares: Sequence[float],
    tau_ends: Sequence[TauEnd],
    seeds: Sequence[int],
    steps: int,
) -> tuple[tuple[Trunk, ...], tuple[Branch, ...]]:
    """A trunk a seed, and its branches, seed by seed: a study that is cut short has whole pairs.

    Args:
        config: what every trunk trains with; its seed means nothing.
        features: `catuvac.data.store.Prepared` ones.
        shares: of the ELBO phase, at which branches leave.
        tau_ends: of the branches.
        seeds: of the trunks.
        steps: of an epoch.

    Raises:
        ConfigError: as `points` and `ends`.
    """
    # After a constant temperature, a branch needs a way down.
    shape = "exponential" if config.training.tau_schedule == "constant" else config.training.tau_schedule
    left = points(config, shares, steps=steps)
    trunks, branches = [], []
    for number, seed in enumerate(seeds):
        parent = config.with_settings({"seed": seed})
        trunks.append(Trunk(config.model.method, parent, features, setting="trunk", points=left))
        for point in left:
            for end in ends(point, tau_ends):
                same = end == parent.training.tau_end
                own = parent if same else parent.with_settings({"tau_end": end, "tau_schedule": shape})
                setting = f"share{point.share:g}-tau{end:.4g}"
                made = Branch(
                    config.model.method, own, features, setting=setting, trunk=number, parent=parent, point=point
                )
                branches.append(made)
    return tuple(trunks), tuple(branches)
