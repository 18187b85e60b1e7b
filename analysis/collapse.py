"""How often do trials collapse or diverge, and where in the search space?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import logit
from scipy.stats import binomtest, rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from analysis.columns import NUMERIC_SETTINGS, title
from analysis.figures import collapse as figures
from analysis.section import Drawing, Group, Section, Statement, Table, Value, slug
from analysis.stats.bootstrap import CONFIDENCE, Floats, resampled
from analysis.trials import DESIGNED, INDEPENDENT, Study, undecided, units, values

OUTCOMES = ("healthy", "collapsed", "diverged")
SCHEDULE = "config/tau_schedule"
TOTAL = 2.0  # effective clusters below this: everything has merged
BINS = 5
MIN_EVENTS = 5  # lost and healthy settings that a regression takes at least, of each
RESAMPLES = 199  # each is a fit of its own
MAX_FIT = 3000  # trials in a regression; more would change the third digit
FOLDS = 10
LINE = 50  # points of the boundary
PERCENTILES = (50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE))


@dataclass(frozen=True)
class Fit:
    """A logistic regression of "lost" (collapsed or diverged) on the standardized logarithms of the settings.

    Attributes:
        settings: by falling weight of one standard deviation: setting, odds (ratio per doubling, the others held),
            low, high (95 % bootstrap interval by units).
        auc, auc_low, auc_high: how well trials it has not seen are told apart; 0.5 is chance.
        level: of the boundary: 0.5 where the fit reaches it within the search space, else the share that is lost.
        threshold, threshold_low, threshold_high: where the first setting crosses the level, the others at their
            geometric mean; None where it does not within what was searched, to which the interval is clipped.
        boundary: points `[m, 2]` where the two weightiest settings, its columns, cross the level; empty where they do
            not, or where the settings do not tell lost trials from healthy ones.
        n, lost: trials.
    """

    settings: pd.DataFrame
    auc: float
    auc_low: float
    auc_high: float
    level: float
    threshold: float | None
    threshold_low: float
    threshold_high: float
    boundary: pd.DataFrame
    n: int
    lost: int

    @property
    def tells_apart(self) -> bool:
        """Whether the settings say anything of who is lost."""
        return self.auc_low > 0.5


@dataclass(frozen=True)
class Collapse:
    """Outcomes of one corpus and K.

    Attributes:
        points: a row per complete or diverged trial: trial_id, outcome (of `OUTCOMES`), undecided (I(x; y) of at most
            ½ log K, so that each clip's cluster is a near-tie), total (merged into less than `TOTAL` effective
            clusters), arm, adaptive (placed by TPE), unit, the settings.
        rates: by "collapsed", "undecided", "total", "diverged" and "lost" over the `DESIGNED` trials: count, n, rate,
            low, high (Wilson's 95 % interval); no rows where there are none.
        bins: the rates of each setting's bins: setting, at (its geometric mean, or a schedule's name), outcome, n,
            rate, low, high.
        fit: over the independent trials; None where it cannot be fitted, and `reason` says why.
        unknown: stopped trials, errors, and complete ones without clusters used; left out.
    """

    points: pd.DataFrame
    rates: pd.DataFrame
    bins: pd.DataFrame
    fit: Fit | None
    reason: str
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
            "outcome": np.where(diverged, "diverged", np.where((used < k / 2) | ties, "collapsed", "healthy")),
            "undecided": ~diverged & ties,
            "total": ~diverged & (values(trials, "val/effective_clusters") < TOTAL),
            "arm": trials["arm"].astype(str),
            "adaptive": ~trials["arm"].isin(INDEPENDENT).to_numpy(dtype=bool),
            "unit": units(trials),
            **{name: values(trials, name).where(lambda x: x > 0) for name in NUMERIC_SETTINGS},
            SCHEDULE: trials.get(SCHEDULE, pd.Series(pd.NA, index=trials.index)).astype(object),
        }
    )[known].reset_index(drop=True)
    designed = points[points["arm"].isin(DESIGNED)]
    fit, reason = _fitted(points[~points["adaptive"]])
    bins = [_binned(designed, name) for name in (*NUMERIC_SETTINGS, SCHEDULE)]
    return Collapse(points, _rates(designed), pd.concat(bins, ignore_index=True), fit, reason, int((~known).sum()))


def section(study: Study) -> Section:
    """Rates of collapse and divergence, what drives them, and the boundary in the search space."""
    statements: list[Statement] = []
    parts: list[Group | Table] = []
    headline: list[str] = []
    for name, panel in study.panels().items():
        k = int(panel.trials["n_clusters"].iloc[0])
        found, key = collapse(panel, k), f"collapse/{slug(name)}"
        mine = [_rate(f"{key}/rate", name, k, found), _cause(f"{key}/cause", name, found)]
        statements += mine
        headline += [each.name for each in mine]
        parts += _parts(name, k, found)
    if not parts:
        parts = [Group("No trial of Cat. UVAC has been recorded, so none has collapsed.")]
    return Section(
        "How often do trials collapse or diverge, and where?", tuple(statements), tuple(parts), tuple(headline)
    )


def _rates(points: pd.DataFrame) -> pd.DataFrame:
    events = {
        "collapsed": points["outcome"] == "collapsed",
        "undecided": points["undecided"],
        "total": points["total"],
        "diverged": points["outcome"] == "diverged",
        "lost": points["outcome"] != "healthy",
    }
    rows = [_proportion(int(hit.sum()), len(hit)) for hit in events.values()] if len(points) else []
    return pd.DataFrame(
        rows, columns=["count", "n", "rate", "low", "high"], index=pd.Index(list(events) if rows else [])
    )


def _proportion(count: int, n: int) -> dict[str, float]:
    interval = binomtest(count, n).proportion_ci(CONFIDENCE, method="wilson")
    return {"count": count, "n": n, "rate": count / n, "low": float(interval.low), "high": float(interval.high)}


def _binned(points: pd.DataFrame, setting: str) -> pd.DataFrame:
    """Few distinct values are their own bins; else bins of equal counts."""
    column = points[setting].dropna()
    rows = []
    if column.nunique() > 1:
        code = column if setting == SCHEDULE or column.nunique() <= BINS else pd.qcut(column, BINS, duplicates="drop")
        for _, members in column.groupby(code, observed=True):
            at = members.iloc[0] if setting == SCHEDULE else float(np.exp(np.log(members.astype(float)).mean()))
            outcome = points["outcome"].loc[members.index]
            for kind in OUTCOMES[1:]:
                share = _proportion(int((outcome == kind).sum()), len(outcome))
                rows.append({"setting": setting, "at": at, "outcome": kind, **share})
    return pd.DataFrame(rows, columns=["setting", "at", "outcome", "count", "n", "rate", "low", "high"])


def _fitted(points: pd.DataFrame) -> tuple[Fit | None, str]:
    names = [name for name in NUMERIC_SETTINGS if points[name].nunique() > 1]
    if points.empty:
        return None, "there is no independent trial"
    if not names:
        return None, "no setting varies among the independent trials"
    points = points.dropna(subset=names)
    points = points.sample(min(len(points), MAX_FIT), random_state=0).sort_index()
    lost, unit = (points["outcome"] != "healthy").to_numpy(dtype=bool), points["unit"].to_numpy(dtype=np.int64)
    fewest = min(len(np.unique(unit[lost])), len(np.unique(unit[~lost])))
    if fewest < MIN_EVENTS:
        which = "lost" if len(np.unique(unit[lost])) == fewest else "healthy"
        number = "none" if fewest == 0 else f"only {fewest}"
        verb = "is" if fewest < 2 else "are"
        return None, f"{number} of the independent settings {verb} {which}, and a regression takes {MIN_EVENTS}"
    logs = np.log(points[names].to_numpy(dtype=float))
    draws = resampled(unit, rng=np.random.default_rng(0), times=RESAMPLES)
    draws = [rows for rows in draws if 0 < lost[rows].sum() < len(rows)]
    scale = StandardScaler().fit(logs)
    plane = _plane(logs, lost, scale)
    planes = np.asarray([_plane(logs[rows], lost[rows], scale) for rows in draws])
    order = np.argsort(-np.abs(plane[1:] * scale.scale_), kind="stable")
    names, logs, plane, planes = (
        [names[i] for i in order],
        logs[:, order],
        plane[[0, *(order + 1)]],
        planes[:, [0, *(order + 1)]],
    )
    auc, auc_low, auc_high = _auc(logs, lost, unit, draws)
    margin = plane[0] + logs @ plane[1:]
    level = 0.5 if margin.min() < 0 < margin.max() else float(lost.mean())
    low, high = np.percentile(planes[:, 1:], PERCENTILES, axis=0)
    ratios = {name: np.exp(each * np.log(2)) for name, each in (("odds", plane[1:]), ("low", low), ("high", high))}
    crossings = [_crossing(each, logs, level) for each in planes]
    crossing, (start, end) = _crossing(plane, logs, level), (logs[:, 0].min(), logs[:, 0].max())
    edges = np.exp(np.percentile(np.clip(crossings, start, end), PERCENTILES))
    fit = Fit(
        settings=pd.DataFrame({"setting": names, **ratios}),
        auc=auc,
        auc_low=auc_low,
        auc_high=auc_high,
        level=level,
        threshold=float(np.exp(crossing)) if start < crossing < end else None,
        threshold_low=float(edges[0]),
        threshold_high=float(edges[1]),
        boundary=_boundary(plane, logs, level, names) if auc_low > 0.5 else pd.DataFrame(),
        n=len(points),
        lost=int(lost.sum()),
    )
    return fit, ""


def _plane(logs: Floats, lost: NDArray[np.bool_], scale: StandardScaler) -> Floats:
    """Constant and slope per natural logarithm of each setting; an L2 penalty of weight 1 keeps separation finite."""
    model = LogisticRegression(C=1.0, solver="newton-cholesky").fit(scale.transform(logs), lost)
    slopes = model.coef_[0] / scale.scale_
    return np.concatenate([model.intercept_ - slopes @ scale.mean_, slopes])


def _crossing(plane: Floats, logs: Floats, level: float) -> float:
    """Logarithm of the first setting where the fit is at the level, the others at their geometric mean."""
    slope = plane[1] if plane[1] != 0 else np.finfo(float).tiny
    with np.errstate(over="ignore"):
        return float((logit(level) - plane[0] - plane[2:] @ logs[:, 1:].mean(axis=0)) / slope)


def _boundary(plane: Floats, logs: Floats, level: float, names: list[str]) -> pd.DataFrame:
    """Where the first two settings cross the level within what was searched, the others at their geometric mean."""
    if len(names) < 2:
        return pd.DataFrame()
    second = np.linspace(logs[:, 1].min(), logs[:, 1].max(), LINE)
    others = plane[3:] @ logs[:, 2:].mean(axis=0)
    first = (logit(level) - plane[0] - others - plane[2] * second) / plane[1]
    inside = (first >= logs[:, 0].min()) & (first <= logs[:, 0].max())
    return pd.DataFrame({names[0]: np.exp(first[inside]), names[1]: np.exp(second[inside])})


def _auc(
    logs: Floats, lost: NDArray[np.bool_], unit: NDArray[np.int64], draws: list[NDArray[np.int64]]
) -> tuple[float, float, float]:
    """Of predictions for trials that the fit has not seen, with its bootstrap interval."""
    repeated = len(np.unique(unit)) < len(unit)
    folds = min(FOLDS, len(np.unique(unit[lost])), len(np.unique(unit[~lost])))
    split = (StratifiedGroupKFold if repeated else StratifiedKFold)(folds, shuffle=True, random_state=0)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, solver="newton-cholesky"))
    score = cross_val_predict(
        model, logs, lost, groups=unit if repeated else None, cv=split, method="decision_function"
    )
    low, high = np.percentile([_area(lost[rows], score[rows]) for rows in draws], PERCENTILES)
    return _area(lost, score), float(low), float(high)


def _area(lost: NDArray[np.bool_], score: Floats) -> float:
    """AUC by ranks: scikit-learn's takes thirty times as long on a hundred trials."""
    ranks, hits = rankdata(score), int(lost.sum())
    return float((ranks[lost].mean() - (hits + 1) / 2) / (len(lost) - hits))


def _rate(name: str, panel: str, k: int, found: Collapse) -> Statement:
    facts: dict[str, Value] = {"panel": panel, "k": k, "half": k / 2, "merged": TOTAL}
    if found.rates.empty:
        counts = found.points["outcome"].value_counts()
        facts |= {kind: int(counts.get(kind, 0)) for kind in OUTCOMES} | {"n": len(found.points)}
        text = (
            "{panel}: no random, QMC or grid trial is complete or diverged, so no rate over the search space can be "
            "stated. Of the {n} trials there are, {collapsed} collapsed and {diverged} diverged."
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
        f"{{panel}}: {collapsed} random, QMC or grid trials collapsed: fewer than {{half:g}} of {{k}} clusters in use, "
        "or assignments that were never decided, I(x; y) at most half of log K ({undecided_count} of them); "
        "{total_count} merged to less than {merged:g} effective ones; "
    )
    text += (
        "{diverged_count} diverged ({diverged:.0%}, {diverged_low:.1%} to {diverged_high:.1%})."
        if facts["diverged_count"]
        else "none diverged (0% to {diverged_high:.1%})."
    )
    return Statement(name, text, facts)


def _cause(name: str, panel: str, found: Collapse) -> Statement:
    fit = found.fit
    facts: dict[str, Value] = {"panel": panel}
    if fit is None:
        text = "{panel}: what drives collapse or divergence cannot be fitted: {reason}."
        return Statement(name, text, facts | {"reason": found.reason})
    facts |= {"auc": fit.auc, "auc_low": fit.auc_low, "auc_high": fit.auc_high, "n": fit.n, "lost": fit.lost}
    if not fit.tells_apart:
        text = (
            "{panel}: the settings do not tell the {lost} collapsed or diverged of {n} independent trials from the "
            "healthy ones (AUC {auc:.2f}, 95 % interval {auc_low:.2f} to {auc_high:.2f}; 0.5 is chance), so there is "
            "no boundary."
        )
        return Statement(name, text, facts)
    first = fit.settings.iloc[0]
    odds, low, high = float(first["odds"]), float(first["low"]), float(first["high"])
    facts |= {"setting": title(first["setting"]), "odds": odds, "odds_low": low, "odds_high": high}
    text = (
        "{panel}: {setting} drives collapse and divergence most: each doubling multiplies their odds by {odds:.3g} "
        "(95 % interval {odds_low:.3g} to {odds_high:.3g}, other settings held; {lost} of {n} independent trials lost)"
    )
    if low <= 1 <= high:
        text += ", which does not exclude that it has no effect of its own"
    elif fit.threshold is not None:
        facts |= {"level": fit.level, "side": "above" if odds > 1 else "below", "threshold": fit.threshold}
        facts |= {"threshold_low": fit.threshold_low, "threshold_high": fit.threshold_high}
        text += (
            ". Their fitted chance exceeds {level:.0%} {side} {setting} = {threshold:.2g} "
            "({threshold_low:.2g} to {threshold_high:.2g})"
        )
    return Statement(name, text + ".", facts)


def _parts(panel: str, k: int, found: Collapse) -> list[Group | Table]:
    points, fit = found.points, found.fit
    left_out = f"{found.unknown} stopped, failed or without clusters used are left out"
    if points.empty:
        return [Group(f"{panel}: no trial is complete or diverged, so nothing is drawn ({left_out}).")]
    parts: list[Group | Table] = []
    varied = list(fit.settings["setting"]) if fit else [name for name in NUMERIC_SETTINGS if points[name].nunique() > 1]
    caption = (
        f"{panel}: {len(points)} trials ({left_out}). Collapsed: complete, with fewer than {k / 2:g} of {k} clusters "
        "used or with I(x; y) of at most ½ log K, where q(y|x) has not decided; diverged: by status."
    )
    if points["adaptive"].any():
        caption += " Hollow points were placed by TPE and carry no inference."
    if len(varied) >= 2:
        line = fit.boundary if fit else pd.DataFrame()
        level = f"{fit.level:.0%}" if fit else ""
        if fit and len(line):
            share = "one half" if fit.level == 0.5 else f"the share of lost trials, {level}"
            caption += (
                f" Line: where the fitted chance of collapse or divergence is {share}, the other settings at their "
                "geometric mean. These two settings weigh most in the fit."
            )
        elif fit and fit.tells_apart:
            caption += " The fitted boundary does not cross these two settings where they were searched."
        elif fit:
            caption += " The settings do not tell lost trials from healthy ones, so there is no boundary to draw."
        else:
            caption += f" No boundary is fitted: {found.reason}."
        drawn = points.dropna(subset=varied[:2])
        parts.append(
            Group(caption, (figures.plane(f"collapse-{slug(panel)}-map", drawn, varied[0], varied[1], line, level),))
        )
    else:
        parts.append(Group(caption + " Fewer than two settings vary, so there is no map to draw."))
    drawings: list[Drawing] = [
        figures.rates(f"collapse-{slug(panel, setting)}", bins, str(setting))
        for setting, bins in found.bins.groupby("setting", sort=False)
    ]
    if drawings:
        parts.append(
            Group(
                f"{panel}: share of {int(found.rates['n'].iloc[0])} random, QMC and grid trials that collapsed or "
                f"diverged, by up to {BINS} bins of about equal counts of each setting, with Wilson's 95 % interval.",
                tuple(drawings),
            )
        )
    if fit is not None:
        parts.append(_table(panel, fit))
    return parts


def _table(panel: str, fit: Fit) -> Table:
    rows = fit.settings.to_dict("records")
    return Table(
        f"{panel}: logistic regression of collapse or divergence on the standardized logarithms of the settings, over "
        f"{fit.n} independent trials ({fit.lost} lost; a seeded draw above {MAX_FIT}). An L2 penalty of weight 1 pulls "
        "ratios towards 1 and shares between settings what was searched together (τ_end ≤ τ_start). Intervals: 95 %, "
        f"from {RESAMPLES} bootstrap samples of whole settings. For trials it has not seen ({FOLDS} folds) its AUC is "
        f"{fit.auc:.2f} ({fit.auc_low:.2f} to {fit.auc_high:.2f}); 0.5 is chance.",
        ("setting", "odds ratio per doubling", "95 % interval"),
        tuple((title(row["setting"]), f"{row['odds']:.3g}", f"{row['low']:.3g} to {row['high']:.3g}") for row in rows),
    )
