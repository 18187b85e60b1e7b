"""Planted spreads of settings and seeds are recovered, planted differences found, and null ones called null."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from checks import rendered, texts
from fabricate import study
from numpy.random import Generator

from analysis.section import Group
from analysis.seeds import against_search, comparisons, components, paired, section
from analysis.trials import Study

SETTINGS = ("top1", "top2", "top3", "paper")


def confirm(
    *,
    settings: tuple[str, ...] = SETTINGS,
    seeds: int = 5,
    effects: Mapping[str, float] | None = None,
    noise: float = 0.01,
    shared: float = 0.02,
    name: str = "tau-confirm",
    seed: int = 0,
    more: Callable[[pd.DataFrame], Mapping[str, Any]] = lambda _: {},
) -> Study:
    """A confirm study whose NMI is its setting's effect, what the seed adds to every setting, and noise."""
    pairs = [(s, name) for s in range(seeds) for name in settings]

    def planted(design: pd.DataFrame, rng: Generator) -> dict[str, Any]:
        adds = rng.normal(0, shared, seeds)
        scores = np.array([0.4 + (effects or {}).get(name, 0.0) + adds[s] for s, name in pairs])
        columns = {
            "trial_id": [f"fsdd-k10-{name}-s{40 + s}" for s, name in pairs],
            "seed": [40 + s for s, _ in pairs],
            "arm": "confirm",
            "config/tau_start": [1.0 if name == "paper" else 2.0 for _, name in pairs],
            "config/tau_end": [0.5 if name == "paper" else 0.1 for _, name in pairs],
            "config/tau_schedule": "exponential",
            "val/nmi": rng.normal(0.4, 0.05, len(pairs)),
            "test/nmi": scores + rng.normal(0, noise, len(pairs)),
            "test/silhouette_p": rng.uniform(0.6, 0.9, len(pairs)),
            "test/clusters_used": rng.integers(5, 10, len(pairs)).astype(float),
        }
        return columns | dict(more(design.assign(**columns)))

    return study(len(pairs), planted=planted, name=name, seed=seed)


def together(*parts: Study) -> Study:
    return Study(
        name="both",
        trials=pd.concat([part.trials for part in parts], ignore_index=True),
        history=pd.concat([part.history for part in parts], ignore_index=True),
    )


def test_planted_variance_components_are_recovered() -> None:
    rng = np.random.default_rng(1)
    scores = pd.DataFrame(rng.normal(0.4, 0.08, 60)[None, :] + rng.normal(0, 0.04, (20, 60)))
    found = components(scores)
    assert found.seed == pytest.approx(0.04, rel=0.1)
    assert found.setting == pytest.approx(0.08, rel=0.2)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.2 < found.high  # 0.04² / (0.04² + 0.08²)
    assert found.high - found.low < 0.2


def test_the_interval_of_the_share_covers_the_truth_for_few_settings_and_seeds() -> None:
    rng = np.random.default_rng(2)
    inside = 0
    for _ in range(300):
        scores = pd.DataFrame(rng.normal(0, 1, 4)[None, :] + rng.normal(0, 1, (5, 4)))
        found = components(scores)
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 0.5 <= found.high
    assert 0.92 <= inside / 300 <= 0.98


def test_a_missing_training_changes_little() -> None:
    rng = np.random.default_rng(3)
    scores = pd.DataFrame(rng.normal(0, 1, 6)[None, :] + rng.normal(0, 1, (6, 6)))
    whole = components(scores).share
    scores.iloc[2, 3] = np.nan
    assert components(scores).share == pytest.approx(whole, abs=0.1)


def test_a_planted_difference_is_found_within_its_interval_though_seeds_spread_more() -> None:
    [found] = comparisons(confirm(effects={"top1": 0.05}, shared=0.1))
    nmi = found.responses[0]
    assert nmi.column == "test/nmi"
    test = next(test for test in nmi.tests if test.setting == "top1")
    assert test.low is not None
    assert test.high is not None
    assert test.holm is not None
    assert test.low < 0.05 < test.high
    assert test.holm < 0.05
    assert test.n == 5
    said = texts(section(confirm(effects={"top1": 0.05}, shared=0.1)))["seeds/fsdd-k-10/paper/nmi"]
    assert "top1 beats the paper's setting by 0.0" in said


def test_a_setting_that_loses_is_said_to_lose() -> None:
    said = texts(section(confirm(effects={"top1": -0.08})))["seeds/fsdd-k-10/paper/nmi"]
    assert "top1 loses to the paper's setting by 0.0" in said


def test_null_differences_are_called_null_at_most_one_family_in_twenty() -> None:
    """Holm's correction holds the rate of any false finding among all tests of a comparison."""
    false, largest = 0, 0
    for i in range(25):
        rng = np.random.default_rng(i)
        scores = pd.DataFrame(rng.normal(0, 1, (5, 4)), columns=list(SETTINGS))
        few = confirm(seed=i, more=lambda _, scores=scores: {"test/nmi": scores.to_numpy().ravel()})
        tests = [test for response in comparisons(few)[0].responses for test in response.tests]
        assert len(tests) == 12
        false += any(test.holm is not None and test.holm < 0.05 for test in tests)
        largest += sum(test.p is not None and test.p < 0.05 for test in tests)
    assert false <= 4  # 1 expected
    assert largest > 5  # uncorrected, 15 expected


def test_holm_is_over_every_test_of_the_comparison() -> None:
    [found] = comparisons(confirm(effects={"top1": 0.05}))
    tests = [test for response in found.responses for test in response.tests if test.p is not None]
    smallest = min(tests, key=lambda test: test.p or 0.0)
    assert smallest.p is not None
    assert smallest.holm == pytest.approx(min(1.0, len(tests) * smallest.p))


def test_the_test_is_paired_by_seed() -> None:
    scores = pd.DataFrame({"top1": [0.1, 0.2, 0.31, np.nan], "paper": [0.0, 0.1, 0.2, 9.0]})
    found = paired(scores, "top1", "paper")
    assert found.n == 3
    assert found.difference == pytest.approx(0.31 / 3)


def test_validation_scores_stand_in_for_absent_test_scores() -> None:
    one = confirm()
    without = replace(one, trials=one.trials.drop(columns=[c for c in one.trials if str(c).startswith("test/")]))
    assert comparisons(without)[0].responses[0].column == "val/nmi"


def test_seeds_are_set_against_the_spread_of_the_search() -> None:
    """Trials with a sd of 0.1 of which 0.05 is the seed's: a quarter of the variance."""
    rng = np.random.default_rng(4)
    seeds = components(pd.DataFrame(rng.normal(0, 0.05, (40, 10))))
    found = against_search(seeds, rng.normal(0, 0.1, 400))
    assert found is not None
    assert found.low < 0.25 < found.high
    assert found.high - found.low < 0.15
    search = study(40, planted=lambda _, rng: {"val/nmi": rng.normal(0.4, 0.1, 40)})
    said = texts(section(together(search, confirm())))
    assert "between the 40 independent trials of the search" in said["seeds/fsdd-k-10/search/nmi"]
    assert not any("/search/" in name for name in texts(section(together(replace_arm(search), confirm()))))


def replace_arm(search: Study) -> Study:
    return replace(search, trials=search.trials.assign(arm="tpe"))


def test_without_confirm_runs_the_caption_says_how_to_get_them() -> None:
    found = section(study(20))
    assert not texts(found)
    [part] = found.parts
    assert isinstance(part, Group)
    assert "python studies/confirm.py" in part.caption
    assert not part.drawings


def test_every_score_is_drawn() -> None:
    assert rendered(section(confirm())) == 5
    assert rendered(section(confirm(seeds=1, settings=("top1",), more=lambda _: {"test/clusters_used": None}))) == 5


def test_one_seed_has_no_variance_between_seeds() -> None:
    said = texts(section(confirm(seeds=1)))
    assert "no setting has two seeds" in said["seeds/fsdd-k-10/share/nmi"]
    assert "cannot be tested" in said["seeds/fsdd-k-10/paper/nmi"]


def test_one_setting_has_no_variance_between_settings() -> None:
    said = texts(section(confirm(settings=("top1",))))
    assert "one setting only" in said["seeds/fsdd-k-10/share/nmi"]
    assert "nothing to compare" in said["seeds/fsdd-k-10/paper/nmi"]


def test_the_papers_setting_among_the_top_ones_is_recognised() -> None:
    mine = confirm(
        settings=("top1", "top2"),
        more=lambda _: {"config/tau_start": [1.0, 2.0] * 5, "config/tau_end": [0.5, 0.1] * 5},
    )
    assert comparisons(mine)[0].paper == "top1"
    assert "the paper's own temperature" in texts(section(mine))["seeds/fsdd-k-10/paper/nmi"]


def test_without_labels_there_is_no_word_of_accuracy() -> None:
    one = confirm()
    hidden = [f"{split}/{name}" for split in ("val", "test") for name in ("acc", "nmi", "ari")]
    found = section(replace(one, trials=one.trials.drop(columns=hidden, errors="ignore")))
    assert {name.rpartition("/")[2] for name in texts(found)} == {"silhouette_x", "silhouette_p"}
    assert "no labels" in next(part.caption for part in found.parts if isinstance(part, Group))


def test_a_score_in_p_comes_with_the_clusters_used() -> None:
    said = texts(section(confirm()))
    assert "Clusters used: " in said["seeds/fsdd-k-10/paper/silhouette_p"]


@pytest.mark.parametrize("score", [0.5, None])
def test_a_constant_score_and_an_absent_one_are_words(score: float | None) -> None:
    texts(section(confirm(more=lambda _: {"test/nmi": score, "val/nmi": score, "test/clusters_used": 10.0})))


def test_seeds_without_an_effect_are_words() -> None:
    said = texts(section(confirm(noise=0.0, shared=0.0, effects={"top1": 0.1})))
    assert "seeds do not change it" in said["seeds/fsdd-k-10/share/nmi"]


def test_trainings_that_failed_are_counted_and_left_out() -> None:
    mine = confirm(more=lambda _: {"status": ["diverged"] * 4 + ["complete"] * 16})
    [found] = comparisons(mine)
    assert (found.trainings, found.complete) == (20, 16)
    assert len(found.responses[0].scores) == 4
    texts(section(mine))
    texts(section(confirm(more=lambda _: {"status": "error", "objective": None})))


def test_two_comparisons_of_one_corpus_are_told_apart() -> None:
    said = texts(section(together(confirm(name="a-confirm"), confirm(name="b-confirm"))))
    assert {"seeds/fsdd-k-10-a-confirm/paper/nmi", "seeds/fsdd-k-10-b-confirm/paper/nmi"} <= set(said)


def test_a_study_without_trials_is_words() -> None:
    texts(section(study(0)))
    assert not texts(section(study(5, arm="confirm")))  # of trial_ids that name no setting
