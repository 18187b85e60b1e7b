"""What a study costs beside its training, from the table of trials and the driver's clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from catuvac.experiments.base import duration


@dataclass(frozen=True)
class Overhead:
    """Shares of the time that the trials had."""

    seconds: float  # s that each of the trials at once had, in the mean
    at_once: int  # trials
    metrics: float  # share of the evaluations
    rest: float  # share of all else: start of processes and trials, checkpoints, Ray, Optuna, epochs that were lost
    start: float  # share of the rest: until the first trials ran, once a study

    def __str__(self) -> str:
        return (
            f"{100 * (self.metrics + self.rest):.1f} % of {duration(self.seconds)} x {self.at_once} trials at once: "
            f"metrics {100 * self.metrics:.1f} %, the rest (start of trials, checkpoints, Ray, Optuna) "
            f"{100 * self.rest:.1f} %, of which {100 * self.start:.1f} % before the first trials ran"
        )


def overhead(
    *, began: float, starts: Sequence[float], ends: Sequence[float], at_once: int, wall: float, train: float
) -> Overhead | None:
    """Divides a study's time.

    Time counts from the start until no trial is left: of n trials at once, the last n to end each leave a place empty
    that no further trial takes. What they then wait for one another is not overhead.

    Args:
        began: the driver's clock, in seconds, when it handed the study to Ray.
        starts: the same clock when each trial started, in any order; `[trials]`.
        ends: the same clock when each trial ended, in any order; `[trials]`.
        at_once: the most trials that ran at the same time. Where nodes came later, the overhead comes out too large.
        wall: seconds of training and evaluation, summed over the trials.
        train: of these, inside training epochs.

    Returns:
        None where nothing was trained.
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
