"""Which trial does each label-free criterion select, and which trial would labels have selected?"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import columns
from analysis.stats.bootstrap import MIN_UNITS, Correlation, interval, resampled, spearman
from analysis.trials import Study, floats, units, values, within_seeds

# Label-free scores that are compared with accuracy, with the sign that makes higher better.
LABEL_FREE = {
    "objective": 1,
    "val/mutual_information": 1,
    "val/effective_clusters": 1,
    "val/clusters_used": 1,
    "val/entropy_y": -1,
    "val/confidence": 1,
    "val/elbo": 1,
    **{f"val/silhouette_{space}": 1 for space in "xzp"},
    **{f"val/dbi_{space}": -1 for space in "xzp"},
    **{f"val/dispersion_{space}": 1 for space in "xzp"},
}
LABELS = ("val/ami", "val/acc")
RANDOM = "random"  # the row of a random pick

Floats = NDArray[np.float64]


def select(study: Study) -> dict[str, Any] | None:
    """Returns the row of the complete trial with the highest objective, the first in case of ties; None without one."""
    trials = study.complete
    if trials.empty:
        return None
    chosen = trials.iloc[int(np.argmax(values(trials, "objective")))]
    return {str(name): None if pd.isna(value) else value for name, value in chosen.items()}


@dataclass(frozen=True)
class Regrets:
    """The cost of selecting by each criterion, among trials that have labels.

    Attributes:
        table: one row per criterion, lowest regret first, and `RANDOM`, a random pick. Columns: `label` for display;
            `trial`, the first of the `tied` trials that the criterion ranks highest, its `row` of `Study.trials` and
            the `clusters` that it uses. For AMI, and likewise for ACC: `ami` picked (mean of the tied trials),
            `ami_regret` (best minus picked), its 95 % interval `ami_low`, `ami_high`, and the interval of the gain
            over a random pick, `ami_gain_low`, `ami_gain_high`. Missing values are NaN.
        n: number of trials.
        inference: whether there are intervals: at least five units, none placed by a sampler.
    """

    table: pd.DataFrame
    n: int
    inference: bool

    @property
    def criteria(self) -> pd.DataFrame:
        """The table without the random pick."""
        return self.table.drop(index=RANDOM)

    @property
    def blind(self) -> pd.Series[Any]:
        """The row of the random pick."""
        return self.table.T[RANDOM]


def regrets(trials: pd.DataFrame, *, independent: bool) -> Regrets | None:
    """Computes the regrets among the trials with an AMI; returns None for fewer than two or if all AMIs are equal.

    Args:
        trials: complete trials.
        independent: whether no sampler placed them.
    """
    trials = trials[values(trials, "val/ami").notna()]
    labels = np.column_stack([floats(trials, name) for name in LABELS])  # [n, 2]
    if len(trials) < 2 or np.ptp(labels[:, 0]) == 0:
        return None
    if not np.isfinite(labels[:, 1]).all():
        labels[:, 1] = np.nan
    names = [name for name in LABEL_FREE if values(trials, name).notna().any()]
    signed = np.column_stack([LABEL_FREE[name] * floats(trials, name) for name in names])
    scores = np.nan_to_num(signed, nan=-np.inf)  # [n, criteria]
    codes = units(trials)
    inference = independent and len(np.unique(codes)) >= MIN_UNITS
    first, used = scores.argmax(axis=0), floats(trials, "val/clusters_used")
    table = pd.DataFrame(
        {
            "label": [*map(_label, names), "random pick"],
            "trial": [*trials["trial_id"].astype(str).iloc[first], "any"],
            "row": [*trials.index[first], -1],
            "tied": [*(scores == scores.max(axis=0)).sum(axis=0), len(trials)],
            "clusters": [*used[first], used.mean()],
        },
        index=pd.Index([*names, RANDOM], name="criterion"),
    )
    picked = _picked(scores, labels)
    regret = labels.max(axis=0) - picked
    intervals = np.full((4, *picked.shape), np.nan)
    if inference:
        draws = resampled(codes, rng=np.random.default_rng(0))
        drawn = np.array([_picked(scores[rows], labels[rows]) for rows in draws])
        best = np.array([labels[rows].max(axis=0) for rows in draws])[:, None]
        # Without accuracy its column is all NaN, for which numpy emits a warning.
        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
            intervals[:2] = interval(best - drawn)
            intervals[2:] = interval(drawn - drawn[:, -1:])
    for i, name in enumerate(("ami", "acc")):
        table[name], table[f"{name}_regret"] = picked[:, i], regret[:, i]
        for suffix, bound in zip(("low", "high", "gain_low", "gain_high"), intervals[:, :, i], strict=True):
            table[f"{name}_{suffix}"] = bound
    return Regrets(
        table=table.sort_values("ami_regret", kind="stable"),
        n=len(trials),
        inference=inference,
    )


def correlations(trials: pd.DataFrame) -> dict[str, Correlation]:
    """Computes the rank correlation of AMI with every recorded criterion, signed so that higher is better.

    Both are relative to the mean of their seed where settings share seeds.
    """
    names, codes = [name for name in LABEL_FREE if name in trials], units(trials)
    ami, *scores = within_seeds(trials, "val/ami", *names)
    return {
        name: spearman(LABEL_FREE[name] * score, ami, units=codes) for name, score in zip(names, scores, strict=True)
    }


def _label(criterion: str) -> str:
    """Returns a criterion's display name without its unit: "I(x; y)"."""
    return columns.title(criterion).partition(",")[0]


def _picked(scores: Floats, labels: Floats) -> Floats:
    """Returns the labels `[criteria + 1, 2]` of the trial that each column of scores `[n, criteria]` ranks highest.

    The last row is the mean of all labels. Ties are averaged. NaN for a criterion that no row has.
    """
    highest = scores.max(axis=0)
    top = (scores == highest) & np.isfinite(highest)
    with np.errstate(invalid="ignore"):
        picked = (top.T.astype(float) @ labels) / top.sum(axis=0)[:, None]
    return np.vstack([picked, labels.mean(axis=0)])
