"""How often do trials collapse or diverge, and where in the search space?

The effect of a temperature on how often q(y|x) decides, with everything else held fixed, is estimated in
`analysis.questions.effects`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from analysis.columns import SETTINGS
from analysis.stats.bootstrap import CONFIDENCE
from analysis.trials import DESIGNED, Study, reads_temperature, undecided, units, values
from catuvac.experiments.search_space import Choice

OUTCOMES = ("healthy", "collapsed", "diverged")
TEMPERATURES = ("config/tau_start", "config/tau_end", "config/tau_schedule")
TOTAL = 2.0  # with fewer effective clusters, everything has merged
BINS = 5


@dataclass(frozen=True)
class Collapse:
    """Outcomes of one corpus and K.

    Attributes:
        points: one row per complete or diverged trial: trial_id, row (of `Study.trials`), outcome (of `OUTCOMES`),
            undecided (I(x; y) of at most ½ log K, so each clip's cluster is a near-tie), total (merged into fewer
            than `TOTAL` effective clusters), arm, adaptive (not from a designed arm), unit, the settings.
        rates: by "collapsed", "undecided", "total", "diverged" and "lost" over the `DESIGNED` trials: count, n, rate,
            low, high (Wilson 95 % interval that counts each setting once, because its seeds are correlated); no rows
            if there are no such trials.
        bins: the rates of each setting's bins: setting, at (its geometric mean; a string if its axis is not
            logarithmic), outcome, n, rate, low, high.
        unknown: number of stopped and failed trials, and of complete ones without clusters used; left out.
    """

    points: pd.DataFrame
    rates: pd.DataFrame
    bins: pd.DataFrame
    unknown: int


def collapse(study: Study, k: int) -> Collapse:
    """Sorts the trials of one K into healthy, collapsed (fewer than K/2 clusters used, or y undecided) and diverged."""
    trials = study.trials
    used, diverged = values(trials, "val/clusters_used"), (trials["status"] == "diverged").to_numpy(dtype=bool)
    ties = undecided(trials)
    known = diverged | ((trials["status"] == "complete").to_numpy(dtype=bool) & used.notna())
    points = pd.DataFrame(
        {
            "trial_id": trials["trial_id"].astype(str),
            "row": trials.index,
            "outcome": np.where(diverged, "diverged", np.where((used < k / 2) | ties, "collapsed", "healthy")),
            "undecided": ~diverged & ties,
            "total": ~diverged & (values(trials, "val/effective_clusters") < TOTAL),
            "arm": trials["arm"].astype(str),
            "adaptive": ~trials["arm"].isin(DESIGNED).to_numpy(dtype=bool),
            "unit": units(trials),
            **{name: _setting(trials, name) for name in SETTINGS},
        }
    )[known].reset_index(drop=True)
    designed = points[~points["adaptive"]]
    bins = [_binned(designed, name) for name in SETTINGS]
    return Collapse(points, _rates(designed), pd.concat(bins, ignore_index=True), int((~known).sum()))


def _setting(trials: pd.DataFrame, name: str) -> pd.Series[Any]:
    """Returns a column of `SETTINGS`; null for a temperature that a trial does not use."""
    if isinstance(SETTINGS[name], Choice):
        column = trials.get(name, pd.Series(pd.NA, index=trials.index)).astype(object)
    else:
        column = values(trials, name)
    return column.where(reads_temperature(trials)) if name in TEMPERATURES else column


def _rates(points: pd.DataFrame) -> pd.DataFrame:
    events = {
        "collapsed": points["outcome"] == "collapsed",
        "undecided": points["undecided"],
        "total": points["total"],
        "diverged": points["outcome"] == "diverged",
        "lost": points["outcome"] != "healthy",
    }
    rows = [proportion(hit, points["unit"]) for hit in events.values()] if len(points) else []
    return pd.DataFrame(
        rows, columns=["count", "n", "rate", "low", "high"], index=pd.Index(list(events) if rows else [])
    )


def proportion(hit: pd.Series[bool], unit: pd.Series[int]) -> dict[str, float]:
    """Returns count, n and rate of the trials, with the Wilson interval for which each setting counts once."""
    rate, settings = float(hit.mean()), unit.nunique()
    low, high = proportion_confint(rate * settings, settings, alpha=1 - CONFIDENCE, method="wilson")
    return {"count": int(hit.sum()), "n": len(hit), "rate": rate, "low": float(low), "high": float(high)}


def _binned(points: pd.DataFrame, setting: str) -> pd.DataFrame:
    """Computes rates per value if a setting has few distinct values, otherwise in bins of equal counts."""
    column = points[setting].dropna()
    rows = []
    if column.nunique() > 1:
        dimension = SETTINGS[setting]
        few = isinstance(dimension, Choice) or column.nunique() <= BINS
        code = column if few else pd.qcut(column, BINS, duplicates="drop")
        for _, members in column.groupby(code, observed=True):
            if isinstance(dimension, Choice):
                at = members.iloc[0]
            elif dimension.log:
                at = float(np.exp(np.log(members.astype(float)).mean()))
            else:
                at = f"{members.mean():.3g}"  # a logarithmic axis cannot show 0
            outcome, unit = points["outcome"].loc[members.index], points["unit"].loc[members.index]
            for kind in OUTCOMES[1:]:
                rows.append({"setting": setting, "at": at, "outcome": kind, **proportion(outcome == kind, unit)})
    return pd.DataFrame(rows, columns=["setting", "at", "outcome", "count", "n", "rate", "low", "high"])
