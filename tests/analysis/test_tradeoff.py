"""A planted trade-off, concordance and independence each get their verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fabricate import study
from numpy.random import Generator

from analysis.columns import Metric
from analysis.figures.style import svg
from analysis.questions.tradeoff import front, hypervolume, tradeoff
from analysis.section import Section
from analysis.sections.tradeoff import section
from analysis.trials import Study

AMI = Metric("val/ami")


def tied(sign: float) -> Callable[[pd.DataFrame, Generator], Mapping[str, Any]]:
    """AMI moves with Silhouette_p, against it, or not at all."""

    def planted(design: pd.DataFrame, rng: Generator) -> Mapping[str, Any]:
        compact = rng.uniform(0.2, 0.9, len(design))
        return {"val/silhouette_p": compact, "val/ami": sign * compact + rng.uniform(0.2, 0.8, len(design))}

    return planted


def said(made: Section) -> str:
    """All text of a section; every figure is drawn."""
    for part in made.parts:
        for drawing in part.drawings:
            assert svg(drawing.figure, drawing.alt).startswith("<svg")
    alts = [drawing.alt for part in made.parts for drawing in part.drawings]
    text = " ".join([*map(str, made.statements), *(part.caption for part in made.parts), *alts])
    assert not any(word in text for word in ("nan", "NaN", "None", "inf "))
    assert set(made.headline) <= {one.name for one in made.statements}
    return text


@pytest.mark.parametrize(
    ("sign", "verdict"), [(-1.0, "a trade-off"), (1.0, "no trade-off: they rise together"), (0.0, "undecided")]
)
def test_the_planted_relation_gets_its_verdict(sign: float, verdict: str) -> None:
    found = tradeoff(study(64, planted=tied(sign)), AMI)
    assert found.verdict == verdict
    assert section(study(64, planted=tied(sign))).statements[0].values["verdict"] == verdict


@pytest.mark.slow
def test_independence_is_called_undecided_about_nineteen_times_in_twenty() -> None:
    wrong = sum(tradeoff(study(40, seed=seed, planted=tied(0.0)), AMI).verdict != "undecided" for seed in range(200))
    assert 1 <= wrong <= 20  # 10 expected; 20 or more have a probability of 0.3 %


def test_the_front_of_a_hand_made_example() -> None:
    x = np.array([0.0, 1.0, 2.0, 3.0, 3.0, 1.0, 2.0])
    y = np.array([4.0, 3.0, 3.0, 1.0, 0.0, 2.0, 3.0])
    # (2, 3) beats (1, 3); (3, 1) beats (3, 0); both twins at (2, 3) stand.
    assert front(x, y).tolist() == [True, False, True, True, False, False, True]
    assert front(np.array([]), np.array([])).tolist() == []


def test_the_hypervolume_of_hand_made_examples() -> None:
    x, y = np.array([0.0, 1.0, 2.0]), np.array([4.0, 2.0, 0.0])
    assert hypervolume(x, y) == pytest.approx(0.25)  # the middle point covers a quarter of the box
    assert hypervolume(np.array([0.0, 2.0, 3.0]), np.array([4.0, 3.0, 0.0])) == pytest.approx(2 / 3 * 3 / 4)
    assert hypervolume(x, -y) == pytest.approx(1)  # one point is best in both
    assert hypervolume(np.array([0.0, 1.0]), np.array([1.0, 0.0])) == 0
    assert hypervolume(10 * x - 3, y) == hypervolume(x, y)
    assert np.isnan(hypervolume(x, np.ones(3)))


def test_the_volume_is_larger_the_less_there_is_to_trade() -> None:
    found = [tradeoff(study(64, planted=tied(sign)), AMI).volume for sign in (-3.0, 0.0, 3.0)]
    assert all(volume is not None and volume[1] < volume[2] for volume in found)
    assert found[0] < found[1] < found[2]  # type: ignore[operator]


def test_choosing_by_silhouette_loses_what_was_planted() -> None:
    scores = {"val/silhouette_p": [0.99, 0.5, 0.4], "val/ami": [0.1, 0.4, 0.6], "val/clusters_used": [2, 9, 10]}
    made = section(study(3, planted=lambda *_: scores))
    cost = next(one for one in made.statements if one.name == "tradeoff/fsdd-k-10/ami/cost")
    assert cost.values["loss"] == pytest.approx(0.5)
    assert (cost.values["chosen_clusters"], cost.values["best_clusters"]) == (2, 10)
    assert "no verdict, because fewer than 5 independent trials" in said(made)


def test_a_trade_off_that_only_collapse_makes_vanishes_among_the_spread_out() -> None:
    def collapse(design: pd.DataFrame, rng: Generator) -> Mapping[str, Any]:
        collapsed = np.arange(len(design)) % 2 == 0
        return {
            "val/clusters_used": np.where(collapsed, 2, 9),
            "val/silhouette_p": rng.uniform(0.3, 0.6, len(design)) + 0.4 * collapsed,
            "val/ami": rng.uniform(0.3, 0.6, len(design)) - 0.3 * collapsed,
        }

    found = tradeoff(study(64, planted=collapse), AMI)
    assert found.verdict == "a trade-off"
    assert found.spread.n == 32
    assert found.spread.low < 0 < found.spread.high  # type: ignore[operator]
    assert "at least half of the 10 clusters" in said(section(study(64, planted=collapse)))


def test_one_cluster_has_no_silhouette_and_is_left_out() -> None:
    found = tradeoff(study(20, planted=lambda *_: {"val/clusters_used": [1] * 5 + [8] * 15}), AMI)
    assert (len(found.points), found.collapsed) == (15, 5)


def test_tpe_trials_are_drawn_hollow_and_carry_nothing() -> None:
    mixed = study(40, planted=lambda d, rng: {**tied(-1.0)(d, rng), "arm": ["tpe"] * 20 + ["qmc"] * 20})
    found = tradeoff(mixed, AMI)
    assert (len(found.points), found.correlation.n) == (40, 20)
    assert "20 of them from TPE" in said(section(mixed))
    only = section(study(40, arm="tpe", planted=tied(-1.0)))
    assert "no verdict" in said(only)
    assert not only.headline
    assert len(only.parts[0].drawings) == 2


def test_without_labels_only_the_silhouettes_are_compared() -> None:
    bare = study(20)
    for trials in (bare.trials.drop(columns="val/ami"), bare.trials.assign(**{"val/ami": pd.NA})):
        made = section(replace(bare, trials=trials))
        assert "AMI is not drawn: no labels" in said(made)
        assert {one.name.split("/")[2] for one in made.statements} == {"silhouette_x"}


def test_two_corpora_are_answered_apart() -> None:
    parts = [
        study(40, corpus=corpus, name=corpus, planted=tied(sign)).trials for corpus, sign in (("a", -1.0), ("b", 1.0))
    ]
    made = section(replace(study(1), trials=pd.concat(parts, ignore_index=True)))
    verdicts = {one.name: one.values["verdict"] for one in made.statements if one.name.endswith("ami/verdict")}
    assert verdicts == {
        "tradeoff/a-k-10/ami/verdict": "a trade-off",
        "tradeoff/b-k-10/ami/verdict": "no trade-off: they rise together",
    }
    names = [one.name for one in made.statements] + [d.name for part in made.parts for d in part.drawings]
    assert len(set(names)) == len(names)
    said(made)


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (study(0), "not drawn, because no trial"),
        (study(1), "fewer than 5 independent trials"),
        (study(20, planted=lambda *_: {"status": "error"}), "no complete trial"),
        (study(20, planted=lambda *_: {"val/ami": 0.5}), "the same in every independent trial"),
        (study(20, planted=lambda *_: {"val/silhouette_p": 0.5}), "the same in every independent trial"),
        (study(20, planted=lambda *_: {"val/clusters_used": None}), "clusters used, without which"),
        (study(20, planted=lambda *_: {"val/silhouette_p": None}), "no complete trial with two or more clusters"),
    ],
    ids=["none", "one", "errors", "AMI constant", "Silhouette constant", "no clusters used", "no Silhouette"],
)
def test_what_cannot_be_told_is_said(odd: Study, words: str) -> None:
    assert words in said(section(odd))


def test_a_relation_between_seeds_alone_is_none() -> None:
    """One seed's start is better in both scores; its settings differ by noise."""

    def world(design: pd.DataFrame, rng: Generator) -> Mapping[str, Any]:
        seed = np.arange(len(design)) % 2
        scores = rng.normal(0, 0.01, (2, len(design))) + 0.2 * seed
        return {"seed": seed, "val/ami": 0.4 + scores[0], "val/silhouette_p": 0.6 + scores[1]}

    found = tradeoff(study(80, arm="factorial", planted=world), AMI)
    assert found.within
    assert found.verdict == "undecided"
    assert np.corrcoef(found.points["compact"], found.points["other"])[0, 1] > 0.9


def test_seeds_of_one_setting_are_one_unit() -> None:
    settings = {"config/tau_start": 1.0, "config/tau_end": 0.5, "config/tau_mean": 0.7, "config/tau_schedule": "linear"}
    seeds = study(20, arm="factorial", planted=lambda *_: {**settings, "config/beta": 0.1, "config/latent_dim": 4})
    assert tradeoff(seeds, AMI).correlation.units == 1
    assert tradeoff(seeds, AMI).correlation.rho is None
