"""Least squares over all bootstrap samples at once, resampling whole units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.stats import bootstrap
from analysis.stats.bootstrap import CONFIDENCE, RESAMPLES, Estimate, Floats

PERCENTILES = (50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE))  # of a bootstrap
SINGULAR = 1e10  # condition number from which the design does not tell its columns apart


def resample_weights(codes: NDArray[np.int64]) -> Floats:
    """How often each row is in each bootstrap sample of whole units, `[RESAMPLES, n]`."""
    if len(codes) == 0:
        return np.empty((RESAMPLES, 0))
    rows = bootstrap.resampled(codes, rng=np.random.default_rng(0))
    return np.stack([np.bincount(each, minlength=len(codes)) for each in rows]).astype(float)


def slope(columns: Sequence[Floats], y: Floats, weights: Floats, *, times: float = 1.0) -> Estimate | None:
    """The coefficient of the last column in a least-squares fit of y on all columns and a constant.

    Args:
        columns: `[n]` each, NaN where unknown.
        y: `[n]`, NaN where unknown; rows with any unknown value are left out.
        weights: of `resample_weights`, `[resamples, n]`.
        times: the step of the last column that the estimate is told for.

    Returns:
        None where the rows do not tell the columns apart.
    """
    known = np.isfinite(y) & np.all([np.isfinite(column) for column in columns], axis=0)
    if known.sum() <= len(columns) + 1:
        return None
    scales = [column[known].std() for column in columns]
    if min(scales) < 1e-12:
        return None
    # Centred and scaled, so that the normal equations lose no digits; rows left out are zeros.
    rows = [np.where(known, (c - c[known].mean()) / scale, 0.0) for c, scale in zip(columns, scales, strict=True)]
    design = np.stack([known.astype(float), *rows], axis=1)
    response = np.where(known, y - y[known].mean(), 0.0)
    k = design.shape[1]
    products = (design[:, :, None] * design[:, None, :]).reshape(-1, k * k)
    drawn = np.vstack([np.ones(len(y)), weights])
    gram, moments = (drawn @ products).reshape(-1, k, k), drawn @ (design * response[:, None])
    telling = np.linalg.cond(gram) < SINGULAR
    if not telling[0] or not telling[1:].any():
        return None
    found = np.linalg.solve(gram[telling], moments[telling][:, :, None])[:, -1, 0] * (times / scales[-1])
    low, high = np.percentile(found[1:], PERCENTILES)
    return Estimate(float(found[0]), float(low), float(high))
