"""The adjusted effect where the answer is known; `test_simulations.py` has sizes, power and coverage."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.random import Generator

from analysis.stats.adjusted import Adjusted, _averaged, adjusted

MARGIN = 0.03


def factorial(
    rng: Generator,
    *,
    effect: float = 0.0,
    crossed: float = 0.0,
    noise: float = 0.001,
    block: float = 0.0,
    slopes: Sequence[float] = (0.0,) * 6,
    lost: float = 0.0,
    twice: bool = False,
) -> Adjusted:
    """4 tau_start × 3 ratios × 3 beta on each seed: what the ratio does, on the scale of its range."""
    seeds = len(slopes)
    cells = np.array([(s, r, b) for s in (0.5, 1, 2, 4) for r in (0.05, 0.22, 1.0) for b in (0.01, 0.05, 0.2)])
    setting, seed = np.divmod(np.arange(seeds * len(cells)), seeds)
    start, ratio, beta = cells[setting].T
    r, b = np.log(ratio / 0.05) / np.log(20), np.log(beta / 0.01) / np.log(20)
    y = 0.5 - 0.15 * b + effect * r + crossed * (r - 0.5) * (b - 0.5)
    y = y + rng.normal(0, block, seeds)[seed] + rng.normal(0, noise, len(y)) + np.asarray(slopes)[seed] * r
    kept = np.flatnonzero(rng.random(len(y)) >= lost)
    kept = np.repeat(kept, 2) if twice else kept
    found = adjusted(
        y[kept],
        {"tau_start": start[kept], "tau_ratio": ratio[kept]},
        covariates={"beta": beta[kept]},
        categories={},
        setting=setting[kept],
        block=seed[kept],
        margin=MARGIN,
    )["tau_ratio"]
    assert found is not None
    return found


def test_the_effect_and_its_ends_are_those_that_were_planted() -> None:
    found = factorial(np.random.default_rng(0), effect=-0.08)
    assert (found.low, found.high) == (0.05, 1.0)
    assert found.contrast.value == pytest.approx(-0.08, abs=0.003)
    assert (found.settings, found.rows) == (36, 216)


def test_blocks_and_seeds_are_taken_out_even_where_trainings_are_missing() -> None:
    """Seed blocks that lie 0.3 apart do not reach the effect, and the seeds' own deviation is told."""
    found = [factorial(np.random.default_rng(s), effect=-0.05, noise=0.02, block=0.3, lost=0.2) for s in range(20)]
    values = [each.contrast.value for each in found]
    assert np.mean(values) == pytest.approx(-0.05, abs=0.005)
    assert np.std(values) < 0.01  # 0.05 and more, were the missing trainings' blocks not taken out
    assert np.mean([each.seed_sd for each in found]) == pytest.approx(0.3, rel=0.3)


def test_an_effect_that_differs_between_seeds_is_as_sure_as_its_seeds_are() -> None:
    """The settings agree to 0.001, but the seeds' own effects have a standard deviation of 0.05."""
    slopes = (-0.09, 0.01, -0.04, 0.06)
    found = factorial(np.random.default_rng(0), slopes=slopes).with_levels(0.95, shape=0.99).contrast
    assert (found.unit, found.n, found.freedom) == ("seeds", 4, 3)
    assert found.error == pytest.approx(np.std(slopes, ddof=1) / 2, rel=0.05)
    few = factorial(np.random.default_rng(0), slopes=slopes[:2])
    assert few.by_seed == pytest.approx(slopes[:2], abs=0.003)
    assert few.with_levels(0.95, shape=0.99).contrast.unit == "settings"  # two seeds do not tell how much seeds differ


def test_seeds_that_lost_settings_still_tell_their_effect() -> None:
    slopes = (-0.09, 0.01, -0.04, 0.06)
    assert factorial(np.random.default_rng(0), slopes=slopes, lost=0.2).by_seed == pytest.approx(slopes, abs=0.004)


def test_a_training_that_is_there_twice_counts_once() -> None:
    once, twice = (factorial(np.random.default_rng(0), noise=0.02, twice=twice) for twice in (False, True))
    assert twice.contrast.error == pytest.approx(once.contrast.error)
    assert twice.seed_sd == pytest.approx(once.seed_sd)


def test_a_setting_that_is_alone_in_its_block_keeps_its_outcome() -> None:
    """As trials of qmc beside a factorial: each has a seed of its own, which nothing tells apart from its setting."""
    setting, block = np.array([0, 0, 1, 1, 2, 3]), np.array([0, 1, 0, 1, 2, 3])
    level = np.array([0.1, -0.1, 0.0, 0.0])
    truth = np.array([0.3, 0.5, 0.7, 0.9])
    means, first, _ = _averaged(truth[setting] + level[block], setting, block)
    assert means == pytest.approx(truth, abs=1e-12)
    assert first.tolist() == [0, 2, 4, 5]
    missing = np.array([True, True, True, False, True, True])  # setting 1 has only the better block
    means, _, _ = _averaged((truth[setting] + level[block])[missing], setting[missing], block[missing])
    assert means == pytest.approx(truth, abs=1e-12)


def test_a_crossing_is_told_between_the_ends_of_the_other_setting() -> None:
    found = factorial(np.random.default_rng(0), effect=-0.05, crossed=0.1)
    (crossing,) = (each for each in found.crossings if each.other == "beta")
    assert (crossing.low, crossing.high) == (0.01, 0.2)
    assert crossing.contrast.value == pytest.approx(0.1, abs=0.003)
    assert {each.other for each in found.crossings} == {"beta", "tau_start"}


def test_a_setting_that_alone_has_a_word_is_left_out() -> None:
    """A column of its own would fit it exactly, and the error of that is no number."""
    rng = np.random.default_rng(0)
    start, ratio = np.exp(rng.normal(size=(2, 30)))
    y = 0.1 * np.log(ratio) + rng.normal(0, 0.01, 30)
    y[7] = 9.0
    words = ["cosine" if i == 7 else ("linear", "exponential")[i % 2] for i in range(30)]
    rest = {"setting": np.arange(30), "block": np.arange(30), "margin": MARGIN}
    found = adjusted(
        y, {"tau_start": start, "tau_ratio": ratio}, covariates={}, categories={"schedule": words}, **rest
    )["tau_ratio"]
    assert found is not None
    assert found.settings == 29
    true = 0.1 * np.log(found.high / found.low)
    assert found.contrast.value == pytest.approx(true, abs=0.02)
    assert 0 < found.contrast.error < 0.02


@pytest.mark.parametrize(("settings", "left_out"), [(40, ()), (10, ("schedule",))])
def test_a_category_for_which_the_settings_are_too_few_is_named(settings: int, left_out: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    start, ratio = np.exp(rng.normal(size=(2, settings)))
    words = [("cosine", "linear", "exponential")[i % 3] for i in range(settings)]
    each = np.arange(settings)
    (found, _) = adjusted(
        0.1 * np.log(ratio) + rng.normal(0, 0.01, settings),
        {"tau_start": start, "tau_ratio": ratio},
        covariates={},
        categories={"schedule": words, "estimator": ["gumbel"] * settings},
        setting=each,
        block=each,
        margin=MARGIN,
    ).values()
    assert found is not None
    assert found.left_out == left_out
    assert any("schedule" in term for term in found.terms) == (not left_out)


def test_settings_that_tell_nothing_give_no_estimate() -> None:
    same = {"tau_start": np.ones(9), "tau_ratio": np.linspace(0.1, 1, 9)}
    what = {"covariates": {}, "categories": {}, "setting": np.arange(9), "block": np.arange(9), "margin": MARGIN}
    assert adjusted(np.arange(9.0), same, **what)["tau_start"] is None
    few = {"tau_start": np.array([1.0, 2.0, 3.0]), "tau_ratio": np.array([0.1, 0.4, 0.3])}
    what |= {"setting": np.arange(3), "block": np.arange(3)}
    assert adjusted(np.arange(3.0), few, **what)["tau_start"] is None
