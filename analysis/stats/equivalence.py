"""One of three verdicts for an effect, from its interval and a margin that was fixed beforehand.

An interval inside the margin shows equivalence: this is the pair of one-sided tests of Schuirmann (1987), at the level
of the interval's two tails. The verdict comes from the interval that is shown with it, so the two cannot disagree.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats as distributions

Verdict = Literal["matters", "negligible", "not decided"]

POWER = 0.8  # of the smallest detectable effect
CONSTANT = 1e-12  # a standard error of paired differences below this does not measure their spread
MOST = 100.0  # at most this multiple of the observations is recommended; a larger number would be meaningless


@dataclass(frozen=True)
class Contrast:
    """A difference in means with its interval.

    Attributes:
        value: in the units of the outcome.
        error: its standard error.
        freedom: residual degrees of freedom of the error.
        level: of the interval, such as 0.95.
        margin: an effect smaller than this does not matter; > 0.
        n: number of observations.
        unit: what the observations are, in the plural.
        bound: the largest possible size of the difference, such as 1 for a share; interval and estimate end there.
        over_seeds: the same difference with the error that its spread over seeds gives.
    """

    value: float
    error: float
    freedom: float
    level: float
    margin: float
    n: int
    unit: str = "settings"
    bound: float = math.inf
    over_seeds: Contrast | None = None

    def at_level(self, level: float) -> Contrast:
        """Returns the contrast with another level of its interval: the wider one, over settings or over seeds."""
        mine = replace(self, level=level)
        return max(mine, replace(self.over_seeds or mine, level=level), key=lambda contrast: contrast.half)

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return float(distributions.t.ppf((1 + self.level) / 2, self.freedom)) * self.error

    @property
    def low(self) -> float:
        return max(-self.bound, self.value - self.half)

    @property
    def high(self) -> float:
        return min(self.bound, self.value + self.half)

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    @property
    def p(self) -> float:
        """The two-sided p-value of no effect."""
        if self.error == 0:
            return 1.0 if self.value == 0 else 0.0
        return float(2 * distributions.t.sf(abs(self.value) / self.error, self.freedom))

    @property
    def verdict(self) -> Verdict:
        """negligible: the interval is inside the margin; matters: it excludes 0; otherwise not decided."""
        if -self.margin < self.low and self.high < self.margin:
            return "negligible"
        return "matters" if self.excludes_zero else "not decided"

    @property
    def detectable(self) -> float:
        """The smallest true effect whose interval would exclude 0 with probability `POWER`."""
        tail = (1 + self.level) / 2
        quantiles = distributions.t.ppf(tail, self.freedom) + distributions.t.ppf(POWER, self.freedom)
        return min(self.bound, float(quantiles) * self.error)

    @property
    def more(self) -> int | None:
        """The further observations that would decide it if the estimate and the noise stay the same; 0 once decided.

        None if more than `MOST` times the observations would be needed.
        """
        if self.verdict != "not decided":
            return 0
        # The interval has to shrink until it excludes 0 or is inside the margin, whichever comes first.
        wanted = max(abs(self.value), self.margin - abs(self.value))
        tail, most = (1 + self.level) / 2, round(self.n * (MOST - 1))

        def half(more: int) -> float:
            """Returns the half-width with `more` observations, each of which adds a degree of freedom."""
            quantile = float(distributions.t.ppf(tail, self.freedom + more))
            return quantile * self.error * math.sqrt(self.n / (self.n + more))

        if half(most) > wanted:
            return None
        return bisect.bisect_left(range(most), -wanted, key=lambda more: -half(more))


def paired(
    differences: NDArray[np.float64], *, level: float, margin: float, least: int = 2
) -> tuple[Contrast | None, str]:
    """Returns the mean of paired differences `[n]` with its t-interval; None with the reason if there is no interval.

    A signed-rank test is not suitable: with 5 pairs its p cannot be below 0.06.
    """
    n = len(differences)
    if n < least:
        return None, f"an interval needs {least} complete seeds, and the study has {n}"
    value, error = float(differences.mean()), float(differences.std(ddof=1)) / math.sqrt(n)
    if error < CONSTANT:
        return None, f"all {n} seeds have the same difference of {value:+.3f}, so its spread is not known"
    return Contrast(value, error, n - 1, level, margin, n, "seeds"), ""
