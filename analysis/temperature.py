"""How do the outcomes lie over the temperatures? Pictures of the trials as they are, nothing held.

What the temperature does is estimated in `analysis.questions.effects`: from a marginal picture it cannot be read, since
the other settings move too, and a smooth curve through it bends where nothing is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import pandas as pd

from analysis.columns import Metric, metric, title
from analysis.figures import temperature as figures
from analysis.questions.effects import temperatures
from analysis.section import Group, Section, Statement, slug
from analysis.trials import DESIGNED, Study, reads_temperature, undecided, values
from catuvac.evaluation.metrics import FLOORS

QUESTION = "How do the outcomes lie over the temperatures?"
SHOWN = tuple(
    metric(column) for column in ("val/ami", "objective", "val/clusters_used", "val/silhouette_x", "val/silhouette_p")
)


@dataclass(frozen=True)
class Response:
    """One small picture.

    Attributes:
        temperature: "tau_start" or "tau_ratio".
        metric: the response, one of `SHOWN`.
        points: a row per complete trial that samples y at a temperature and has both values: study, trial_id, arm,
            row, independent, decided, tau, value, clusters_used.
        n_clusters: K.
    """

    temperature: str
    metric: Metric
    points: pd.DataFrame
    n_clusters: int


def defined(trials: pd.DataFrame, metric: Metric) -> pd.Series[float]:
    """A metric's values, NaN where the score is undefined, because it carries its floor."""
    found = values(trials, metric.column)
    floor = FLOORS.get(metric.name.rpartition("_")[0])
    return found if floor is None else found.mask(found == floor)


def responses(panel: Study) -> tuple[Response, ...]:
    """Both temperatures against every outcome of a panel, those without a value left out."""
    trials = panel.complete[reads_temperature(panel.complete)]
    found = []
    for temperature, tau in temperatures(trials).items():
        for each in SHOWN:
            points = pd.DataFrame(
                {
                    **{column: trials[column] for column in ("study", "trial_id", "arm")},
                    "row": trials.index,
                    "independent": trials["arm"].isin(DESIGNED).to_numpy(dtype=bool),
                    "decided": ~undecided(trials),
                    "tau": tau,
                    "value": defined(trials, each),
                    "clusters_used": values(trials, "val/clusters_used"),
                }
            ).dropna(subset=["tau", "value"])
            if len(points):
                k = int(trials["n_clusters"].iloc[0])
                found.append(Response(temperature, each, points.reset_index(drop=True), k))
    return tuple(found)


def section(study: Study) -> Section:
    """For every panel two rows of small pictures."""
    panels = study.panels()
    if not panels:
        why = "No trial of Cat. UVAC has been recorded, so there is no temperature to study."
        return Section(QUESTION, (Statement("temperature/none", why),), (Group(why),))
    parts = [group for name, panel in panels.items() for group in _groups(name, panel, responses(panel))]
    return Section(QUESTION, (), tuple(parts))


def _groups(name: str, panel: Study, found: Sequence[Response]) -> list[Group]:
    if panel.complete.empty:
        return [Group(f"{name}: nothing to draw, because no trial ran to its end with an objective.")]
    groups = []
    for temperature, mine in groupby(found, key=lambda response: response.temperature):
        drawn = list(mine)
        where = slug("temperature", name, temperature)
        drawings = tuple(figures.draw(each, name=f"{where}-{each.metric.name}") for each in drawn)
        groups.append(Group(_caption(name, panel, temperature, drawn), drawings))
    if not groups:
        groups.append(Group(f"{name}: no picture, because the table of trials does not hold the temperatures."))
    return groups


def _caption(name: str, panel: Study, temperature: str, mine: list[Response]) -> str:
    reading = reads_temperature(panel.complete)
    trials = panel.complete[reading]
    placed = int((~trials["arm"].isin(DESIGNED)).sum())
    words = [
        f"{name}: each outcome against {title(temperature)} (logarithmic), one point per trial. The other settings "
        "differ from point to point, so that a slope here is not the temperature's effect."
    ]
    if not reading.all():
        words.append(f'{(~reading).sum()} trials with the estimator "exact" read no temperature and are left out.')
    if placed:
        words.append(f"{placed} hollow points are trials that TPE or a confirm run placed where earlier ones did well.")
    ties = int(undecided(trials).sum())
    if ties:
        words.append(f"{ties} crosses are trials in which q(y|x) never decided: their clusters are near-ties.")
    if any(each.metric.name.endswith("_p") for each in mine):
        words.append("Scores in p and the objective are coloured by the clusters used, without which they say nothing.")
    same = [each for each in mine if each.points["value"].nunique() == 1 and len(each.points) > 1]
    if same:
        words.append(f"The same in all trials: {', '.join(each.metric.label for each in same)}.")
    if not any(each.metric.labels for each in mine):
        words.append("No labels, so no AMI.")
    undefined = sum(len(trials) - len(each.points) for each in mine if not each.metric.labels)
    if undefined:
        words.append(f"Scores that are undefined (a single cluster) or not recorded are left out: {undefined} in all.")
    return " ".join(words)
