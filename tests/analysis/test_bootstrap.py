"""Correlation with its interval, and resampling by units."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from analysis.stats.bootstrap import resampled, spearman


def test_spearman_is_scipys_and_its_interval_holds_it() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    y = x + rng.normal(size=60)
    found = spearman(x, y, units=np.arange(60))
    assert found.rho == pytest.approx(scipy_stats.spearmanr(x, y).statistic)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.rho < found.high
    assert (found.n, found.units) == (60, 60)


def test_pairs_that_are_missing_do_not_count() -> None:
    x = np.array([1.0, 2, 3, 4, 5, 6, np.nan])
    y = np.array([2.0, 1, 4, 3, 6, np.nan, 7])
    assert spearman(x, y, units=np.arange(7)).n == 5


@pytest.mark.parametrize(
    ("y", "why"), [(np.ones(20), "constant"), (np.full(20, np.nan), "fewer than 5"), (np.array([1.0] * 2), "fewer")]
)
def test_what_is_undefined_is_said(y: np.ndarray, why: str) -> None:
    found = spearman(np.arange(float(len(y))), y, units=np.arange(len(y)))
    assert found.rho is None
    assert found.low is None
    assert why in found.reason


def test_seeds_of_one_setting_are_one_piece_of_evidence() -> None:
    """Ten settings with a chance correlation of about 0.4, each repeated twenty times."""
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=10), rng.normal(size=10)
    units = np.repeat(np.arange(10), 20)
    once = spearman(x, y, units=np.arange(10))
    wrong = spearman(x[units], y[units] + 1e-6 * rng.normal(size=200), units=np.arange(200))
    right = spearman(x[units], y[units] + 1e-6 * rng.normal(size=200), units=units)
    assert wrong.low is not None
    assert right.low is not None
    assert right.low < 0 < wrong.low
    assert right.low == pytest.approx(once.low, abs=0.1)
    assert right.units == 10


def test_resamples_draw_whole_units() -> None:
    units = np.array([7, 7, 2, 2, 2, 5])
    for rows in resampled(units, rng=np.random.default_rng(0), times=50):
        drawn = np.bincount(rows, minlength=6)
        assert drawn[0] == drawn[1]
        assert drawn[2] == drawn[3] == drawn[4]
        assert drawn[0] + drawn[2] + drawn[5] == 3
