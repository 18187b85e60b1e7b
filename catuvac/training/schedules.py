"""Temperature and learning rate as pure functions of progress in [0, 1]."""

from __future__ import annotations

import math

from catuvac.config import Shape, TrainingConfig


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


def anneal_on(tau: float, end: float, *, since: float, progress: float, shape: Shape) -> float:
    """Returns the value on the way from `tau`, which another schedule has reached at progress `since`, to `end`.

    The rest of the shape leads there, so that the `end` of the other schedule, where the shape is the same, gives the
    same values but for rounding. Nothing jumps: at `since` it is `tau`.

    Args:
        tau, end: values at progress `since` and 1; both positive for shape "exponential".
        since: progress at which the way begins, in [0, 1].
        progress: share of the training that is done, in [`since`, 1].
        shape: as in `anneal`.

    Raises:
        ValueError: progress outside [`since`, 1], or an exponential through values that are not positive.
    """
    if not 0.0 <= since <= progress <= 1.0:
        raise ValueError(f"progress must lie in [{since}, 1], got {progress}")
    if shape == "constant":
        return tau
    if progress == 1.0:
        return float(end)
    if shape == "exponential":  # a straight line in the logarithm, so that its rest is one too
        return anneal(tau, end, progress=(progress - since) / (1.0 - since), shape=shape)
    before, now = (anneal(0.0, 1.0, progress=each, shape=shape) for each in (since, progress))
    return anneal(tau, end, progress=(now - before) / (1.0 - before), shape="linear")


def annealing_progress(training: TrainingConfig, *, epoch: int, step: int, steps: int) -> float:
    """How much of the temperature's schedule is done, in [0, 1]: it starts where tau starts to reach q(y | x).

    Args:
        training: with the number of epochs and the warm-up, which comes before the schedule.
        epoch: epochs that are finished.
        step: steps that are finished of the next one.
        steps: of an epoch.
    """
    warmup = training.warmup_epochs
    return max(0.0, ((epoch - warmup) * steps + step) / max(1, (training.epochs - warmup) * steps - 1))


def tau_at(training: TrainingConfig, *, epoch: int, step: int = 0, steps: int) -> float:
    """The temperature of a step; arguments as in `annealing_progress`."""
    progress = annealing_progress(training, epoch=epoch, step=step, steps=steps)
    return anneal(training.tau_start, training.tau_end, progress=progress, shape=training.tau_schedule)
