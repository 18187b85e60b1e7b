"""How do temperature, assignments and losses evolve over training, and when do the clusters freeze?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from analysis.stats.bootstrap import MIN_UNITS, Estimate, estimate, resampled
from analysis.trials import DESIGNED, KEY, Study, undecided, units, values
from catuvac.evaluation.metrics import FLOORS

# In page order; Silhouette (p) is never shown without clusters used.
QUANTITIES = (
    "tau",
    "lr",
    "val/entropy_y",
    "val/effective_clusters",
    "val/kl_y",
    "val/kl_z",
    "val/churn",
    "val/silhouette_p",
    "val/clusters_used",
)
INSTEAD = {"val/kl_y": "loss/kl_y", "val/kl_z": "loss/kl_z"}  # used if no trial has the first
LINES = 20  # trials drawn as lines of their own; the band includes all
STEPS = 50  # maximum number of steps if trials are aligned on progress
FROZEN = 0.02  # churn, as a share of the validation clips
UNCHANGED = 0.02  # a partition whose AMI moves less counts as unchanged (H1)
EARLY = 0.5  # the partition is decided early if half of the trials freeze before this share of the training


@dataclass(frozen=True)
class Evaluations:
    """The history of the complete trials of one corpus and K.

    Attributes:
        trials: complete trials, numbered from 0: trial_id, adaptive (not from a designed arm, or y undecided: not used
            for inference), unit.
        rows: one row per evaluation, by trial and epoch: trial (number), epoch, progress in [0, 1], and the columns of
            the history as floats.
        epochs: of every trial; None if trials differ in length, and are then aligned on progress.
    """

    trials: pd.DataFrame
    rows: pd.DataFrame
    epochs: int | None


@dataclass(frozen=True)
class Curves:
    """One quantity over training.

    Attributes:
        column: of the history.
        band: median, low (10 %), high (90 %) and trials (number evaluated there), by epoch or by progress.
        lines: up to `LINES` trials, one column each; NaN where a trial was not evaluated.
    """

    column: str
    band: pd.DataFrame
    lines: pd.DataFrame


@dataclass(frozen=True)
class Freezes:
    """When each trial's clusters froze.

    The freeze is the first evaluation after which churn stays at or below `FROZEN` until the end.

    Attributes:
        table: one row per complete trial with churn and more than one cluster at its end: trial_id, adaptive, unit,
            never; epoch, progress and tau of the freeze (NaN if never); silhouette_first,
            silhouette_freeze, silhouette_end, ami_freeze, ami_end (NaN if not recorded), clusters_used (at its end).
        unknown: number of complete trials without churn.
        merged: number of complete trials left out because one cluster cannot churn.
    """

    table: pd.DataFrame
    unknown: int
    merged: int

    @property
    def carrying(self) -> tuple[pd.DataFrame, str]:
        """The rows that describe the study, and their name: the independent trials if there are enough."""
        independent = self.table[~self.table["adaptive"]]
        if independent["unit"].nunique() >= MIN_UNITS:
            return independent, "independent trials"
        return self.table, "trials, too few of them independent for inference"


@dataclass(frozen=True)
class AfterFreeze:
    """Hypothesis H1: the partition is decided early, and later training makes p compact without changing it.

    Attributes:
        rise: median rise of Silhouette_p from the freeze to the end; all intervals here are by units.
        n: number of independent trials that froze and have the score at both points.
        whole: the median rise from the first evaluation to the end; None if not recorded.
        half: share of training by which half of the independent trials have frozen; never counts as 1.
        moved: median absolute change of AMI from the freeze to the end; None without labels.
    """

    rise: Estimate
    n: int
    whole: float | None
    half: Estimate
    moved: Estimate | None

    @property
    def verdict(self) -> Literal["supports", "contradicts", "does not decide"]:
        """Whether the intervals support H1."""
        supported = self.half.high < EARLY and self.rise.low > 0
        refuted = self.half.low > EARLY or self.rise.high <= 0
        if self.moved is not None:
            supported = supported and self.moved.high < UNCHANGED
            refuted = refuted or self.moved.low > UNCHANGED
        return "supports" if supported else "contradicts" if refuted else "does not decide"


def evaluations(study: Study) -> Evaluations:
    """Collects the history of the complete trials; stopped and diverged trials never reached their end temperature."""
    complete = study.complete
    trials = pd.DataFrame(
        {
            "trial_id": complete["trial_id"].astype(str),
            "row": complete.index,
            "adaptive": ~complete["arm"].isin(DESIGNED).to_numpy(dtype=bool) | undecided(complete),
            "unit": units(complete),
        }
    ).reset_index(drop=True)
    numbers = pd.MultiIndex.from_frame(complete[KEY]).get_indexer(pd.MultiIndex.from_frame(study.history[KEY]))
    history, trial = study.history[numbers >= 0], numbers[numbers >= 0]
    columns = [*dict.fromkeys([*QUANTITIES, *INSTEAD.values(), "val/ami"])]
    rows = pd.DataFrame(
        {"trial": trial, "epoch": values(history, "epoch"), **{name: values(history, name) for name in columns}}
    )
    rows = rows.sort_values(["trial", "epoch"], ignore_index=True)
    rows["val/silhouette_p"] = rows["val/silhouette_p"].mask(rows["val/silhouette_p"] == FLOORS["silhouette"])
    planned = values(complete, "config/epochs").reset_index(drop=True)
    planned = planned.fillna(rows.groupby("trial")["epoch"].max()).clip(lower=1)
    rows["progress"] = (rows["epoch"] / rows["trial"].map(planned)).clip(0, 1)
    lengths = planned.dropna().unique()
    return Evaluations(trials, rows, int(lengths[0]) if len(lengths) == 1 else None)


def curves(found: Evaluations, column: str) -> Curves:
    """Aligns a column of the history across trials: on the epoch, or on progress if trials differ in length."""
    if column in INSTEAD and not found.rows[column].notna().any():
        column = INSTEAD[column]
    rows = found.rows[found.rows[column].notna()]
    if found.epochs is not None:
        at = rows["epoch"].astype(int).rename("epoch")
    else:
        # As many steps as the short trials have evaluations, so that few trials are missing at a step.
        fewest = rows.groupby("trial").size().quantile(0.1) if len(rows) else 1
        steps = int(np.clip(fewest, 1, STEPS))
        at = (np.ceil(rows["progress"] * steps - 1e-9) / steps).rename("progress")
    table = rows.groupby([at, "trial"])[column].mean().unstack("trial")
    quantiles = np.nanquantile(table.to_numpy(dtype=float), [0.5, 0.1, 0.9], axis=1) if len(table) else np.empty((3, 0))
    band = pd.DataFrame(dict(zip(("median", "low", "high"), quantiles, strict=True)), index=table.index)
    shown = np.sort(np.random.default_rng(0).permutation(table.shape[1])[:LINES])
    return Curves(column, band.assign(trials=table.notna().sum(axis=1)), table.iloc[:, shown])


def freezes(found: Evaluations) -> Freezes:
    """Finds when the clusters of every complete trial stopped changing."""
    rows = found.rows
    churned = rows[rows["val/churn"].notna()]
    last_known = pd.Series(churned.index, index=churned["trial"]).groupby(level=0).max()
    moving = rows.index[rows["val/churn"] > FROZEN]
    last_moving = pd.Series(moving, index=rows["trial"][moving]).groupby(level=0).max()
    by_trial = rows.groupby("trial")
    first = pd.Series(rows.index, index=rows["trial"]).groupby(level=0).min()
    table = found.trials.loc[last_known.index].copy()
    # Churn is never above the threshold: frozen since the first evaluation. Above it at the last evaluation: never.
    at = last_moving.reindex(table.index).fillna(first.reindex(table.index)).astype(int)
    table["never"] = at == last_known
    for name, column in (("epoch", "epoch"), ("progress", "progress"), ("tau", "tau")):
        table[name] = rows[column].loc[at].to_numpy()
    for name, column in (("silhouette", "val/silhouette_p"), ("ami", "val/ami")):
        table[f"{name}_freeze"] = rows[column].loc[at].to_numpy()
        table[f"{name}_end"] = by_trial[column].nth(-1).set_axis(first.index).reindex(table.index)
    table["silhouette_first"] = rows["val/silhouette_p"].loc[first].set_axis(first.index).reindex(table.index)
    of_freeze = ["epoch", "progress", "tau", "silhouette_freeze", "ami_freeze"]
    table[of_freeze] = table[of_freeze].mask(table["never"])
    table["clusters_used"] = by_trial["val/clusters_used"].nth(-1).set_axis(first.index).reindex(table.index)
    merged = table["clusters_used"] < 2
    return Freezes(
        table[~merged].reset_index(drop=True), unknown=len(found.trials) - len(table), merged=int(merged.sum())
    )


def after_freeze(frozen: Freezes) -> AfterFreeze | None:
    """Measures changes after the freeze; None for fewer than `MIN_UNITS` units with a freeze and a Silhouette_p."""
    independent = frozen.table[~frozen.table["adaptive"]]
    froze = independent[~independent["never"]]
    rise = (froze["silhouette_end"] - froze["silhouette_freeze"]).dropna()
    froze = froze.loc[rise.index]
    if froze["unit"].nunique() < MIN_UNITS:
        return None
    whole = (froze["silhouette_end"] - froze["silhouette_first"]).dropna()
    moved = (froze["ami_end"] - froze["ami_freeze"]).abs().dropna()
    return AfterFreeze(
        rise=_median(rise, froze["unit"]),
        n=len(froze),
        whole=float(whole.median()) if len(whole) else None,
        half=_median(independent["progress"].fillna(1.0), independent["unit"]),
        moved=_median(moved, froze["unit"].loc[moved.index]) if len(moved) else None,
    )


def _median(of: pd.Series[float], unit: pd.Series[int]) -> Estimate:
    """Returns the median with a 95 % bootstrap interval by units."""
    x, codes = of.to_numpy(dtype=float), np.asarray(unit, dtype=np.int64)
    rows = [np.arange(len(x)), *resampled(codes, rng=np.random.default_rng(0))]
    return estimate(np.asarray([np.median(x[chosen]) for chosen in rows]))
