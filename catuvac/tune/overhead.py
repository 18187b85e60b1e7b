"""The cost of a study besides its training, from the table of trials and the driver's clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from catuvac.experiments.base import duration


@dataclass(frozen=True)
class Overhead:
    """Shares of the time that was available to the trials."""

    seconds: float  # s per concurrent trial, on average
    at_once: int  # number of concurrent trials
    metrics: float  # share of evaluations
    rest: float  # share of everything else: start of processes and trials, checkpoints, Ray, Optuna, lost epochs
    start: float  # part of the rest: before the first trials ran, once per study

    def __str__(self) -> str:
        return (
            f"{100 * (self.metrics + self.rest):.1f} % of {duration(self.seconds)} x {self.at_once} trials at once: "
            f"metrics {100 * self.metrics:.1f} %, the rest (start of trials, checkpoints, Ray, Optuna) "
            f"{100 * self.rest:.1f} %, of which {100 * self.start:.1f} % before the first trials ran"
        )


def overhead(
    *, began: float, starts: Sequence[float], ends: Sequence[float], at_once: int, wall: float, train: float
) -> Overhead | None:
    """Divides a study's time into its parts.

    Time counts from the start until no trial is left to start: of n concurrent trials, each of the last n to end leaves
    a slot that no further trial takes. The wait for the others is not overhead.

    Args:
        began: the driver's clock, in seconds, when it handed the study to Ray.
        starts: the same clock when each trial started, in any order; `[trials]`.
        ends: the same clock when each trial ended, in any order; `[trials]`.
        at_once: the largest number of concurrent trials. If nodes joined later, the overhead is overestimated.
        wall: seconds of training and evaluation, summed over the trials.
        train: the part of `wall` inside training epochs.

    Returns:
        None if nothing was trained.
    """
    if not ends or at_once < 1 or train <= 0:
        return None
    last = sorted(ends)[-at_once:]
    total = sum(end - began for end in last)
    first = sum(start - began for start in sorted(starts)[: len(last)])
    return Overhead(
        seconds=total / len(last),
        at_once=len(last),
        metrics=(wall - train) / total,
        rest=(total - wall) / total,
        start=first / total,
    )
