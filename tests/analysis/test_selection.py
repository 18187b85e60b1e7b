"""Labels never select; they say what that cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from checks import rendered, texts
from fabricate import study
from numpy.random import Generator
from planted import falling_with_tau_end, trial

from analysis.questions.selection import RANDOM, Regrets, correlations, regrets, select
from analysis.section import Group, Section
from analysis.sections.selection import section
from analysis.trials import Study, load_all
from catuvac.results import append_trial


def test_labels_do_not_select_and_regret_says_what_that_cost(tmp_path: Path) -> None:
    study = load_all([falling_with_tau_end(tmp_path)])
    selection = select(study)
    assert selection is not None
    assert (selection["trial_id"], selection["val/acc"]) == ("t00", 0.70)
    study.trials["val/ami"] = study.trials["val/acc"]
    found = regrets(study.complete, independent=False)
    assert found is not None
    assert found.table.loc["objective", "acc_regret"] == pytest.approx(0.05)  # t02 has 0.75


def test_no_labels_no_regret(tmp_path: Path) -> None:
    study = load_all([falling_with_tau_end(tmp_path, labels=False)])
    selection = select(study)
    assert selection is not None
    assert selection["trial_id"] == "t00"
    assert regrets(study.complete, independent=False) is None


def test_nothing_is_selected_from_no_complete_trial(tmp_path: Path) -> None:
    append_trial(tmp_path, trial(0, status="error", objective=None))
    assert select(load_all([tmp_path])) is None


def known(design: pd.DataFrame, rng: Generator) -> Mapping[str, Any]:
    """Silhouette (x) ranks as AMI does, Silhouette (p) the other way round; accuracy goes with AMI."""
    ami = rng.uniform(0.1, 0.6, len(design))
    return {
        "val/ami": ami,
        "val/acc": 0.9 * ami + 0.1,
        "val/silhouette_x": ami**2,
        "val/silhouette_p": -ami,
    }


def caption(found: Section) -> str:
    return next(part.caption for part in found.parts if isinstance(part, Group))


def of(mine: Study) -> Regrets:
    found = regrets(mine.independent, independent=True)
    assert found is not None
    return found


def test_a_criterion_that_ranks_as_ami_costs_nothing_and_its_opposite_the_most() -> None:
    found = of(study(60, planted=known))
    table = found.table
    assert table["ami_regret"]["val/silhouette_x"] == 0
    assert table["acc_regret"]["val/silhouette_x"] == 0
    assert table["ami_high"]["val/silhouette_x"] == 0
    assert table["ami_gain_low"]["val/silhouette_x"] > 0
    assert table.index[-1] == "val/silhouette_p"
    assert table["ami_gain_high"]["val/silhouette_p"] < 0
    ranks = correlations(study(60, planted=known).trials)
    assert ranks["val/silhouette_x"].rho == pytest.approx(1.0)
    assert ranks["val/silhouette_p"].rho == pytest.approx(-1.0)


def test_a_random_pick_costs_the_best_minus_the_mean() -> None:
    mine = study(60, planted=known)
    ami = mine.trials["val/ami"].astype(float)
    assert of(mine).blind["ami_regret"] == pytest.approx(ami.max() - ami.mean())


def test_criteria_of_noise_are_no_better_than_a_random_pick() -> None:
    """Five criteria of which each may be wrong once in twenty: over 20 studies about 5 of 100."""
    names = [f"val/{score}_{space}" for score in ("silhouette", "dbi") for space in "xz"] + ["objective"]
    wrong = 0
    for seed in range(20):
        table = of(study(24, seed=seed)).table
        wrong += int(((table["ami_gain_low"] > 0) | (table["ami_gain_high"] < 0))[names].sum())
    assert wrong <= 15


def test_equal_scores_share_the_pick() -> None:
    mine = study(10, planted=lambda *_: {"val/ami": np.arange(10) / 10, "val/clusters_used": [8.0] * 4 + [3.0] * 6})
    row = of(mine).table.T["val/clusters_used"]
    assert row["ami"] == pytest.approx(0.15)
    assert row["tied"] == 4
    assert row["trial"] == "t00000"


def test_missing_scores_are_never_picked() -> None:
    mine = study(10, planted=lambda *_: {"val/elbo": [None] * 9 + [-100.0], "val/ami": np.arange(10) / 10})
    assert of(mine).table["trial"]["val/elbo"] == "t00009"


def test_seeds_of_a_setting_are_resampled_together() -> None:
    """Ten copies of each of six settings tell no more than the six; as settings of their own they would seem to."""

    def copies(design: pd.DataFrame, _: Generator) -> dict[str, Any]:
        setting = np.arange(len(design)) % 6
        same = {str(name): design[name].to_numpy()[setting] for name in design if str(name).startswith("config/")}
        return {**same, "val/ami": setting / 10, "val/silhouette_x": setting % 5}

    together = study(60, planted=copies, arm="factorial")
    apart = replace(together, trials=together.trials.assign(**{"config/beta": np.linspace(0.1, 1.0, 60)}))
    width = {
        name: of(mine).blind["ami_high"] - of(mine).blind["ami_low"]
        for name, mine in {"apart": apart, "together": together}.items()
    }
    assert width["together"] > 1.5 * width["apart"]


def test_the_statement_says_what_the_objective_costs_and_none_that_the_lowest_of_many_is_best() -> None:
    said = texts(section(study(60, planted=known)))
    assert list(said) == ["selection/fsdd-k-10/objective"]
    assert "the study's objective picks trial t" in said["selection/fsdd-k-10/objective"]
    assert "clusters" in said["selection/fsdd-k-10/objective"]


def test_tpe_trials_are_drawn_apart_and_carry_no_interval() -> None:
    mixed = study(60, planted=lambda d, rng: {**known(d, rng), "arm": ["qmc"] * 30 + ["tpe"] * 30})
    found = section(mixed)
    said = texts(found)
    assert "below the best of 30 trials" in said["selection/fsdd-k-10/objective"]
    assert "of 60 trials" in said["selection/fsdd-k-10/study"]
    assert "95 %" not in said["selection/fsdd-k-10/study"]
    only = section(study(30, planted=known, arm="tpe"))
    assert "95 %" not in texts(only)["selection/fsdd-k-10/objective"]
    assert "TPE or a confirm run placed" in caption(only)


def test_every_panel_is_drawn() -> None:
    mixed = study(20, planted=lambda d, rng: {**known(d, rng), "arm": ["qmc"] * 10 + ["tpe"] * 10})
    for mine in (mixed, study(20, planted=known, arm="tpe"), study(3, planted=known)):
        assert rendered(section(mine)) == 1


def test_trials_that_did_not_complete_are_never_picked() -> None:
    mine = study(20, planted=lambda d, rng: {**known(d, rng), "status": ["complete"] * 19 + ["stopped"]})
    assert of(mine).n == 19


def test_without_labels_one_trial_or_equal_ami_the_caption_says_so() -> None:
    one = study(20)
    bare = replace(one, trials=one.trials.drop(columns=["val/acc", "val/ami"]))
    for why, mine in {
        "no labels": bare,
        "only one complete trial": study(1),
        "no trial is complete": study(3, planted=lambda *_: {"status": "error", "objective": None}),
        "AMI is the same": study(9, planted=lambda *_: {"val/ami": 0.5}),
    }.items():
        found = section(mine)
        assert not texts(found)
        assert why in caption(found)
    texts(section(study(0)))


def test_ami_without_accuracy_is_enough() -> None:
    said = texts(section(study(20, planted=lambda d, rng: {**known(d, rng), "val/acc": None})))
    assert "ACC" not in said["selection/fsdd-k-10/objective"]


def test_three_trials_carry_no_interval() -> None:
    found = section(study(3, planted=known))
    assert "95 %" not in texts(found)["selection/fsdd-k-10/objective"]
    assert "too few" in caption(found)


def test_clusters_used_stand_beside_every_pick() -> None:
    mine = study(20, planted=known)
    table = of(mine).table
    row = mine.trials.set_index("trial_id")["val/clusters_used"]
    for criterion in table.index.drop(RANDOM):
        assert table["clusters"][criterion] == row[table["trial"][criterion]]
    unknown = replace(mine, trials=mine.trials.drop(columns=["val/clusters_used"]))
    texts(section(unknown))
