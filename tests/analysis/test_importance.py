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

from analysis.columns import metric
from analysis.figures.style import svg
from analysis.importance import METRICS, Importances, dependences, hypothesis, importances, interaction, sample, section
from analysis.section import Group, Section
from analysis.trials import Study

NMI, ACC = metric("val/nmi"), metric("val/acc")
CONSTANT: dict[str, Any] = {one.column: 0.5 for one in METRICS}  # so that a test computes one metric, not six


def unit(column: pd.Series[float]) -> pd.Series[float]:
    """With mean 0 and variance 1."""
    return (column - column.mean()) / column.std()


def additive(design: pd.DataFrame, rng: Generator) -> Mapping[str, Any]:
    """NMI: 70 % of its explained variance is of log β, 30 % of log τ_start, and a tenth more is noise."""
    beta, tau = unit(np.log(design["config/beta"])), unit(np.log(design["config/tau_start"]))
    noise = rng.normal(0, np.sqrt(0.1), len(design))
    return {**CONSTANT, "val/nmi": 0.3 + 0.05 * (np.sqrt(0.7) * beta + np.sqrt(0.3) * tau + noise)}


def of(column: str) -> Callable[[pd.DataFrame, Generator], Mapping[str, Any]]:
    """NMI that only one setting moves."""
    return lambda design, rng: {
        **CONSTANT,
        "val/nmi": 0.3 + 0.05 * unit(np.log(design[column])) + rng.normal(0, 0.02, len(design)),
    }


def noise(_: pd.DataFrame, rng: Generator) -> Mapping[str, Any]:
    return {**CONSTANT, "val/nmi": rng.normal(0.3, 0.05, 64)}


def crossed(design: pd.DataFrame, rng: Generator) -> Mapping[str, Any]:
    """Doubling τ_end adds 0.01 for each doubling of β above 0.1, and costs as much for each one below."""
    product = np.log2(design["config/tau_end"]) * np.log2(design["config/beta"] / 0.1)
    return {**CONSTANT, "val/nmi": 0.3 + 0.01 * product + rng.normal(0, 0.01, len(design))}


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
    monkeypatch.setattr("analysis.importance.RESAMPLES", 3)


@pytest.fixture(scope="module")
def found() -> Importances:
    """Of NMI in the additive problem."""
    (only,) = importances(sample(study(128, planted=additive)))
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
    most, h4 = made.statements[:2]
    assert "no setting can be called the most important for NMI" in str(most)
    assert h4.values["verdict"] == "undecided"


@pytest.mark.parametrize(
    ("column", "verdict"),
    [("config/beta", "supported"), ("config/tau_start", "refuted"), ("config/epochs", "undecided")],
)
def test_h4_is_decided_as_planted(column: str, verdict: str) -> None:
    planted = noise if column == "config/epochs" else of(column)
    found = hypothesis(sample(study(64, planted=planted)), NMI)
    assert found is not None
    assert found.verdict == verdict


def test_partial_dependence_follows_the_planted_effect() -> None:
    found = {one.setting: one for one in dependences(sample(study(128, planted=additive)), NMI)}
    beta, idle = found["beta"], found["latent_dim"]
    assert beta.grid[0] == pytest.approx(0.01, rel=0.2)
    assert (np.diff(beta.average) > -1e-3).all()
    assert np.ptp(beta.average) > 10 * np.ptp(idle.average)
    assert beta.individual.shape == (40, len(beta.grid))
    assert found["tau_schedule"].grid.tolist() == ["cosine", "exponential", "linear"]


def test_a_planted_interaction_lies_in_its_interval() -> None:
    found = interaction(sample(study(128, planted=crossed)), NMI)
    assert not isinstance(found, str)
    doublings = np.log2(found.beta_high / found.beta_low)
    assert found.difference.low < 0.01 * doublings < found.difference.high
    assert found.difference.low > 0
    assert found.low.value < 0 < found.high.value
    assert found.surface[0, 0] > found.surface[0, -1]  # at low β, τ_end costs
    assert found.surface[-1, 0] < found.surface[-1, -1]


def test_an_additive_effect_is_no_interaction() -> None:
    found = interaction(sample(study(128, planted=additive)), NMI)
    assert not isinstance(found, str)
    assert found.difference.low < 0 < found.difference.high


def test_settings_that_do_not_vary_are_left_out_and_named() -> None:
    def fixed(design: pd.DataFrame, rng: Generator) -> Mapping[str, Any]:
        ratio = {"config/tau_end": 0.5 * design["config/tau_start"], "config/tau_schedule": "linear"}
        return {**additive(design, rng), **ratio, "config/latent_dim": None}

    data = sample(study(16, planted=fixed))
    assert list(data.settings) == ["tau_start", "beta"]
    assert data.left_out == {
        "τ_end / τ_start": "does not vary",
        "τ schedule": "does not vary",
        "d": "not recorded for every trial",
    }
    assert "d is left out: not recorded for every trial." in said(section(study(16, planted=fixed)))


def test_every_metric_is_drawn() -> None:
    made = section(study(16))
    said(made)
    assert [drawing.title.partition(" (R²")[0] for drawing in made.parts[0].drawings] == [one.label for one in METRICS]


def test_two_corpora_are_answered_apart() -> None:
    parts = [
        study(32, corpus=corpus, name=corpus, planted=of(column)).trials
        for corpus, column in (("a", "config/beta"), ("b", "config/tau_start"))
    ]
    made = section(replace(study(1), trials=pd.concat(parts, ignore_index=True)))
    most = {one.name: one.values["setting"] for one in made.statements if one.name.endswith("most")}
    assert most == {"importance/a-k-10/most": "β", "importance/b-k-10/most": "τ_start"}
    names = [one.name for one in made.statements] + [d.name for part in made.parts for d in part.drawings]
    assert len(set(names)) == len(names)
    assert len(made.headline) == 4


def test_without_labels_the_objective_is_looked_at_and_accuracy_is_not() -> None:
    bare = study(32, planted=lambda *_: {**CONSTANT, "objective": np.linspace(0, 1, 32)})
    bare = replace(bare, trials=bare.trials.drop(columns=["val/nmi", "val/acc"]))
    made = section(bare)
    assert "NMI (no labels), ACC (no labels)" in said(made)
    assert [one.name for one in made.statements] == ["importance/fsdd-k-10/most", "importance/fsdd-k-10/interaction"]
    assert made.statements[0].values["metric"] == "objective"


def missing(study: Study) -> Study:
    kept = [name for name in study.trials if not str(name).startswith(("config/", "val/"))]
    return replace(study, trials=study.trials[kept])


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


def test_a_constant_metric_and_missing_columns_are_said_so() -> None:
    assert "NMI (the same in every trial)" in said(section(study(20, planted=lambda *_: CONSTANT)))
    assert "fewer than two settings vary" in said(section(missing(study(20))))


def test_more_trials_than_the_cap_are_thinned_and_said_so() -> None:
    data = sample(study(500))
    assert (len(data.settings), data.total) == (400, 500)
    pd.testing.assert_frame_equal(data.settings, sample(study(500)).settings)


def test_a_metric_that_all_but_one_trial_share_is_left_out() -> None:
    def nearly(design: pd.DataFrame, rng: Generator) -> dict[str, Any]:
        del rng
        return {"objective": np.where(np.arange(len(design)) == 3, 0.1, 0.0)}

    found = section(study(20, planted=nearly))
    captions = " ".join(part.caption for part in found.parts if isinstance(part, Group))
    assert "objective (the same in 19 of 20 trials)" in captions
