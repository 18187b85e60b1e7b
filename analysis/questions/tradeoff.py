"""Can a trial have both a high Silhouette in p and a high AMI, or a high Silhouette in x?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.columns import Metric
from analysis.stats import bootstrap
from analysis.stats.bootstrap import Correlation, Floats
from analysis.trials import DESIGNED, Study, share_seeds, units, values, within_seeds

COMPACT = Metric("val/silhouette_p")
AGAINST = (Metric("val/ami"), Metric("val/silhouette_x"))


@dataclass(frozen=True)
class Tradeoff:
    """Silhouette_p against another score; for both, higher is better.

    Attributes:
        points: one row per complete trial with both scores and at least two clusters: trial_id, row (of
            `Study.trials`), compact, other, clusters_used, unit, independent (False for TPE trials), front (no point
            is at least as good in both and better in one).
        k: n_clusters.
        collapsed: number of complete trials left out because with one cluster Silhouette is a floor, not a score.
        correlation: over the independent points, within seeds where settings share seeds: `within`.
        spread: the same over those that use at least half of the clusters, because collapse alone makes p compact.
        volume: hypervolume of the independent points, normalised as in `hypervolume`, with its interval; None if
            `correlation` does not exist.
    """

    other: Metric
    points: pd.DataFrame
    k: int
    collapsed: int
    correlation: Correlation
    spread: Correlation
    volume: tuple[float, float, float] | None
    within: bool

    @property
    def verdict(self) -> str:
        """The verdict from the interval of `correlation`, which must exist."""
        low, high = self.correlation.low, self.correlation.high
        if high is not None and high < 0:
            return "a trade-off"
        if low is not None and low > 0:
            return "no trade-off: they rise together"
        return "undecided"


def tradeoff(study: Study, other: Metric) -> Tradeoff:
    """Relates Silhouette_p to another score, for a study of one corpus and one K that has trials."""
    trials = study.complete
    clusters = values(trials, "val/clusters_used")
    table = pd.DataFrame(
        {
            "trial_id": trials["trial_id"],
            "row": trials.index,
            "compact": values(trials, COMPACT.column),
            "other": values(trials, other.column),
            "clusters_used": clusters,
            "independent": trials["arm"].isin(DESIGNED).astype(bool),
            "unit": units(trials),
        }
    )
    points = table[(clusters >= 2) & table["compact"].notna() & table["other"].notna()].reset_index(drop=True)
    points["front"] = front(points["compact"].to_numpy(), points["other"].to_numpy())
    k = int(study.trials["n_clusters"].iloc[0])
    independent = points[points["independent"]]

    def correlated(chosen: pd.DataFrame) -> Correlation:
        scores = within_seeds(trials.loc[chosen["row"]], COMPACT.column, other.column)
        return bootstrap.spearman(*scores, units=chosen["unit"].to_numpy(dtype=np.int64))

    correlation = correlated(independent)
    volume = None
    if correlation.rho is not None:
        x, y = independent["compact"].to_numpy(), independent["other"].to_numpy()
        rows = bootstrap.resampled(independent["unit"].to_numpy(), rng=np.random.default_rng(0))
        low, high = bootstrap.interval(np.asarray([hypervolume(x[chosen], y[chosen]) for chosen in rows]))
        volume = (hypervolume(x, y), float(low), float(high))
    return Tradeoff(
        other=other,
        points=points,
        k=k,
        collapsed=int((clusters < 2).sum()),
        correlation=correlation,
        spread=correlated(independent[independent["clusters_used"] >= k / 2]),
        volume=volume,
        within=share_seeds(trials.loc[independent["row"]]),
    )


def front(x: Floats, y: Floats) -> NDArray[np.bool_]:
    """Marks the `[n]` points that no other dominates (at least as good in both, better in one); duplicates agree."""
    order = np.lexsort((-y, -x))  # decreasing x, then decreasing y
    before = np.maximum.accumulate(np.concatenate([[-np.inf], y[order]]))[:-1]  # best y so far
    first = np.ones(len(x), dtype=bool)
    first[1:] = (x[order][1:] != x[order][:-1]) | (y[order][1:] != y[order][:-1])
    beaten = y[order] <= before
    # Duplicates have the same result as their first occurrence.
    kept = (~beaten)[np.maximum.accumulate(np.where(first, np.arange(len(x)), 0))] if len(x) else first
    on_front = np.zeros(len(x), dtype=bool)
    on_front[order] = kept
    return on_front


def hypervolume(x: Floats, y: Floats) -> float:
    """Returns the share of the box between the worst and the best value of each score that the points dominate.

    1: one point is best in both. 0.5: a long straight front from best in one to best in the other. 0: nothing between
    two points, each best in one and worst in the other. NaN: a score is constant.
    """
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    kept = front(x, y)
    a, b = (x[kept] - x.min()) / np.ptp(x), (y[kept] - y.min()) / np.ptp(y)
    order = np.argsort(-a, kind="stable")
    a, b = a[order], b[order]
    return float((a * np.diff(b, prepend=0.0)).sum())
