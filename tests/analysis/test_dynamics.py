"""Curves over training, and when the clusters freeze."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from checks import drawn, told
from fabricate import study

from analysis.questions import dynamics
from analysis.section import Section, Statement
from analysis.sections import dynamics as words
from analysis.trials import Study

EVALUATIONS = 20


def freezing(epochs: Sequence[int], **columns: Any) -> Study:
    """A trial for each of `epochs`: churn is 0.1 up to that evaluation, 0.01 after; `columns` of the history."""
    found = study(len(epochs), evaluations=EVALUATIONS, planted=columns.pop("planted", None))
    epoch = found.history["epoch"].to_numpy(dtype=float)
    churn = np.where(epoch <= np.repeat(epochs, EVALUATIONS), 0.1, 0.01)
    planted = {"val/churn": np.where(epoch == 1, np.nan, churn), **columns}
    return replace(found, history=found.history.assign(**planted))


def statement(section: Section, ending: str) -> Statement:
    return next(each for each in section.statements if each.name.endswith(ending))


def dropped(found: Study, *columns: str) -> Study:
    return replace(found, history=found.history.drop(columns=list(columns)))


def joined(one: Study, other: Study) -> Study:
    tables = {name: pd.concat([getattr(one, name), getattr(other, name)]) for name in ("trials", "history")}
    return replace(one, **{name: table.reset_index(drop=True) for name, table in tables.items()})


def test_planted_freezes_are_recovered_exactly() -> None:
    # 1: nothing above the threshold, as the first evaluation has no churn; 20: still moving at the end.
    planted = [1, 2, 5, 10, 19, 20, 12, 7]
    found = freezing(planted)
    table = dynamics.freezes(dynamics.evaluations(found)).table
    assert table["never"].tolist() == [epoch == EVALUATIONS for epoch in planted]
    assert table["epoch"].fillna(EVALUATIONS).tolist() == planted
    tau = found.history.set_index(["trial_id", "epoch"])["tau"]
    for row in table[~table["never"]].to_dict("records"):
        assert row["tau"] == tau[row["trial_id"], int(row["epoch"])]
        assert row["progress"] == row["epoch"] / EVALUATIONS


def test_clusters_that_move_again_have_not_frozen_before() -> None:
    found = freezing([5] * 6)
    again = found.history["val/churn"].mask(found.history["epoch"] == 15, 0.5)
    found = replace(found, history=found.history.assign(**{"val/churn": again}))
    assert dynamics.freezes(dynamics.evaluations(found)).table["epoch"].tolist() == [15.0] * 6


def test_the_statement_quotes_median_quartiles_and_share() -> None:
    facts = statement(words.section(freezing([2, 4, 6, 8, 10, 20])), "/freeze").values
    assert (facts["epoch_low"], facts["epoch"], facts["epoch_high"]) == (4.0, 6.0, 8.0)
    assert facts["never"] == pytest.approx(1 / 6)
    assert facts["n"] == 6


def test_early_freeze_and_later_compactness_support_h1() -> None:
    rng, n = np.random.default_rng(0), 24
    progress = np.tile(np.linspace(0.05, 1, EVALUATIONS), n)
    noise = rng.normal(0, 0.005, len(progress))
    compact = {"val/silhouette_p": 0.2 + 0.6 * progress + noise, "val/ami": 0.4 + noise}
    early = statement(words.section(freezing([4 + i % 3 for i in range(n)], **compact)), "/after")
    assert early.values["verdict"] == "supports"
    assert early.values["rise"] == pytest.approx(0.6 * 0.75, abs=0.05)
    assert float(early.values["moved_high"]) < 0.02
    late = statement(words.section(freezing([16 + i % 3 for i in range(n)], **compact)), "/after")
    assert late.values["verdict"] == "contradicts"
    flat = {"val/silhouette_p": 0.5 - 0.1 * progress}
    assert statement(words.section(freezing([4] * n, **flat)), "/after").values["verdict"] == "contradicts"
    assert "moved" not in statement(words.section(freezing([4] * n, **flat)), "/after").values


def test_h1_is_not_decided_on_a_bare_median() -> None:
    """Most of the trials freeze early, but with so few of them not surely half of all that there could be."""
    n = 24
    compact = {"val/silhouette_p": 0.2 + 0.6 * np.tile(np.linspace(0.05, 1, EVALUATIONS), n)}
    found = statement(words.section(freezing([4] * 13 + [16] * 11, **compact)), "/after")
    assert float(found.values["half"]) < 0.5 < float(found.values["half_high"])
    assert found.values["verdict"] == "does not decide"


def test_undecided_trials_carry_no_inference() -> None:
    ties = {"val/mutual_information": [0.1] * 3 + [2.0] * 9}
    found = dynamics.evaluations(freezing([5] * 12, planted=lambda *_: ties))
    assert found.trials["adaptive"].tolist() == [True] * 3 + [False] * 9


def test_the_band_is_the_quantiles_over_the_trials_evaluated_there() -> None:
    found = study(3, evaluations=4)
    entropy = np.array([[1, 2, 3, 4], [2, 4, 6, 8], [9, 9, 9, np.nan]], dtype=float)
    found = replace(found, history=found.history.assign(**{"val/entropy_y": entropy.ravel()}))
    curve = dynamics.curves(dynamics.evaluations(found), "val/entropy_y")
    assert curve.band.index.tolist() == [1, 2, 3, 4]
    assert curve.band["median"].tolist() == [2.0, 4.0, 6.0, 6.0]
    assert curve.band["trials"].tolist() == [3, 3, 3, 2]
    assert curve.band["low"].tolist() == pytest.approx([1.2, 2.4, 3.6, 4.4])


def test_trials_of_different_length_are_aligned_on_progress() -> None:
    short, long = study(6, evaluations=10), study(6, evaluations=30, name="long")
    both = joined(short, long)
    found = dynamics.evaluations(both)
    assert found.epochs is None
    curve = dynamics.curves(found, "val/effective_clusters")
    assert curve.band.index.name == "progress"
    assert curve.band["trials"].tolist() == [12] * 10
    # Planted: 1 + 9 progress; the long trials' mean of a step lies below its end.
    assert curve.band["median"].to_numpy() == pytest.approx(1 + 9 * curve.band.index.to_numpy(), abs=0.5)
    told(words.section(both))


def test_at_most_twenty_trials_are_drawn_as_lines() -> None:
    curve = dynamics.curves(dynamics.evaluations(study(50, evaluations=5)), "tau")
    assert curve.lines.shape == (5, dynamics.LINES)
    assert curve.band["trials"].tolist() == [50] * 5


def test_kl_of_the_loss_stands_in_for_that_of_the_validation_clips() -> None:
    found = dropped(study(8, evaluations=5), "val/kl_y")
    assert dynamics.curves(dynamics.evaluations(found), "val/kl_y").column == "loss/kl_y"
    assert dynamics.curves(dynamics.evaluations(found), "val/kl_z").column == "val/kl_z"


def test_stopped_and_diverged_trials_are_left_out_and_counted() -> None:
    status = ["diverged"] * 3 + ["complete"] * 9
    section = words.section(study(12, evaluations=8, planted=lambda *_: {"status": status}))
    caption = section.parts[0].caption
    assert "9 complete trials" in caption
    assert "3 diverged trials are left out" in caption
    told(section)


def test_one_cluster_cannot_churn_and_is_left_out() -> None:
    found = freezing([5] * 8)
    used = np.where(found.history["trial_id"] == "t00003", 1.0, 6.0)
    found = replace(found, history=found.history.assign(**{"val/clusters_used": used}))
    frozen = dynamics.freezes(dynamics.evaluations(found))
    assert (frozen.merged, len(frozen.table)) == (1, 7)


def test_tpe_trials_are_drawn_but_carry_no_inference() -> None:
    section = words.section(freezing([5] * 30, planted=lambda *_: {"arm": "tpe"}))
    assert "too few of them independent" in str(statement(section, "/freeze"))
    assert "is not known" in str(statement(section, "/after"))
    told(section)


def test_without_churn_the_curves_are_still_drawn() -> None:
    section = words.section(dropped(study(10, evaluations=6), "val/churn"))
    assert "no complete trial has recorded churn" in str(statement(section, "/freeze"))
    assert "Not recorded: churn" in section.parts[0].caption
    assert len(drawn(section)) == 7


def test_silhouette_is_not_drawn_without_the_clusters_used_beside_it() -> None:
    found = freezing([5] * 8, **{"val/silhouette_p": 0.5})
    names = [one.name for part in words.section(found).parts for one in part.drawings]
    assert [name for name in names if "silhouette" in name]
    names = [one.name for part in words.section(dropped(found, "val/clusters_used")).parts for one in part.drawings]
    assert not [name for name in names if "silhouette" in name or name.endswith("after")]


def test_two_corpora_are_two_panels() -> None:
    one, other = study(8, evaluations=5), study(8, evaluations=5, corpus="tau2019", name="other")
    section = words.section(joined(one, other))
    names = [each.name for each in section.statements]
    assert len(set(names)) == len(names) == 4
    assert len(section.headline) == 4


@pytest.mark.parametrize(
    "odd",
    [
        study(0),
        study(1),
        study(1, evaluations=1),
        study(1, evaluations=6),
        study(8),
        study(8, evaluations=1),
        study(8, evaluations=5, planted=lambda *_: {"status": "diverged", "objective": None}),
        dropped(study(8, evaluations=5), "val/entropy_y", "val/kl_y", "loss/kl_y", "val/clusters_used", "tau", "lr"),
        freezing([EVALUATIONS] * 8),
    ],
    ids=[
        "no trial",
        "one, no history",
        "one, one evaluation",
        "one",
        "no history",
        "one evaluation",
        "none complete",
        "few columns",
        "none freezes",
    ],
)
def test_odd_tables_are_said_in_words(odd: Study) -> None:
    section = words.section(odd)
    assert section.parts
    drawn(section)
