"""The verdict, its interval and what it would take to decide: they never disagree."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as distributions
from statsmodels.stats.weightstats import DescrStatsW

from analysis.stats.equivalence import POWER, Contrast


def contrast(value: float, error: float, *, margin: float = 0.03, level: float = 0.95) -> Contrast:
    return Contrast(value, error, 20.0, level, margin, 40)


@pytest.mark.parametrize(
    ("value", "error", "verdict"),
    [
        (0.1, 0.01, "matters"),
        (-0.1, 0.01, "matters"),
        (0.0, 0.005, "negligible"),
        (0.012, 0.004, "negligible"),  # not 0, and too small to matter
        (0.02, 0.02, "not decided"),
        (0.0, 0.03, "not decided"),
    ],
)
def test_the_verdict_is_what_the_interval_says(value: float, error: float, verdict: str) -> None:
    found = contrast(value, error)
    assert found.verdict == verdict
    inside = found.low > -0.03 and found.high < 0.03
    excludes = found.low > 0 or found.high < 0
    assert (found.verdict == "negligible") == inside
    assert (found.verdict == "matters") == (excludes and not inside)
    assert (found.p < 0.05) == excludes


def test_equivalence_is_two_one_sided_tests() -> None:
    """statsmodels' TOST of a mean, at the level of one tail of the interval."""
    rng = np.random.default_rng(0)
    for shift in np.linspace(-0.03, 0.03, 13):
        x = rng.normal(shift, 0.05, 60)
        p = DescrStatsW(x).ttost_mean(-0.03, 0.03)[0]
        error = x.std(ddof=1) / math.sqrt(len(x))
        found = Contrast(float(x.mean()), float(error), len(x) - 1.0, 0.95, 0.03, len(x))
        assert (found.verdict == "negligible") == (p < 0.025)


def test_the_detectable_effect_is_found_as_often_as_it_says() -> None:
    rng, error, freedom = np.random.default_rng(1), 0.01, 20
    true = contrast(0.0, error).detectable
    value = rng.normal(true, error, 4000)
    errors = error * np.sqrt(rng.chisquare(freedom, 4000) / freedom)
    found = np.mean(np.abs(value) > distributions.t.ppf(0.975, freedom) * errors)
    assert found == pytest.approx(POWER, abs=0.03)


def test_more_is_what_shrinks_the_interval_enough() -> None:
    open_ = contrast(0.02, 0.02)
    assert open_.more is not None
    few = Contrast(0.02, 0.02, 2.0, 0.95, 0.03, 3)  # of whose interval most is the price of two degrees of freedom
    assert few.more is not None
    for found in (open_, few):
        for change, reaches in ((0, True), (-1, False)):
            n = found.n + (found.more or 0) + change
            freedom = found.freedom + n - found.n
            larger = Contrast(0.02, 0.02 * math.sqrt(found.n / n), freedom, 0.95, 0.03, n)
            assert (larger.low > 0) == reaches
    assert contrast(0.1, 0.01).more == 0
    assert Contrast(0.03, 9.0, 20.0, 0.95, 0.03, 40).more is None
