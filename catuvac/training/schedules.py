"""Temperature and learning rate as pure functions of progress in [0, 1]."""

from __future__ import annotations

import math

from catuvac.config import Shape


def anneal(start: float, end: float, *, progress: float, shape: Shape) -> float:
    """Returns the value on the way from `start` to `end`; monotone, exact at both ends.

    Args:
        start, end: values at progress 0 and 1; both positive for shape "exponential".
        progress: share of the training that is done, in [0, 1].
        shape: "exponential" (a straight line in the logarithm), "linear", "cosine" (slow at both ends) or "constant"
            (`start` throughout).

    Raises:
        ValueError: progress outside [0, 1], or an exponential through values that are not positive.
    """
    if not 0.0 <= progress <= 1.0:
        raise ValueError(f"progress must lie in [0, 1], got {progress}")
    match shape:
        case "constant":
            return start
        case "linear":
            share = progress
        case "cosine":
            share = 0.5 * (1.0 - math.cos(math.pi * progress))
        case "exponential":
            if start <= 0 or end <= 0:
                raise ValueError(f"an exponential schedule needs positive ends, got {start} and {end}")
            return float(end) if progress == 1.0 else start * (end / start) ** progress
    return float(end) if share == 1.0 else start + (end - start) * share
