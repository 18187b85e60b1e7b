"""Plots of the outcomes against the temperatures, with their captions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from analysis.columns import title
from analysis.figures import temperature as figures
from analysis.questions.temperature import Response, responses
from analysis.section import Group, Section, Statement, slug
from analysis.trials import DESIGNED, Study, reads_temperature, undecided

QUESTION = "How do the outcomes vary with the temperatures?"


def section(study: Study) -> Section:
    """Builds the section, with two rows of small plots per panel."""
    panels = study.panels()
    if not panels:
        why = f"There is no temperature to study here, because {study.absent}."
        return Section(QUESTION, (Statement("temperature/none", why),), (Group(why),))
    parts = [group for name, panel in panels.items() for group in _groups(name, panel, responses(panel))]
    return Section(QUESTION, (), tuple(parts))


def _groups(name: str, panel: Study, plots: Sequence[Response]) -> list[Group]:
    if panel.complete.empty:
        return [Group(f"{name}: nothing to draw, because no trial completed with an objective.")]
    groups = []
    for temperature, group in groupby(plots, key=lambda response: response.temperature):
        drawn = list(group)
        where = slug("temperature", name, temperature)
        drawings = tuple(figures.draw(response, name=f"{where}-{response.metric.name}") for response in drawn)
        groups.append(Group(_caption(name, panel, temperature, drawn), drawings))
    if not groups:
        groups.append(Group(f"{name}: nothing to draw, because no complete trial has a temperature."))
    return groups


def _caption(name: str, panel: Study, temperature: str, drawn: list[Response]) -> str:
    reading = reads_temperature(panel.complete)
    trials = panel.complete[reading]
    placed = int((~trials["arm"].isin(DESIGNED)).sum())
    words = [
        f"{name}: each outcome against {title(temperature)} (log scale), one point per trial. The other settings vary "
        "from point to point, so a slope in these plots is not the effect of the temperature."
    ]
    if not reading.all():
        words.append(f'{(~reading).sum()} trials with the estimator "exact" use no temperature and are left out.')
    if placed:
        words.append(f"{placed} hollow points are trials that TPE or a confirm run placed where earlier ones did well.")
    ties = int(undecided(trials).sum())
    if ties:
        words.append(f"{ties} crosses are trials in which q(y|x) never decided: their clusters are near-ties.")
    if any(response.metric.name.endswith("_p") for response in drawn):
        words.append("Scores in p and the objective mean nothing without the clusters used, which colour the points.")
    same = [response for response in drawn if response.points["value"].nunique() == 1 and len(response.points) > 1]
    if same:
        words.append(f"The same in all trials: {', '.join(response.metric.label for response in same)}.")
    if not any(response.metric.labels for response in drawn):
        words.append("There are no labels, so there is no AMI.")
    undefined = sum(len(trials) - len(response.points) for response in drawn if not response.metric.labels)
    if undefined:
        words.append(f"Undefined scores (a single cluster) or unrecorded ones are left out: {undefined} in total.")
    return " ".join(words)
