"""Temperature and learning rate as pure functions of progress in [0, 1]; a new shape is one entry of `SCHEDULES`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Shape = Literal["exponential", "linear", "cosine", "constant"]  # the names of `SCHEDULES`
NODES, WEIGHTS = np.polynomial.legendre.leggauss(24)  # of a mean over [-1, 1]; exact to rounding for smooth shapes


@dataclass(frozen=True)
class Schedule:
    """The shape of a path between two values.

    Attributes:
        fraction: maps progress in [0, 1] to the covered fraction of the path; it never falls, and ends at 1 or stays 0.
        log: interpolate in the logarithm, so that both values must be positive.
        searched: whether a search over shapes may draw it.
    """

    fraction: Callable[[float], float]
    log: bool = False
    searched: bool = True

    def between(self, start: Any, end: Any, fraction: float) -> Any:
        """Returns the value, or the values `[n]`, at a fraction of the path."""
        return start * (end / start) ** fraction if self.log else start + (end - start) * fraction

    def mean(self, start: NDArray[np.float64], end: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the mean `[n]` over the whole path, for `[n]` starts and ends."""
        parts = [
            weight / 2 * self.between(start, end, self.fraction(float(node + 1) / 2))
            for node, weight in zip(NODES, WEIGHTS, strict=True)
        ]
        return np.asarray(np.sum(parts, axis=0), dtype=np.float64)


SCHEDULES: dict[Shape, Schedule] = {
    "exponential": Schedule(lambda progress: progress, log=True),
    "linear": Schedule(lambda progress: progress),
    "cosine": Schedule(lambda progress: 0.5 * (1.0 - math.cos(math.pi * progress))),  # slow at both ends
    "constant": Schedule(lambda _: 0.0, searched=False),
}


def anneal(start: float, end: float, *, progress: float, shape: Shape) -> float:
    """Returns the value on the path from `start` to `end`; monotone, exact at both ends.

    Args:
        start, end: values at progress 0 and 1; both positive for a logarithmic shape. A constant stays at `start`.
        progress: share of the training that is done, in [0, 1].
        shape: a name of `SCHEDULES`.

    Raises:
        ValueError: progress outside [0, 1], or a logarithmic shape with values that are not positive.
    """
    return anneal_on(start, end, since=0.0, progress=progress, shape=shape)


def anneal_on(tau: float, end: float, *, since: float, progress: float, shape: Shape) -> float:
    """Returns the value on the path from `tau`, which another schedule has reached at progress `since`, to `end`.

    The path follows the rest of the shape, so that with the shape and the `end` of the other schedule it gives the
    same values up to rounding. It starts without a jump: at `since` the value is `tau`.

    Args:
        tau, end: values at progress `since` and 1; both positive for a logarithmic shape.
        since: progress at which the path begins, in [0, 1].
        progress: share of the training that is done, in [`since`, 1].
        shape: a name of `SCHEDULES`.

    Raises:
        ValueError: progress outside [`since`, 1], or a logarithmic shape with values that are not positive.
    """
    if not 0.0 <= since <= progress <= 1.0:
        raise ValueError(f"progress must lie in [{since:g}, 1], got {progress}")
    schedule = SCHEDULES[shape]
    if schedule.log and (tau <= 0 or end <= 0):
        raise ValueError(f"an {shape} schedule needs positive ends, got {tau} and {end}")
    before, now = schedule.fraction(since), schedule.fraction(progress)
    if now == 1.0:
        return float(end)
    return float(schedule.between(tau, end, (now - before) / (1.0 - before)))
