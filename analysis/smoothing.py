"""A smooth curve through scattered points, with the band of its bootstrap samples."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.interpolate import CubicSpline

from analysis.regression import PERCENTILES
from analysis.stats import Floats

POSITIONS = 40  # values of log tau a curve is fitted at; trials closer together than that count as one position
MIN_POSITIONS = 5
MAX_DF = 8.0  # degrees of freedom of a curve: cross-validation of few trials now and then follows every point


def curve(x: Floats, y: Floats, weights: Floats, *, log: bool) -> pd.DataFrame:
    """A smoothing spline of y over x = log10 tau with its bootstrap band, as columns tau, value, low, high.

    The penalty is chosen once, by generalised cross-validation over all trials. scipy's `make_smoothing_spline` finds
    the same curve, but tells no penalty to keep for the band, and takes too long for hundreds of resamples.

    Args:
        x, y: `[n]`, NaN where unknown; y is log10 of the metric where `log`.
        weights: `[resamples, n]`, how often each resample holds each trial.
        log: whether to raise 10 to the curve.
    """
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    weights = weights if known.all() else weights[:, known]
    start, reach = x.min(), np.ptp(x)
    cells = np.minimum((x - start) / max(reach, 1e-12) * POSITIONS, POSITIONS - 1).astype(int)
    cells = np.unique(cells, return_inverse=True)[1]
    counts = np.bincount(cells).astype(float)
    if len(counts) < MIN_POSITIONS:
        return no_curve()
    positions = (np.bincount(cells, x) / counts - start) / reach
    means = np.bincount(cells, y) / counts
    # The natural cubic spline through values f at the positions is linear in f: `basis(t) @ f`; its bending energy,
    # the integral of the squared second derivative (piecewise linear), is `f @ bending @ f`.
    basis = CubicSpline(positions, np.eye(len(positions)), bc_type="natural")
    second, gaps = basis(positions, 2), np.diff(positions)
    left, right = second[:-1], second[1:]
    bending = (left.T * gaps) @ left + (right.T * gaps) @ right + (left.T * (gaps / 2)) @ right
    bending = (bending + (right.T * (gaps / 2)) @ left) / 3
    penalty = _penalty(bending, counts, means, within=float(((y - means[cells]) ** 2).sum()))
    # A position that a resample misses keeps next to no weight, so that all resamples share their knots.
    member = sparse.csr_array((np.ones(len(x)), (np.arange(len(x)), cells)))
    drawn = np.vstack([np.ones(len(x)), weights])
    shares, totals = drawn @ member + 1e-3, drawn @ (member * y[:, None]) + 1e-3 * means
    fitted = np.linalg.solve(np.eye(len(counts)) * shares[:, None, :] + penalty * bending, totals[:, :, None])[:, :, 0]
    grid = np.linspace(positions[0], positions[-1], 60)
    curves = fitted @ basis(grid).T
    low, high = np.percentile(curves[1:], PERCENTILES, axis=0)
    shown = [10.0**each if log else each for each in (curves[0], low, high)]
    return pd.DataFrame(dict(zip(["tau", "value", "low", "high"], [10 ** (start + grid * reach), *shown], strict=True)))


def _penalty(bending: Floats, counts: Floats, means: Floats, *, within: float) -> float:
    """The penalty of least generalised cross-validation error (Wahba 1990), with at most `MAX_DF` degrees of freedom.

    Args:
        bending, counts, means: of the positions.
        within: sum of squares of the trials about the mean of their position.
    """
    root = np.sqrt(counts)
    roughness, modes = np.linalg.eigh(bending / np.outer(root, root))
    weight = modes.T @ (root * means)
    penalties = np.logspace(6, -8, 141) * counts.sum()  # ties go to the smoothest
    kept = 1 / (1 + penalties[:, None] * np.maximum(0.0, roughness))
    df = kept.sum(axis=1)
    error = ((((1 - kept) * weight) ** 2).sum(axis=1) + within) / (counts.sum() - df) ** 2
    return float(penalties[np.argmin(np.where(df <= min(MAX_DF, counts.sum() - 1), error, np.inf))])


def no_curve() -> pd.DataFrame:
    return pd.DataFrame(columns=["tau", "value", "low", "high"], dtype=float)
