"""The pictures over the temperatures: which points they show, and that none of them infers anything."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
from fabricate import study

from analysis.figures.style import svg
from analysis.questions.temperature import SHOWN, responses
from analysis.section import Group, Section, Table
from analysis.sections.temperature import section
from analysis.trials import Study
from catuvac.experiments.search import FACTORS


def both(*studies: Study) -> Study:
    return replace(studies[0], trials=pd.concat([each.trials for each in studies], ignore_index=True))


def without(found: Study, *columns: str) -> Study:
    return replace(found, trials=found.trials.drop(columns=list(columns)))


def written(found: Section) -> str:
    """All text of a section, after checks that hold for each."""
    names = [each.name for each in found.statements]
    assert len(set(names)) == len(names)
    assert set(found.headline) <= set(names)
    json.dumps([dict(each.values) for each in found.statements], allow_nan=False)
    texts = [str(each) for each in found.statements]
    for part in found.parts:
        if isinstance(part, Group):
            texts += [part.caption, *(each.alt for each in part.drawings)]
        if isinstance(part, Table):
            texts += [part.caption, *(cell for row in part.rows for cell in row)]
            assert {len(row) for row in part.rows} == {len(part.titles)}
    text = " ".join(texts)
    assert not {"nan", "None", "inf", "NaN"} & set(text.replace("(", " ").replace(",", " ").split())
    return text


def test_every_outcome_has_a_picture_over_both_temperatures() -> None:
    found = responses(study(12))
    assert [(each.temperature, each.metric) for each in found] == [(t, m) for t in FACTORS for m in SHOWN]
    assert all(len(each.points) == 12 for each in found)


def test_no_sentence_infers_from_a_marginal_picture() -> None:
    found = section(study(12))
    assert found.statements == ()
    assert "not the effect of the temperature" in written(found)


def test_scores_at_their_floor_are_left_out_and_counted() -> None:
    made = study(10, planted=lambda design, _: {"val/silhouette_x": np.where(np.arange(len(design)) < 3, -1.0, 0.2)})
    (x,) = (e for e in responses(made) if (e.temperature, e.metric.name) == ("tau_start", "silhouette_x"))
    assert len(x.points) == 7
    assert "left out: 3 in total" in written(section(made))


def test_points_of_tpe_are_hollow_and_said_to_be() -> None:
    made = both(study(6), study(4, arm="tpe", name="other"))
    assert [each.points["independent"].sum() for each in responses(made)][:1] == [6]
    assert "4 hollow points" in written(section(made))


def test_undecided_trials_are_crosses_and_said_to_be() -> None:
    ties = [0.1] * 2 + [2.0] * 7
    made = study(9, planted=lambda *_: {"val/mutual_information": ties})
    assert responses(made)[0].points["decided"].tolist() == [False] * 2 + [True] * 7
    assert "2 crosses" in written(section(made))


def test_a_picture_has_words_for_those_who_cannot_see_it() -> None:
    (group, *_) = section(study(6)).parts
    assert isinstance(group, Group)
    drawing = group.drawings[0]
    assert drawing.alt in svg(drawing.figure, drawing.alt, drawing.name)


def test_without_trials_and_without_a_temperature() -> None:
    assert "no temperature to study" in written(section(study(0)))
    text = written(section(without(study(6), "config/tau_start", "config/tau_end", "config/tau_mean")))
    assert "no complete trial has a temperature" in text


def test_trials_that_read_no_temperature_have_no_place_in_its_pictures() -> None:
    exact = study(12)
    exact = replace(exact, trials=exact.trials.assign(**{"config/y_estimator": ["exact"] * 5 + ["gumbel"] * 7}))
    assert all(len(each.points) == 7 for each in responses(exact))
    assert written(section(exact))
