"""How does each metric lie over the temperatures? Pictures of the trials as they are, nothing held.

What the temperature does is estimated in `analysis.questions.effects`: from a marginal picture it cannot be read, since
the other settings move too, and a smooth curve through it bends where nothing is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import pandas as pd

from analysis.columns import METRICS, TEMPERATURES, Metric, title
from analysis.figures import temperature as figures
from analysis.section import Group, Section, Statement, Value, slug
from analysis.stats.bootstrap import Estimate
from analysis.trials import INDEPENDENT, Study, values
from catuvac.metrics import FLOORS

QUESTION = "How do the metrics lie over the temperatures?"
RANGE = (0.1, 0.9)  # quantiles of tau between which an effect is read off


@dataclass(frozen=True)
class Response:
    """One small picture.

    Attributes:
        temperature: its column, one of `TEMPERATURES`.
        metric: the response.
        points: a row per complete trial with both values: study, trial_id, arm, independent, tau, value, clusters_used.
        n_clusters: K.
    """

    temperature: str
    metric: Metric
    points: pd.DataFrame
    n_clusters: int


def defined(trials: pd.DataFrame, metric: Metric) -> pd.Series[float]:
    """A metric's values, NaN where the score is undefined (it carries its floor) or has no logarithm."""
    found = values(trials, metric.column)
    floor = FLOORS.get(metric.name.rpartition("_")[0])
    found = found if floor is None else found.mask(found == floor)
    return found.mask(found <= 0) if metric.log else found


def responses(panel: Study) -> tuple[Response, ...]:
    """Every temperature against every metric of a panel, those without a value left out."""
    trials = panel.complete
    found = []
    for temperature in TEMPERATURES:
        for metric in METRICS:
            points = pd.DataFrame(
                {
                    **{column: trials[column] for column in ("study", "trial_id", "arm")},
                    "independent": trials["arm"].isin(INDEPENDENT).to_numpy(dtype=bool),
                    "tau": values(trials, temperature),
                    "value": defined(trials, metric),
                    "clusters_used": values(trials, "val/clusters_used"),
                }
            ).dropna(subset=["tau", "value"])
            if len(points):
                k = int(trials["n_clusters"].iloc[0])
                found.append(Response(temperature, metric, points.reset_index(drop=True), k))
    return tuple(found)


def section(study: Study) -> Section:
    """For every panel three rows of small pictures."""
    panels = study.panels()
    if not panels:
        why = "No trial of Cat. UVAC has been recorded, so there is no temperature to study."
        return Section(QUESTION, (Statement("temperature/none", why),), (Group(why),))
    parts = [group for name, panel in panels.items() for group in _groups(name, panel, responses(panel))]
    return Section(QUESTION, (), tuple(parts))


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


def _groups(name: str, panel: Study, found: Sequence[Response]) -> list[Group]:
    if panel.complete.empty:
        return [Group(f"{name}: nothing to draw, because no trial ran to its end with an objective.")]
    groups = []
    for temperature, mine in groupby(found, key=lambda response: response.temperature):
        drawn = list(mine)
        where = slug("temperature", name, temperature.rpartition("/")[2])
        drawings = tuple(figures.draw(each, name=f"{where}-{each.metric.name}") for each in drawn)
        groups.append(Group(_caption(name, panel, temperature, drawn), drawings))
    missing = [title(column) for column in TEMPERATURES if values(panel.complete, column).isna().all()]
    if missing:
        groups.append(Group(f"{name}: no picture of {', '.join(missing)}, which the table of trials does not hold."))
    return groups


def _caption(name: str, panel: Study, temperature: str, mine: list[Response]) -> str:
    trials = panel.complete
    tpe = int((~trials["arm"].isin(INDEPENDENT)).sum())
    words = [
        f"{name}: each metric against {title(temperature)} (logarithmic), one point per trial. The other settings "
        "differ from point to point, so that a slope here is not the temperature's effect."
    ]
    if tpe:
        words.append(f"{tpe} hollow points are trials that TPE placed where earlier ones did well.")
    if any(each.metric.name.endswith("_p") for each in mine):
        words.append("Scores in p and the objective are coloured by the clusters used, without which they say nothing.")
    same = [each for each in mine if each.points["value"].nunique() == 1 and len(each.points) > 1]
    if same:
        words.append(f"The same in all trials: {', '.join(each.metric.label for each in same)}.")
    if not any(each.metric.labels for each in mine):
        words.append("No labels, so neither ACC nor NMI.")
    undefined = sum(len(trials) - len(each.points) for each in mine if not each.metric.labels)
    if undefined:
        words.append(f"Scores that are undefined (a single cluster) or not recorded are left out: {undefined} in all.")
    return " ".join(words)
