"""How do temperature, assignments and losses evolve over training, and when do the clusters freeze?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from analysis.stats.bootstrap import MIN_UNITS, Estimate, estimate, resampled
from analysis.trials import DESIGNED, KEY, Study, undecided, units, values
from catuvac.evaluation.metrics import FLOORS

# In the order of the page; Silhouette (p) is never shown without the clusters used beside it.
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
INSTEAD = {"val/kl_y": "loss/kl_y", "val/kl_z": "loss/kl_z"}  # where no trial has the first
LINES = 20  # trials drawn on their own; the rest is in the band
STEPS = 50  # at most, where trials are aligned on progress
FROZEN = 0.02  # churn, as a share of the validation clips
UNCHANGED = 0.02  # of AMI: a partition that moves less stands still (H1)
EARLY = 0.5  # share of the training by which half of the trials have frozen, where the partition is decided early


@dataclass(frozen=True)
class Evaluations:
    """The history of the complete trials of one corpus and K.

    Attributes:
        trials: complete ones, numbered from 0: trial_id, adaptive (of no designed arm, or y undecided: carries no
            inference), unit.
        rows: a row per evaluation, by trial and epoch: trial (number), epoch, progress in [0, 1], and the columns of
            the history as floats.
        epochs: of every trial; None where trials differ in length, which aligns them on progress.
    """

    trials: pd.DataFrame
    rows: pd.DataFrame
    epochs: int | None


@dataclass(frozen=True)
class Curves:
    """One quantity over training.

    Attributes:
        column: of the history.
        band: median, low (10 %), high (90 %) and trials (evaluated there), by epoch or by progress.
        lines: up to `LINES` trials, a column each, NaN where a trial was not evaluated.
    """

    column: str
    band: pd.DataFrame
    lines: pd.DataFrame


@dataclass(frozen=True)
class Freezes:
    """When each trial's clusters froze.

    Frozen is the first evaluation after which churn stays at or below `FROZEN` to the end.

    Attributes:
        table: a row per complete trial with churn and more than one cluster at its end: trial_id, adaptive, unit,
            never; epoch, progress and tau of the freeze (NaN where never); silhouette_first,
            silhouette_freeze, silhouette_end, ami_freeze, ami_end (NaN where not recorded), clusters_used (at its end).
        unknown: complete trials without churn.
        merged: complete trials left out because one cluster cannot churn.
    """

    table: pd.DataFrame
    unknown: int
    merged: int

    @property
    def carrying(self) -> tuple[pd.DataFrame, str]:
        """The rows that describe the study, and what they are: the independent ones, where there are enough."""
        own = self.table[~self.table["adaptive"]]
        if own["unit"].nunique() >= MIN_UNITS:
            return own, "independent trials"
        return self.table, "in all, too few of them independent to infer from"


@dataclass(frozen=True)
class AfterFreeze:
    """Hypothesis H1: the partition is decided early, and what follows makes p compact without changing it.

    Attributes:
        rise: of Silhouette_p from the freeze to the end, median over n trials; as all here, with an interval by units.
        n: independent trials that froze and have the score at both.
        whole: the median rise from the first evaluation to the end; None where it is not recorded.
        half: share of training by which half of the independent trials have frozen; one that never does counts as 1.
        moved: by how much AMI changes from the freeze to the end, in the median; None without labels.
    """

    rise: Estimate
    n: int
    whole: float | None
    half: Estimate
    moved: Estimate | None

    @property
    def verdict(self) -> Literal["supports", "contradicts", "does not decide"]:
        """What the intervals say of H1."""
        supported = self.half.high < EARLY and self.rise.low > 0
        refuted = self.half.low > EARLY or self.rise.high <= 0
        if self.moved is not None:
            supported = supported and self.moved.high < UNCHANGED
            refuted = refuted or self.moved.low > UNCHANGED
        return "supports" if supported else "contradicts" if refuted else "does not decide"


def evaluations(study: Study) -> Evaluations:
    """Collects the history of the complete trials; stopped and diverged ones never reached their end temperature."""
    complete = study.complete
    trials = pd.DataFrame(
        {
            "trial_id": complete["trial_id"].astype(str),
            "row": complete.index,
            "adaptive": ~complete["arm"].isin(DESIGNED).to_numpy(dtype=bool) | undecided(complete),
            "unit": units(complete),
        }
    ).reset_index(drop=True)
    found = pd.MultiIndex.from_frame(complete[KEY]).get_indexer(pd.MultiIndex.from_frame(study.history[KEY]))
    history, trial = study.history[found >= 0], found[found >= 0]
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
    """Aligns a column of the history across trials: on the epoch, or on progress where trials differ in length."""
    if column in INSTEAD and not found.rows[column].notna().any():
        column = INSTEAD[column]
    rows = found.rows[found.rows[column].notna()]
    if found.epochs is not None:
        at = rows["epoch"].astype(int).rename("epoch")
    else:
        # As many steps as short trials have evaluations, so that few steps lack a trial.
        fewest = rows.groupby("trial").size().quantile(0.1) if len(rows) else 1
        steps = int(np.clip(fewest, 1, STEPS))
        at = (np.ceil(rows["progress"] * steps - 1e-9) / steps).rename("progress")
    table = rows.groupby([at, "trial"])[column].mean().unstack("trial")
    quantiles = np.nanquantile(table.to_numpy(dtype=float), [0.5, 0.1, 0.9], axis=1) if len(table) else np.empty((3, 0))
    band = pd.DataFrame(dict(zip(("median", "low", "high"), quantiles, strict=True)), index=table.index)
    shown = np.sort(np.random.default_rng(0).permutation(table.shape[1])[:LINES])
    return Curves(column, band.assign(trials=table.notna().sum(axis=1)), table.iloc[:, shown])


def freezes(found: Evaluations) -> Freezes:
    """Finds when the clusters of every complete trial stopped to change."""
    rows = found.rows
    churned = rows[rows["val/churn"].notna()]
    last_known = pd.Series(churned.index, index=churned["trial"]).groupby(level=0).max()
    moving = rows.index[rows["val/churn"] > FROZEN]
    last_moving = pd.Series(moving, index=rows["trial"][moving]).groupby(level=0).max()
    by_trial = rows.groupby("trial")
    first = pd.Series(rows.index, index=rows["trial"]).groupby(level=0).min()
    table = found.trials.loc[last_known.index].copy()
    # Nothing above the threshold: frozen since the first evaluation. Above it at the last one: never.
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
    """What happens after the freeze; None for fewer than `MIN_UNITS` units that froze with Silhouette_p recorded."""
    everyone = frozen.table[~frozen.table["adaptive"]]
    own = everyone[~everyone["never"]]
    rise = (own["silhouette_end"] - own["silhouette_freeze"]).dropna()
    own = own.loc[rise.index]
    if own["unit"].nunique() < MIN_UNITS:
        return None
    whole = (own["silhouette_end"] - own["silhouette_first"]).dropna()
    moved = (own["ami_end"] - own["ami_freeze"]).abs().dropna()
    return AfterFreeze(
        rise=_median(rise, own["unit"]),
        n=len(own),
        whole=float(whole.median()) if len(whole) else None,
        half=_median(everyone["progress"].fillna(1.0), everyone["unit"]),
        moved=_median(moved, own["unit"].loc[moved.index]) if len(moved) else None,
    )


def _median(of: pd.Series[float], unit: pd.Series[int]) -> Estimate:
    """With a 95 % bootstrap interval by units."""
    x, codes = of.to_numpy(dtype=float), np.asarray(unit, dtype=np.int64)
    rows = [np.arange(len(x)), *resampled(codes, rng=np.random.default_rng(0))]
    return estimate(np.asarray([np.median(x[chosen]) for chosen in rows]))
