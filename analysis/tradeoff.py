"""Can a high Silhouette in p and a high AMI, or a high Silhouette in x, be had together?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import columns
from analysis.columns import Metric
from analysis.figures import tradeoff as drawn
from analysis.section import Drawing, Group, Section, Statement, Value, slug
from analysis.stats import bootstrap
from analysis.stats.bootstrap import Correlation, Floats
from analysis.trials import DESIGNED, Study, units, values

COMPACT = columns.metric("val/silhouette_p")
AGAINST = tuple(columns.metric(column) for column in ("val/ami", "val/silhouette_x"))


@dataclass(frozen=True)
class Tradeoff:
    """Silhouette_p against another score, both better when high.

    Attributes:
        points: a row per complete trial with both scores and two clusters or more: trial_id, row (of
            `Study.trials`), compact, other, clusters_used, unit, independent (a TPE trial is not), front (no point is
            as good in both, better in one).
        k: clusters asked for.
        collapsed: complete trials left out, because with one cluster Silhouette is a floor and not a score.
        correlation: over the independent points.
        spread: the same over those that use at least half of the clusters: collapse alone makes p compact.
        volume: hypervolume of the independent points, as `hypervolume` normalises it, with its interval; None where
            `correlation` does not exist.
    """

    other: Metric
    points: pd.DataFrame
    k: int
    collapsed: int
    correlation: Correlation
    spread: Correlation
    volume: tuple[float, float, float] | None

    @property
    def verdict(self) -> str:
        """From the interval of `correlation`, which exists."""
        low, high = self.correlation.low, self.correlation.high
        if high is not None and high < 0:
            return "a trade-off"
        if low is not None and low > 0:
            return "no trade-off: they rise together"
        return "undecided"


def tradeoff(study: Study, other: Metric) -> Tradeoff:
    """Sets Silhouette_p against another score, for a study of one corpus and one K that has trials."""
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
    mine = points[points["independent"]]
    correlation = _correlation(mine)
    volume = None
    if correlation.rho is not None:
        x, y = mine["compact"].to_numpy(), mine["other"].to_numpy()
        rows = bootstrap.resampled(mine["unit"].to_numpy(), rng=np.random.default_rng(0))
        low, high = bootstrap.interval(np.asarray([hypervolume(x[chosen], y[chosen]) for chosen in rows]))
        volume = (hypervolume(x, y), float(low), float(high))
    return Tradeoff(
        other=other,
        points=points,
        k=k,
        collapsed=int((clusters < 2).sum()),
        correlation=correlation,
        spread=_correlation(mine[mine["clusters_used"] >= k / 2]),
        volume=volume,
    )


def front(x: Floats, y: Floats) -> NDArray[np.bool_]:
    """Which of `[n]` points no other one beats: as good in both, better in one; equal points stand together."""
    order = np.lexsort((-y, -x))  # x falls, and y within equal x
    before = np.maximum.accumulate(np.concatenate([[-np.inf], y[order]]))[:-1]  # best y so far
    first = np.ones(len(x), dtype=bool)
    first[1:] = (x[order][1:] != x[order][:-1]) | (y[order][1:] != y[order][:-1])
    beaten = y[order] <= before
    # A twin of a point shares its fate.
    kept = (~beaten)[np.maximum.accumulate(np.where(first, np.arange(len(x)), 0))] if len(x) else first
    found = np.zeros(len(x), dtype=bool)
    found[order] = kept
    return found


def hypervolume(x: Floats, y: Floats) -> float:
    """Share of the box between the worst and the best value of each score that some point reaches or beats in both.

    1: one point is best in both. 0.5: a long straight front from best in one to best in the other. 0: nothing between
    two points, each best in one and worst in the other. NaN where a score is constant.
    """
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    kept = front(x, y)
    a, b = (x[kept] - x.min()) / np.ptp(x), (y[kept] - y.min()) / np.ptp(y)
    order = np.argsort(-a, kind="stable")
    a, b = a[order], b[order]
    return float((a * np.diff(b, prepend=0.0)).sum())


def _correlation(points: pd.DataFrame) -> Correlation:
    """Its p-value is of no use: seeds of one setting differ in both scores."""
    return bootstrap.spearman(
        points["compact"].to_numpy(), points["other"].to_numpy(), units=points["unit"].to_numpy(dtype=np.int64)
    )


def section(study: Study) -> Section:
    """The trade-off of the paper's hypothesis, by corpus and K."""
    statements: list[Statement] = []
    parts: list[Group] = []
    headline: list[str] = []
    for title, panel in study.panels().items():
        found = [tradeoff(panel, other) for other in AGAINST]
        made = [one for one in found if len(one.points)]
        for one in made:
            name = f"tradeoff/{slug(title)}/{one.other.name}"
            if one.correlation.rho is not None:
                statements.append(_verdict(f"{name}/verdict", title, one))
                headline.append(f"{name}/verdict")
            if len(one.points) > 1 and np.ptp(one.points["compact"]) > 0:
                statements.append(_cost(f"{name}/cost", title, one))
        parts.append(_group(title, panel, found))
    if not parts:
        parts.append(Group("The trade-off: nothing to draw, because no trial of Cat. UVAC has been recorded."))
    title = "Can high agreement with labels and high clustering scores be had together?"
    return Section(title, tuple(statements), tuple(parts), tuple(headline))


def _verdict(name: str, title: str, found: Tradeoff) -> Statement:
    rho = found.correlation
    given: dict[str, Value] = {
        "panel": title,
        "compact": COMPACT.label,
        "other": found.other.label,
        "verdict": found.verdict,
        "n": rho.n,
        **_interval("rho", rho),
    }
    text = (
        "{panel}, {compact} against {other}: {verdict} (Spearman ρ = {rho:+.2f}, 95 % interval {rho_low:+.2f} to "
        "{rho_high:+.2f}, n = {n} independent trials). "
    )
    if found.spread.n < rho.n and found.spread.rho is not None:
        text += (
            "Among the {spread_n} trials that use at least half of the {k} clusters, ρ = {spread:+.2f} "
            "({spread_low:+.2f} to {spread_high:+.2f}). "
        )
        given |= {"spread_n": found.spread.n, "k": found.k, **_interval("spread", found.spread)}
    if found.volume is not None:
        text += (
            "The Pareto front covers {volume:.0%} ({volume_low:.0%} to {volume_high:.0%}) of the box between the worst "
            "and the best of each; 100 % means that one trial is best in both."
        )
        given |= dict(zip(("volume", "volume_low", "volume_high"), found.volume, strict=True))
    return Statement(name, text.strip(), given)


def _interval(name: str, found: Correlation) -> dict[str, Value]:
    """NAME, NAME_low and NAME_high of a correlation that exists."""
    numbers = {name: found.rho, f"{name}_low": found.low, f"{name}_high": found.high}
    return {key: value for key, value in numbers.items() if value is not None}


def _cost(name: str, title: str, found: Tradeoff) -> Statement:
    """What the trial with the best Silhouette_p loses in the other score."""
    points = found.points.sort_values("clusters_used", ascending=False, kind="stable")  # of equals, the fullest
    chosen, best = points.iloc[points["compact"].argmax()], points.iloc[points["other"].argmax()]
    return Statement(
        name,
        "{panel}: the trial with the best {compact} ({chosen_compact:.3f}, {chosen_clusters} of {k} clusters used) has "
        "{other} {chosen_other:.3f}. The best {other} is {best_other:.3f} ({best_clusters} clusters used, {compact} "
        "{best_compact:.3f}): choosing by {compact} loses {loss:.3f} (n = {n} complete trials).",
        {
            "panel": title,
            "compact": COMPACT.label,
            "other": found.other.label,
            "k": found.k,
            "n": len(points),
            "chosen": str(chosen["trial_id"]),
            "chosen_compact": float(chosen["compact"]),
            "chosen_other": float(chosen["other"]),
            "chosen_clusters": int(chosen["clusters_used"]),
            "best": str(best["trial_id"]),
            "best_compact": float(best["compact"]),
            "best_other": float(best["other"]),
            "best_clusters": int(best["clusters_used"]),
            "loss": float(best["other"] - chosen["other"]),
        },
    )


def _group(title: str, panel: Study, found: list[Tradeoff]) -> Group:
    drawings, notes = [], []
    for one in found:
        if one.points.empty:
            notes.append(f"{one.other.label} is not drawn: {_why_empty(panel, one)}.")
            continue
        rho, adaptive = one.correlation, int((~one.points["independent"]).sum())
        notes.append(
            f"{one.other.label}: {len(one.points)} complete trials"
            + (f", {adaptive} of them placed by TPE or a confirm run (hollow)" if adaptive else "")
            + (f"; no verdict, because {_why_undefined(rho)}." if rho.rho is None else ".")
        )
        drawings.append(
            Drawing(
                name=f"tradeoff-{slug(title)}-{one.other.name}",
                figure=drawn.scatter(one.points, k=one.k, x=COMPACT.label, y=one.other.label),
                alt=f"{title}: {one.other.label} against {COMPACT.label} of {len(one.points)} trials, "
                f"{int(one.points['front'].sum())} of them on the Pareto front"
                + (f"; Spearman ρ {rho.rho:+.2f}." if rho.rho is not None else "."),
                title=f"{one.other.label} against {COMPACT.label}",
            )
        )
    caption = f"{title}. {' '.join(notes)}"
    if drawings:
        caption += (
            " A point per trial at its last epoch, coloured by clusters used; line: the Pareto front of all that is "
            "drawn. ρ and the hypervolume are of the independent trials alone, their intervals of bootstrap resamples "
            f"of whole trials (seeds of one setting together; ρ of more than {bootstrap.LARGE} by its asymptotic "
            "error), each resample in its own box."
        )
    if found[0].collapsed:
        caption += f" Left out, because the Silhouette of one cluster is only a floor: {found[0].collapsed}."
    return Group(caption, tuple(drawings))


def _why_undefined(found: Correlation) -> str:
    return found.reason.replace("one of the two is constant", "one of the two is the same in every independent trial")


def _why_empty(panel: Study, found: Tradeoff) -> str:
    trials = panel.complete
    if trials.empty:
        return "no complete trial"
    if found.other.labels and values(trials, found.other.column).isna().all():
        return "no labels"
    if values(trials, "val/clusters_used").isna().all():
        return "clusters used, without which a score in p tells nothing, were not recorded"
    return "no complete trial with two clusters or more recorded both"
