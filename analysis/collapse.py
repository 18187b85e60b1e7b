"""How often do trials collapse or diverge, and where in the search space?

What a temperature does to how often q(y|x) decides, with everything else held, is estimated in
`analysis.questions.effects`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from analysis.columns import SETTINGS
from analysis.figures import collapse as figures
from analysis.section import Drawing, Group, Section, Statement, Value, slug
from analysis.stats.bootstrap import CONFIDENCE
from analysis.trials import DESIGNED, Study, reads_temperature, undecided, units, values
from catuvac.experiments.search_space import Choice

OUTCOMES = ("healthy", "collapsed", "diverged")
TEMPERATURES = ("config/tau_start", "config/tau_end", "config/tau_schedule")
MAP = ("config/beta", "config/tau_start")  # of the picture of all trials
TOTAL = 2.0  # effective clusters below this: everything has merged
BINS = 5


@dataclass(frozen=True)
class Collapse:
    """Outcomes of one corpus and K.

    Attributes:
        points: a row per complete or diverged trial: trial_id, row (of `Study.trials`), outcome (of `OUTCOMES`),
            undecided (I(x; y) of at most ½ log K, so that each clip's cluster is a near-tie), total (merged into less
            than `TOTAL` effective clusters), arm, adaptive (of no designed arm), unit, the settings.
        rates: by "collapsed", "undecided", "total", "diverged" and "lost" over the `DESIGNED` trials: count, n, rate,
            low, high (Wilson's 95 % interval, as if each setting were one trial: its seeds are alike); no rows where
            there are none.
        bins: the rates of each setting's bins: setting, at (its geometric mean; a word where its axis is not
            logarithmic), outcome, n, rate, low, high.
        unknown: stopped trials, errors, and complete ones without clusters used; left out.
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
    """A column of `SETTINGS`; null for a temperature that a trial does not read."""
    if isinstance(SETTINGS[name], Choice):
        column = trials.get(name, pd.Series(pd.NA, index=trials.index)).astype(object)
    else:
        column = values(trials, name)
    return column.where(reads_temperature(trials)) if name in TEMPERATURES else column


def section(study: Study) -> Section:
    """Rates of collapse and divergence, and where they lie in the search space."""
    statements: list[Statement] = []
    parts: list[Group] = []
    for name, panel in study.panels().items():
        k = int(panel.trials["n_clusters"].iloc[0])
        found = collapse(panel, k)
        statements.append(_rate(f"collapse/{slug(name)}/rate", name, k, found))
        parts += _parts(name, k, found)
    if not parts:
        parts = [Group("No trial of Cat. UVAC has been recorded, so none has collapsed.")]
    headline = tuple(each.name for each in statements)
    return Section("How often do trials collapse or diverge, and where?", tuple(statements), tuple(parts), headline)


def _rates(points: pd.DataFrame) -> pd.DataFrame:
    events = {
        "collapsed": points["outcome"] == "collapsed",
        "undecided": points["undecided"],
        "total": points["total"],
        "diverged": points["outcome"] == "diverged",
        "lost": points["outcome"] != "healthy",
    }
    rows = [_proportion(hit, points["unit"]) for hit in events.values()] if len(points) else []
    return pd.DataFrame(
        rows, columns=["count", "n", "rate", "low", "high"], index=pd.Index(list(events) if rows else [])
    )


def _proportion(hit: pd.Series[bool], unit: pd.Series[int]) -> dict[str, float]:
    """Share of the trials, with the interval of as many as there are settings."""
    rate, settings = float(hit.mean()), unit.nunique()
    low, high = proportion_confint(rate * settings, settings, alpha=1 - CONFIDENCE, method="wilson")
    return {"count": int(hit.sum()), "n": len(hit), "rate": rate, "low": float(low), "high": float(high)}


def _binned(points: pd.DataFrame, setting: str) -> pd.DataFrame:
    """Few distinct values are their own bins; else bins of equal counts."""
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
                at = f"{members.mean():.3g}"  # 0 has no place on a logarithmic axis
            outcome, unit = points["outcome"].loc[members.index], points["unit"].loc[members.index]
            for kind in OUTCOMES[1:]:
                rows.append({"setting": setting, "at": at, "outcome": kind, **_proportion(outcome == kind, unit)})
    return pd.DataFrame(rows, columns=["setting", "at", "outcome", "count", "n", "rate", "low", "high"])


def _rate(name: str, panel: str, k: int, found: Collapse) -> Statement:
    facts: dict[str, Value] = {"panel": panel, "k": k, "half": k / 2, "merged": TOTAL}
    if found.rates.empty:
        counts = found.points["outcome"].value_counts()
        facts |= {kind: int(counts.get(kind, 0)) for kind in OUTCOMES} | {"n": len(found.points)}
        text = (
            "{panel}: no trial of a designed arm (random, QMC, grid or factorial) is complete or diverged, so no rate "
            "over the search space can be stated. Of the {n} trials there are, {collapsed} collapsed and {diverged} "
            "diverged."
        )
        return Statement(name, text, facts)
    rates = found.rates
    facts["n"] = int(rates["n"].iloc[0])
    for kind, row in rates.to_dict("index").items():
        facts |= {f"{kind}": row["rate"], f"{kind}_low": row["low"], f"{kind}_high": row["high"]}
        facts[f"{kind}_count"] = int(row["count"])
    collapsed = "{collapsed_count} of {n} ({collapsed:.0%}, 95 % interval {collapsed_low:.1%} to {collapsed_high:.1%})"
    if facts["collapsed_count"] == 0:
        collapsed = "none of {n} (95 % interval 0% to {collapsed_high:.1%})"
    if facts["collapsed_count"] == facts["n"]:
        collapsed = "all {n} (95 % interval {collapsed_low:.1%} to 100%)"
    text = (
        f"{{panel}}: {collapsed} trials of designed arms collapsed: fewer than {{half:g}} of {{k}} clusters in use, "
        "or assignments that were never decided, I(x; y) at most half of log K ({undecided_count} of them); "
        "{total_count} merged to less than {merged:g} effective ones; "
    )
    text += (
        "{diverged_count} diverged ({diverged:.0%}, {diverged_low:.1%} to {diverged_high:.1%})."
        if facts["diverged_count"]
        else "none diverged (0% to {diverged_high:.1%})."
    )
    return Statement(name, text, facts)


def _parts(panel: str, k: int, found: Collapse) -> list[Group]:
    points = found.points
    left_out = f"{found.unknown} stopped, failed or without clusters used are left out"
    if points.empty:
        return [Group(f"{panel}: no trial is complete or diverged, so nothing is drawn ({left_out}).")]
    parts: list[Group] = []
    caption = (
        f"{panel}: {len(points)} trials ({left_out}). Collapsed: complete, with fewer than {k / 2:g} of {k} clusters "
        "used or with I(x; y) of at most ½ log K, where q(y|x) has not decided; diverged: by status."
    )
    if points["adaptive"].any():
        caption += " Hollow points were placed by TPE or a confirm run and carry no inference."
    if all(points[name].nunique() > 1 for name in MAP):
        drawn = points.dropna(subset=list(MAP))
        parts.append(Group(caption, (figures.plane(f"collapse-{slug(panel)}-map", drawn, *MAP),)))
    else:
        parts.append(Group(caption + " β and τ_start do not both vary, so there is no map to draw."))
    drawings: list[Drawing] = [
        figures.rates(f"collapse-{slug(panel, setting)}", bins, str(setting))
        for setting, bins in found.bins.groupby("setting", sort=False)
    ]
    if drawings:
        parts.append(
            Group(
                f"{panel}: share of {int(found.rates['n'].iloc[0])} trials of designed arms that collapsed or "
                f"diverged, by up to {BINS} bins of about equal counts of each setting, the others as they fall, with "
                "Wilson's 95 % interval (the seeds of a setting count once).",
                tuple(drawings),
            )
        )
    return parts
