"""How does each metric respond to the temperature at the end, at the start, and on average over the training?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import stats
from analysis.columns import METRICS, TEMPERATURES, Metric, title
from analysis.figures import temperature as figures
from analysis.regression import resample_weights, slope
from analysis.section import Group, Section, Statement, Table, Value, slug
from analysis.smoothing import curve, no_curve
from analysis.stats import MIN_UNITS, RESAMPLES, Correlation, Estimate, Floats
from analysis.trials import INDEPENDENT, Study, floats, units, values
from catuvac.metrics import FLOORS

QUESTION = "How do the metrics respond to the temperature?"
STATED = ("config/tau_end", "config/tau_start")  # settings; the mean follows from them
OTHER = dict(zip(STATED, reversed(STATED), strict=True))
SIGNIFICANT = 0.05
PERMUTATIONS = 9999  # 45 comparisons under Holm need p-values far below 0.05 / 45
RANGE = (0.1, 0.9)  # quantiles of tau between which an effect is read off


@dataclass(frozen=True)
class Effect:
    """What goes with a temperature in one metric, over the independent trials of a panel.

    Attributes:
        panel: such as "fsdd, K = 10".
        temperature: its column, one of `TEMPERATURES`.
        metric: the response.
        correlation: Spearman's rho of the two.
        holm: its p-value, corrected for all comparisons of the panel; None where there is none.
        tau_low, tau_high: the 10 % and 90 % quantiles of tau.
        change: of the metric from tau_low to tau_high along a straight line in log tau: a difference in the metric's
            units, a factor for a metric with `log`; None where rho is.
        held: the same with the other of tau_start and tau_end held; None for the mean, and where the design does not
            tell the two apart.
    """

    panel: str
    temperature: str
    metric: Metric
    correlation: Correlation
    holm: float | None = None
    tau_low: float | None = None
    tau_high: float | None = None
    change: Estimate | None = None
    held: Estimate | None = None

    @property
    def moves(self) -> bool:
        """Whether the metric moves with the temperature after correction."""
        return self.holm is not None and self.holm < SIGNIFICANT


@dataclass(frozen=True)
class Response:
    """One small picture.

    Attributes:
        effect: in numbers.
        points: a row per complete trial with both values: study, trial_id, arm, independent, tau, value, clusters_used.
        curve: tau, value, low, high; no rows where the metric is constant or too few taus were tried.
        n_clusters: K.
    """

    effect: Effect
    points: pd.DataFrame
    curve: pd.DataFrame
    n_clusters: int


def defined(trials: pd.DataFrame, metric: Metric) -> pd.Series[float]:
    """A metric's values, NaN where the score is undefined (it carries its floor) or has no logarithm."""
    found = values(trials, metric.column)
    floor = FLOORS.get(metric.name.rpartition("_")[0])
    found = found if floor is None else found.mask(found == floor)
    return found.mask(found <= 0) if metric.log else found


def effects(study: Study) -> tuple[Effect, ...]:
    """The effect of every temperature on every metric that exists, by panel."""
    return tuple(each.effect for name, panel in study.panels().items() for each in responses(name, panel))


def responses(name: str, panel: Study) -> tuple[Response, ...]:
    """Every temperature against every metric of a panel, those without a value left out; Holm's correction over all."""
    trials = panel.complete
    drawn = trials["arm"].isin(INDEPENDENT).to_numpy(dtype=bool)
    codes = units(trials)[drawn]
    weights = resample_weights(codes)
    logs = {column: np.log10(floats(trials, column)[drawn]) for column in TEMPERATURES}
    found = []
    for temperature in TEMPERATURES:
        tau, x = values(trials, temperature), logs[temperature]
        for metric in METRICS:
            value = defined(trials, metric)
            both = (tau.notna() & value.notna()).to_numpy()
            if not both.any():
                continue
            points = pd.DataFrame(
                {
                    **{column: trials[column] for column in ("study", "trial_id", "arm")},
                    "independent": drawn,
                    "tau": tau,
                    "value": value,
                    "clusters_used": values(trials, "val/clusters_used"),
                }
            )
            y = np.asarray(np.log10(value) if metric.log else value, dtype=np.float64)[drawn]
            effect = Effect(name, temperature, metric, _correlation(x, y, codes))
            effect = _effect(effect, x, y, weights, other=logs[OTHER[temperature]] if temperature in OTHER else None)
            moving = effect.change is not None
            found.append(
                Response(
                    effect,
                    points[both].reset_index(drop=True),
                    curve(x, y, weights, log=metric.log) if moving else no_curve(),
                    int(trials["n_clusters"].iloc[0]),
                )
            )
    return _corrected(found)


def _correlation(x: Floats, y: Floats, codes: NDArray[np.int64]) -> Correlation:
    """Few permutations for what is far from significant, many for what Holm's correction may keep."""
    found = stats.spearman(x, y, units=codes)
    if found.p is None or found.p >= SIGNIFICANT:
        return found
    return stats.spearman(x, y, units=codes, permutations=PERMUTATIONS)


def _effect(effect: Effect, x: Floats, y: Floats, weights: Floats, *, other: Floats | None) -> Effect:
    """Adds the change along the straight line of y over x = log tau, and along the plane over x and the other tau."""
    if effect.correlation.rho is None:
        return effect
    low, high = np.quantile(x[np.isfinite(x) & np.isfinite(y)], RANGE)
    reach = float(high - low)
    return replace(
        effect,
        tau_low=float(10**low),
        tau_high=float(10**high),
        change=_told(slope([x], y, weights, times=reach), effect.metric),
        held=None if other is None else _told(slope([other, x], y, weights, times=reach), effect.metric),
    )


def _told(found: Estimate | None, metric: Metric) -> Estimate | None:
    """A change of a logarithm as a factor."""
    if found is None or not metric.log:
        return found
    return Estimate(10**found.value, 10**found.low, 10**found.high)


def _corrected(found: Sequence[Response]) -> tuple[Response, ...]:
    p = [each.effect.correlation.p for each in found]
    adjusted = iter(stats.holm([value for value in p if value is not None]))
    return tuple(
        each if value is None else replace(each, effect=replace(each.effect, holm=next(adjusted)))
        for each, value in zip(found, p, strict=True)
    )


def section(study: Study) -> Section:
    """The answer, and for every panel a table and three rows of small pictures."""
    panels = study.panels()
    if not panels:
        why = "No trial of Cat. UVAC has been recorded, so there is no temperature to study."
        return Section(QUESTION, (Statement("temperature/none", why),), (Group(why),))
    statements: list[Statement] = []
    parts: list[Group | Table] = []
    headline: list[str] = []
    for name, panel in panels.items():
        found = responses(name, panel)
        mine, first = _statements(name, panel, [each.effect for each in found])
        statements += mine
        headline += first
        if any(each.effect.correlation.rho is not None for each in found):
            parts.append(_table(name, [each.effect for each in found]))
        parts += _groups(name, panel, found)
    return Section(QUESTION, tuple(statements), tuple(parts), tuple(headline))


def _statements(name: str, panel: Study, found: list[Effect]) -> tuple[list[Statement], list[str]]:
    """All sentences of a panel, and the names of those that open the report."""
    prefix = f"temperature/{slug(name)}"
    if why := _why_not(panel):
        only = Statement(f"{prefix}/none", "{panel}: " + why[0], {"panel": name, **why[1]})
        return [only], [only.name]
    statements, headline = [], []
    labelled = any(effect.metric.column == "val/nmi" and effect.change is not None for effect in found)
    first = "val/nmi" if labelled else "val/silhouette_x"
    for temperature in STATED:
        mine = {effect.metric.column: effect for effect in found if effect.temperature == temperature}
        where = f"{prefix}/{temperature.rpartition('/')[2]}"
        if first in mine and (change := mine[first].change) is not None:
            statements.append(_one(f"{where}/{mine[first].metric.name}", mine[first], change))
            headline.append(statements[-1].name)
        statements.append(_all(f"{where}/moves", name, temperature, list(mine.values())))
    trials = panel.independent
    ends, starts = (floats(trials, column) for column in STATED)
    together = stats.spearman(ends, starts, units=units(trials))
    if together.rho is not None:
        text = (
            "{panel}: the design ties the two temperatures together (τ_end ≤ τ_start; Spearman ρ {rho:+.2f}, n = {n}), "
            "so the response to one holds part of the response to the other. The τ_start × τ_end map takes them apart."
        )
        statements.append(Statement(f"{prefix}/together", text, {"panel": name, "rho": together.rho, "n": together.n}))
    return statements, headline


def _why_not(panel: Study) -> tuple[str, dict[str, Value]] | None:
    """Why no inference is possible, in words and their values; None where it is."""
    n = len(panel.complete)
    if n == 0:
        return "no trial ran to its end with an objective, so there is no response to a temperature.", {}
    independent = panel.independent
    count = len(np.unique(units(independent))) if len(independent) else 0
    if count == 0:
        return (
            "all {n} complete trials were placed by the sampler (TPE) where earlier ones did well. They are drawn, but "
            "no inference on the temperature is possible from them; it needs an arm of random or QMC trials.",
            {"n": n},
        )
    if count < MIN_UNITS:
        return (
            "{count} of {n} complete trials are independent; an inference on the temperature needs {need} or more.",
            {"count": count, "n": n, "need": MIN_UNITS},
        )
    return None


def facts(effect: Effect) -> dict[str, Value]:
    """Every number of an effect that exists."""
    correlation = effect.correlation
    found: dict[str, Value | None] = {
        "tau_low": effect.tau_low,
        "tau_high": effect.tau_high,
        **estimate("change", effect.change),
        **estimate("held", effect.held),
        "rho": correlation.rho,
        "rho_low": correlation.low,
        "rho_high": correlation.high,
        "p": correlation.p,
        "holm": effect.holm,
        "n": correlation.n,
        "units": correlation.units,
    }
    return {key: value for key, value in found.items() if value is not None}


def estimate(name: str, found: Estimate | None) -> dict[str, Value]:
    """The values that `moved` writes: NAME, NAME_low, NAME_high."""
    return {} if found is None else {**found.values(name)}


def moved(name: str, found: Estimate, *, log: bool = False) -> str:
    """The format of a change, to the decimals that its interval deserves: "-0.08 (95 % interval -0.12 to -0.04"."""
    decimals = max(0, min(6, 1 - math.floor(math.log10(max(found.high - found.low, abs(found.value) / 100, 1e-6)))))
    nearest = min(abs(found.low), abs(found.high))
    while found.excludes_zero and decimals < 6 and round(nearest, decimals) == 0:
        decimals += 1  # an interval that excludes 0 must not read as if it ended there
    style = ".3g" if log else f"+z.{decimals}f"
    number, low, high = (f"{{{name}{end}:{style}}}" for end in ("", "_low", "_high"))
    return f"{'a factor of ' if log else ''}{number} (95 % interval {low} to {high}"


def _one(name: str, effect: Effect, change: Estimate) -> Statement:
    n = "n = {n}" if effect.correlation.n == effect.correlation.units else "n = {n} in {units} settings"
    words: dict[str, Value] = {
        "panel": effect.panel,
        "temperature": title(effect.temperature),
        "other": title(OTHER[effect.temperature]),
        "metric": effect.metric.label,
        **facts(effect),
    }
    text = (
        "{panel}: raising {temperature} from {tau_low:.2g} to {tau_high:.2g} moves {metric} by "
        f"{moved('change', change)}; Spearman ρ {{rho:+.2f}}, p = {{p:.2g}}, with Holm's correction {{holm:.2g}}, {n})"
    )
    text += "." if effect.moves else ", which is not told from chance."
    text += (
        f" With {{other}} held it moves by {moved('held', effect.held)})."
        if effect.held
        else " The design does not tell it from the effect of {other}."
    )
    return Statement(name, text, words)


def _all(name: str, panel: str, temperature: str, mine: list[Effect]) -> Statement:
    """Which metrics move, by how much, strongest first."""
    known = [effect for effect in mine if effect.change is not None]
    words: dict[str, Value] = {"panel": panel, "temperature": title(temperature), "known": len(known)}
    if not known:
        return Statement(name, "{panel}: no metric varies with {temperature} recorded, so none can be tested.", words)
    moving = sorted((effect for effect in known if effect.moves), key=lambda effect: -abs(effect.correlation.rho or 0))
    words |= {"moving": len(moving), "level": SIGNIFICANT}
    if not moving:
        text = "{panel}: none of {known} metrics moves with {temperature} (Holm's p < {level})."
        return Statement(name, text, words)
    told = list(moving)
    if any(effect.metric.name.endswith("_p") for effect in told):  # never a p-space score alone
        told += [each for each in known if each.metric.name == "clusters_used" and each not in told]
    words |= {"tau_low": moving[0].tau_low or 0.0, "tau_high": moving[0].tau_high or 0.0}
    sizes = []
    for effect in told:
        prefix, log = effect.metric.name, effect.metric.log
        words |= {f"{prefix}_{key}": value for key, value in facts(effect).items()}
        beside = "" if effect.moves else "; for comparison, it does not count as moving"
        if effect.change is not None:
            sizes.append(f"{effect.metric.label} by {moved(f'{prefix}_change', effect.change, log=log)}{beside})")
    return Statement(
        name,
        "{panel}: {moving} of {known} metrics move with {temperature} (Holm's p < {level}). Raising it from "
        f"{{tau_low:.2g}} to {{tau_high:.2g}} moves {'; '.join(sizes)}.",
        words,
    )


def _table(name: str, found: list[Effect]) -> Table:
    cells = {(effect.metric.column, effect.temperature): effect for effect in found}
    columns = [column for column in TEMPERATURES if any(effect.temperature == column for effect in found)]
    rows = []
    for metric in METRICS:
        mine = [cells.get((metric.column, column)) for column in columns]
        if any(mine):
            rows.append((metric.label, *(text for effect in mine for text in _cells(effect))))
    titles = tuple(text for column in columns for text in (f"{title(column)}: ρ", "p (Holm)"))
    return Table(
        f"{name}: Spearman's ρ of each metric with each temperature over {_independent(found)}, with its bootstrap "
        "95 % interval, and the p-value of a permutation test, in brackets with Holm's correction for the whole table. "
        f"A dash: constant, or too few trials have it. A star: below {SIGNIFICANT}. A score in p says nothing without "
        "the clusters used.",
        ("metric", *titles),
        tuple(rows),
    )


def _cells(effect: Effect | None) -> tuple[str, str]:
    if effect is None or effect.correlation.rho is None or effect.holm is None:
        return "–", "–"
    found = effect.correlation
    star = " *" if effect.moves else ""
    return f"{found.rho:+.2f} ({found.low:+.2f}, {found.high:+.2f})", f"{found.p:.2g} ({effect.holm:.2g}){star}"


def _independent(found: list[Effect]) -> str:
    n, count = (max(getattr(each.correlation, name) for each in found) for name in ("n", "units"))
    return f"{n} independent trials" if n == count else f"{n} independent trials in {count} settings"


def _groups(name: str, panel: Study, found: Sequence[Response]) -> list[Group]:
    if panel.complete.empty:
        return [Group(f"{name}: nothing to draw, because no trial ran to its end with an objective.")]
    groups = []
    for temperature, mine in groupby(found, key=lambda response: response.effect.temperature):
        responses = list(mine)
        where = slug("temperature", name, temperature.rpartition("/")[2])
        drawings = tuple(figures.draw(each, name=f"{where}-{each.effect.metric.name}") for each in responses)
        groups.append(Group(_caption(name, panel, temperature, responses), drawings))
    missing = [title(column) for column in TEMPERATURES if values(panel.complete, column).isna().all()]
    if missing:
        groups.append(Group(f"{name}: no picture of {', '.join(missing)}, which the table of trials does not hold."))
    return groups


def _caption(name: str, panel: Study, temperature: str, mine: list[Response]) -> str:
    trials = panel.complete
    n, tpe = len(panel.independent), int((~trials["arm"].isin(INDEPENDENT)).sum())
    words = [f"{name}: each metric against {title(temperature)} (logarithmic), a point a trial, {n} independent ones."]
    if tpe:
        words.append(f"{tpe} hollow points are trials that TPE placed where earlier ones did well; no curve uses them.")
    if any(len(each.curve) for each in mine):
        words.append(
            "Curve: a smoothing spline over log τ, its penalty chosen by generalised cross-validation; band: 95 % of "
            f"{RESAMPLES} bootstrap samples of whole settings."
        )
    if any(each.effect.metric.name.endswith("_p") for each in mine):
        words.append("Scores in p and the objective are coloured by the clusters used, without which they say nothing.")
    same = [each for each in mine if each.points["value"].nunique() == 1 and len(each.points) > 1]
    if same:
        words.append(f"The same in all trials: {', '.join(each.effect.metric.label for each in same)}.")
    if not any(each.effect.metric.labels for each in mine):
        words.append("No labels, so neither ACC nor NMI.")
    undefined = sum(len(trials) - len(each.points) for each in mine if not each.effect.metric.labels)
    if undefined:
        words.append(f"Scores that are undefined (a single cluster) or not recorded are left out: {undefined} in all.")
    return " ".join(words)
