"""Rates of collapse and divergence, over the search space and by setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from checks import drawn, told
from fabricate import K, study
from numpy.random import Generator
from statsmodels.stats.proportion import proportion_confint

from analysis.questions import collapse
from analysis.section import Section, Statement
from analysis.sections import collapse as words
from analysis.trials import Study


def statement(section: Section, ending: str) -> Statement:
    return next(each for each in section.statements if each.name.endswith(ending))


def outcome(lost: Any) -> dict[str, Any]:
    return {"val/clusters_used": np.where(lost, 3.0, 8.0), "val/effective_clusters": np.where(lost, 1.5, 7.0)}


def hot(design: pd.DataFrame, _: Generator) -> Mapping[str, Any]:
    return outcome(design["config/tau_start"] > 3)


def diverging(design: pd.DataFrame, _: Generator) -> Mapping[str, Any]:
    lost = design["config/beta"] > 0.2
    return {**outcome(False), "status": np.where(lost, "diverged", "complete"), "objective": np.where(lost, None, 0.5)}


def at_random(design: pd.DataFrame, rng: Generator) -> Mapping[str, Any]:
    return outcome(rng.random(len(design)) < 0.25)


def test_an_undecided_trial_is_collapsed_however_many_clusters_its_argmax_uses() -> None:
    """Near-ties use every cluster and mean nothing: I(x; y) of at most ½ log K."""

    def undecided(design: pd.DataFrame, _: Generator) -> Mapping[str, Any]:
        information = np.where(np.arange(len(design)) < 30, 0.49, 0.51) * np.log(K)
        return {**outcome(False), "val/mutual_information": information}

    found = collapse.collapse(study(100, planted=undecided), K)
    assert found.rates["count"].to_dict() == {"collapsed": 30, "undecided": 30, "total": 0, "diverged": 0, "lost": 30}


def test_dimensions_that_a_study_asked_for_have_bins_and_exact_trials_no_temperature() -> None:
    def searched(design: pd.DataFrame, _: Generator) -> Mapping[str, Any]:
        exact = np.arange(len(design)) % 4 == 0
        weight = np.where(np.arange(len(design)) % 2 == 0, 0.0, 20.0)
        estimator = np.where(exact, "exact", "gumbel")
        return {**outcome(weight == 0), "config/invariance": weight, "config/y_estimator": estimator}

    bins = collapse.collapse(study(80, planted=searched), K).bins
    collapsed = bins[bins["outcome"] == "collapsed"]
    by_weight = collapsed[collapsed["setting"] == "config/invariance"].set_index("at")
    assert by_weight["rate"].to_dict() == {"0": 1.0, "20": 0.0}
    counts = collapsed.groupby("setting")["n"].sum()
    assert (counts["config/tau_start"], counts["config/beta"], counts["config/y_estimator"]) == (60, 80, 80)


def test_diverged_trials_count_though_they_have_no_objective() -> None:
    found = collapse.collapse(study(200, planted=diverging), K)
    assert found.rates["count"]["diverged"] == (found.points["outcome"] == "diverged").sum() > 0
    assert found.rates["count"]["collapsed"] == 0


def test_rates_come_with_wilsons_interval() -> None:
    found = collapse.collapse(study(100, planted=lambda design, _: outcome(np.arange(len(design)) < 10)), K)
    assert found.rates["rate"]["collapsed"] == 0.1
    assert found.rates.loc["total", "count"] == 10
    assert found.rates["low"]["collapsed"] == pytest.approx(0.0552, abs=1e-3)  # Wilson's, from a table
    assert found.rates["high"]["collapsed"] == pytest.approx(0.1744, abs=1e-3)


def test_bins_of_a_setting_hold_its_own_rates() -> None:
    bins = collapse.collapse(study(100, planted=hot), K).bins
    mine = bins[(bins["setting"] == "config/tau_start") & (bins["outcome"] == "collapsed")]
    assert mine["n"].tolist() == [20] * 5
    assert mine["at"].is_monotonic_increasing
    assert mine["rate"].iloc[0] < 0.2
    assert mine["rate"].iloc[-1] > 0.8
    assert set(bins.loc[bins["setting"] == "config/tau_schedule", "at"]) == {"cosine", "exponential", "linear"}


def test_half_of_the_clusters_is_no_collapse() -> None:
    found = collapse.collapse(study(10, planted=lambda *_: {"val/clusters_used": [4.0, 5.0] * 5}), K)
    assert found.points["outcome"].tolist() == ["collapsed", "healthy"] * 5


@pytest.mark.parametrize(("lost", "word"), [(False, "none of 60"), (True, "all 60")])
def test_none_and_all_collapsed_are_said(lost: bool, word: str) -> None:
    section = words.section(study(60, planted=lambda design, _: outcome(np.full(len(design), lost))))
    assert word in str(statement(section, "/rate"))
    told(section)


def test_tpe_trials_are_drawn_but_carry_no_inference() -> None:
    def adaptive(design: pd.DataFrame, rng: Generator) -> Mapping[str, Any]:
        return {**hot(design, rng), "arm": "tpe"}

    found = collapse.collapse(study(60, planted=adaptive), K)
    assert (len(found.rates), len(found.points)) == (0, 60)
    section = words.section(study(60, planted=adaptive))
    assert "no rate over the search space" in str(statement(section, "/rate"))
    assert len(told(section)) == 1


def test_the_seeds_of_a_setting_widen_the_interval_and_confirm_runs_are_no_draw_of_the_search_space() -> None:
    def repeated(design: pd.DataFrame, rng: Generator) -> Mapping[str, Any]:
        first = design.iloc[np.arange(len(design)) // 4 * 4].reset_index(drop=True)
        return {**{str(name): first[name] for name in first}, **hot(first, rng)}

    rates = collapse.collapse(study(160, planted=repeated, arm="factorial"), K).rates.loc["collapsed"]
    low, high = proportion_confint(rates["count"] / 4, 40, method="wilson")
    assert rates["n"] == 160
    assert (rates["low"], rates["high"]) == pytest.approx((low, high))
    confirm = study(160, planted=lambda design, rng: {**repeated(design, rng), "arm": "confirm"})
    assert collapse.collapse(confirm, K).rates.empty


def test_stopped_and_failed_trials_are_left_out_and_counted() -> None:
    status = ["stopped", "error", "complete", "complete", "complete"] * 8
    found = collapse.collapse(study(40, planted=lambda *_: {"status": status}), K)
    assert (found.unknown, len(found.points)) == (16, 24)


def test_two_corpora_are_two_panels() -> None:
    both = study(40, planted=hot), study(40, corpus="tau2019", name="other", planted=at_random)
    section = words.section(replace(both[0], trials=pd.concat([each.trials for each in both], ignore_index=True)))
    names = [each.name for each in section.statements]
    assert len(set(names)) == len(names) == 2
    told(section)


@pytest.mark.parametrize(
    "odd",
    [
        study(0),
        study(1),
        study(30, planted=lambda *_: {"status": "stopped"}),
        study(30, planted=lambda *_: {"config/tau_start": 1.0, "config/tau_end": 0.5, "config/latent_dim": 8}),
        replace(study(30), trials=study(30).trials.drop(columns=["val/clusters_used", "val/effective_clusters"])),
        replace(study(30), trials=study(30).trials.drop(columns=["config/tau_schedule", "config/beta"])),
    ],
    ids=["no trial", "one trial", "all stopped", "one setting varies", "no clusters used", "settings missing"],
)
def test_odd_tables_are_said_in_words(odd: Study) -> None:
    section = words.section(odd)
    assert section.parts
    drawn(section)
