"""The pictures of the outcomes over the temperatures, with their captions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from analysis.columns import title
from analysis.figures import temperature as figures
from analysis.questions.temperature import Response, responses
from analysis.section import Group, Section, Statement, slug
from analysis.trials import DESIGNED, Study, reads_temperature, undecided

QUESTION = "How do the outcomes lie over the temperatures?"


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
