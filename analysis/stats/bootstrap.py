"""Resampling by units, percentile intervals, and rank correlation with its interval.

A unit is drawn independently: a trial of a random or QMC arm, or all seeds of one setting of a confirm run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

RESAMPLES = 499
MIN_UNITS = 5  # fewer points do not support an interval
CONFIDENCE = 0.95
PERCENTILES = (50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE))

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number with its bootstrap 95 % interval."""

    value: float
    low: float
    high: float

    def values(self, name: str) -> dict[str, float]:
        """Returns the values for a statement: NAME, NAME_low and NAME_high."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


@dataclass(frozen=True)
class Correlation:
    """Spearman's rho of two columns.

    Attributes:
        rho: None if it is undefined, for `reason`; then low and high are None too.
        low, high: 95 % interval.
        n: number of points, from `units` independent units.
    """

    rho: float | None
    low: float | None
    high: float | None
    n: int
    units: int
    reason: str = ""


def spearman(x: Floats, y: Floats, *, units: NDArray[np.int64]) -> Correlation:
    """Computes the rank correlation of the points with both values, and a bootstrap interval.

    Args:
        x, y: `[n]`, NaN if there is no value.
        units: `[n]` codes of the independently drawn units.
    """
    known = np.isfinite(x) & np.isfinite(y)
    x, y, codes = x[known], y[known], np.unique(units[known], return_inverse=True)[1]
    n, count = len(x), int(codes.max()) + 1 if len(codes) else 0
    if count < MIN_UNITS:
        return Correlation(None, None, None, n, count, f"fewer than {MIN_UNITS} independent trials")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return Correlation(None, None, None, n, count, "one of the two is constant")
    rho = _rho(x, y)
    rows = resampled(codes, rng=np.random.default_rng(0))
    alone = count == n  # then all resamples have n rows, and one call ranks them all
    rhos = _rhos(x[np.stack(rows)], y[np.stack(rows)]) if alone else [_rho(x[draw], y[draw]) for draw in rows]
    low, high = interval(np.asarray(rhos))
    return Correlation(rho, float(low), float(high), n, count)


def resampled(units: NDArray[np.int64], *, rng: np.random.Generator, times: int = RESAMPLES) -> list[NDArray[np.int64]]:
    """Draws bootstrap samples of whole units: `times` arrays of row numbers."""
    codes = np.unique(units, return_inverse=True)[1]
    order = np.argsort(codes, kind="stable")
    rows = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
    if len(rows) == len(units):
        return list(rng.integers(0, len(units), size=(times, len(units))))
    return [np.concatenate([rows[unit] for unit in rng.integers(0, len(rows), len(rows))]) for _ in range(times)]


def interval(draws: Floats) -> Floats:
    """Returns the percentile interval `[2, …]` of resampled values `[times, …]`; NaNs are left out."""
    return np.asarray(np.nanpercentile(draws, PERCENTILES, axis=0), dtype=np.float64)


def estimate(found: Floats) -> Estimate:
    """Returns a number with its interval, from `[1 + times]` values: of the sample itself, then of its resamples."""
    low, high = interval(found[1:])
    return Estimate(float(found[0]), float(low), float(high))


def r_squared(errors: Floats, y: Floats, draws: Sequence[NDArray[np.int64]]) -> Floats:
    """Computes R² in each sample of rows; NaN if y is constant in the sample.

    Args:
        errors: `[n]` squared errors of predictions of y.
        y: `[n]`.
        draws: one array of row numbers per sample, as `resampled` returns them.
    """
    total = np.asarray([((y[rows] - y[rows].mean()) ** 2).sum() for rows in draws])
    left = np.asarray([errors[rows].sum() for rows in draws])
    return 1 - left / np.where(total > 0, total, np.nan)


def _rho(x: Floats, y: Floats) -> float:
    """Returns NaN for a resample in which x or y is constant."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1])


def _rhos(x: Floats, y: Floats) -> Floats:
    """Computes `_rho` for every row of `[times, n]`."""
    ranks = [stats.rankdata(values, axis=1) - (x.shape[1] + 1) / 2 for values in (x, y)]
    with np.errstate(invalid="ignore"):
        rhos: Floats = (ranks[0] * ranks[1]).sum(1) / np.sqrt((ranks[0] ** 2).sum(1) * (ranks[1] ** 2).sum(1))
    return rhos
