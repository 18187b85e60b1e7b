"""Planted importances are found in order and roughly in size, and what does nothing is not called important."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fabricate import study
from numpy.random import Generator

from analysis.figures.style import svg
from analysis.questions.importance import METRICS, Importances, importances, sample
from analysis.section import Group, Section
from analysis.sections.importance import section
from analysis.trials import Study

CONSTANT: dict[str, Any] = {one.column: 0.5 for one in METRICS}


def unit(column: pd.Series[float]) -> pd.Series[float]:
    """With mean 0 and variance 1."""
    return (column - column.mean()) / column.std()


def additive(design: pd.DataFrame, rng: Generator) -> Mapping[str, Any]:
    """AMI: 70 % of its explained variance is of log β, 30 % of log τ_start, and a tenth more is noise."""
    beta, tau = unit(np.log(design["config/beta"])), unit(np.log(design["config/tau_start"]))
    noise = rng.normal(0, np.sqrt(0.1), len(design))
    return {**CONSTANT, "val/ami": 0.3 + 0.05 * (np.sqrt(0.7) * beta + np.sqrt(0.3) * tau + noise)}


def of(column: str) -> Callable[[pd.DataFrame, Generator], Mapping[str, Any]]:
    """AMI that only one setting moves."""
    return lambda design, rng: {
        **CONSTANT,
        "val/ami": 0.3 + 0.05 * unit(np.log(design[column])) + rng.normal(0, 0.02, len(design)),
    }


def noise(_: pd.DataFrame, rng: Generator) -> Mapping[str, Any]:
    return {**CONSTANT, "val/ami": rng.normal(0.3, 0.05, 64)}


def said(made: Section) -> str:
    """All text of a section; every figure is drawn."""
    for part in made.parts:
        for drawing in part.drawings:
            assert svg(drawing.figure, drawing.alt).startswith("<svg")
    alts = [drawing.alt + drawing.title for part in made.parts for drawing in part.drawings]
    text = " ".join([*map(str, made.statements), *(part.caption for part in made.parts), *alts])
    assert not any(word in text for word in ("nan", "NaN", "None", "inf "))
    assert set(made.headline) <= {one.name for one in made.statements}
    return text


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forest each; `found` has all of them."""
    monkeypatch.setattr("analysis.questions.importance.RESAMPLES", 3)


@pytest.fixture(scope="module")
def found() -> Importances:
    """Of AMI in the additive problem."""
    only = importances(sample(study(128, planted=additive)))
    assert only is not None
    return only


def test_planted_importances_are_recovered_in_order_and_size(found: Importances) -> None:
    table = found.table.set_index("setting")
    assert found.table["setting"].tolist()[:2] == ["beta", "tau_start"]
    assert table.loc["beta", "fanova"] == pytest.approx(0.7, abs=0.1)
    assert table.loc["tau_start", "fanova"] == pytest.approx(0.3, abs=0.1)
    assert table.loc["beta", "fanova_low"] < 0.7 < table.loc["beta", "fanova_high"]
    assert table["fanova"].sum() == pytest.approx(1)
    assert table["ped"].idxmax() == "beta"
    assert found.readable
    assert found.predicted.value == pytest.approx(0.85, abs=0.1)  # at most 1 - 0.1/1.1


def test_a_setting_without_effect_gets_about_nothing(found: Importances) -> None:
    idle = found.table.set_index("setting").loc[["tau_ratio", "tau_schedule", "latent_dim"]]
    assert (idle["fanova"] < 0.04).all()
    assert (idle["fanova_high"] < 0.1).all()


def test_nothing_is_called_important_for_a_metric_that_is_noise() -> None:
    made = section(study(64, planted=noise))
    (shares,) = made.statements
    assert float(shares.values["r2_low"]) <= 0
    assert "beta" not in shares.values


def test_undecided_trials_are_left_out_and_counted() -> None:
    def ties(design: pd.DataFrame, rng: Generator) -> Mapping[str, Any]:
        lost = np.arange(len(design)) < 10
        return {**additive(design, rng), "val/mutual_information": np.where(lost, 0.1, 2.0)}

    data = sample(study(64, planted=ties))
    assert (data.total, data.undecided) == (54, 10)


def test_settings_that_do_not_vary_are_left_out_and_named() -> None:
    def fixed(design: pd.DataFrame, rng: Generator) -> Mapping[str, Any]:
        ratio = {"config/tau_end": 0.5 * design["config/tau_start"], "config/tau_schedule": "linear"}
        return {**additive(design, rng), **ratio, "config/latent_dim": None}

    data = sample(study(16, planted=fixed))
    assert list(data.settings) == ["tau_start", "beta"]
    assert data.left_out == {
        "τ_end / τ_start": "does not vary",
        "τ schedule": "does not vary",
        "d": "was not recorded for every trial",
    }
    assert "d is left out, because it was not recorded for every trial." in said(section(study(16, planted=fixed)))


def test_dimensions_that_a_study_asked_for_have_a_share_and_exact_trials_none() -> None:
    def searched(design: pd.DataFrame, rng: Generator) -> Mapping[str, Any]:
        weight = np.resize([0.0, 20.0], len(design))
        estimator = np.resize(["gumbel", "straight_through", "exact", "gumbel"], len(design))
        ami = 0.3 + 0.05 * weight / 20 + rng.normal(0, 0.01, len(design))
        return {**CONSTANT, "config/invariance": weight, "config/y_estimator": estimator, "val/ami": ami}

    data = sample(study(64, planted=searched))
    assert {"invariance", "y_estimator"} <= set(data.settings)
    assert (data.total, data.exact, data.undecided) == (48, 16, 0)
    found = importances(data)
    assert found is not None
    assert found.table["setting"].iloc[0] == "invariance"
    assert sample(study(64, planted=additive)).exact == 0


def test_two_corpora_are_answered_apart() -> None:
    parts = [
        study(32, corpus=corpus, name=corpus, planted=of(column)).trials
        for corpus, column in (("a", "config/beta"), ("b", "config/tau_start"))
    ]
    made = section(replace(study(1), trials=pd.concat(parts, ignore_index=True)))
    shares = {one.name: one.values for one in made.statements}
    assert float(shares["importance/a-k-10/shares"]["beta"]) > 0.8
    assert float(shares["importance/b-k-10/shares"]["tau_start"]) > 0.8
    names = [one.name for one in made.statements] + [d.name for part in made.parts for d in part.drawings]
    assert len(set(names)) == len(names)
    assert len(made.headline) == 2


def test_without_labels_the_objective_takes_the_place_of_ami() -> None:
    bare = study(32, planted=lambda *_: {**CONSTANT, "objective": np.linspace(0, 1, 32)})
    bare = replace(bare, trials=bare.trials.drop(columns=["val/ami", "val/acc"]))
    made = section(bare)
    assert made.statements[0].values["metric"] == "objective"


@pytest.mark.parametrize(
    "odd",
    [
        study(0),
        study(1),
        study(15),
        study(40, arm="tpe"),
        study(40, planted=lambda *_: {"status": "diverged"}),
        study(40, planted=lambda design, _: {"arm": "confirm", **dict.fromkeys(design, 1)}),  # one unit
    ],
    ids=["no trial", "one", "too few", "only TPE", "none complete", "one setting"],
)
def test_too_few_independent_trials_are_said_so(odd: Study) -> None:
    made = section(odd)
    assert not made.statements
    assert "not computed" in said(made) or "nothing to compute" in said(made)


def test_a_constant_metric_and_a_single_setting_are_said_so() -> None:
    assert "AMI: the same in every trial; objective: the same in every trial" in said(
        section(study(20, planted=lambda *_: CONSTANT))
    )
    alone = {"config/tau_schedule": "linear", "config/beta": 0.1, "config/latent_dim": None}
    one = study(20, planted=lambda design, _: {**alone, "config/tau_end": 0.5 * design["config/tau_start"]})
    assert "need at least two settings that vary" in said(section(one))


def test_more_trials_than_the_cap_are_thinned_and_said_so() -> None:
    data = sample(study(500))
    assert (len(data.settings), data.total) == (400, 500)
    pd.testing.assert_frame_equal(data.settings, sample(study(500)).settings)


def test_a_metric_that_all_but_one_trial_share_is_left_out() -> None:
    def nearly(design: pd.DataFrame, rng: Generator) -> dict[str, Any]:
        del rng
        return {"val/ami": None, "objective": np.where(np.arange(len(design)) == 3, 0.1, 0.0)}

    found = section(study(20, planted=nearly))
    captions = " ".join(part.caption for part in found.parts if isinstance(part, Group))
    assert "objective: the same in 19 of 20 trials" in captions
