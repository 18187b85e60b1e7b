"""Whether one trial can be high in two scores at once, in words and figures."""

from __future__ import annotations

import numpy as np

from analysis.figures import tradeoff as drawn
from analysis.questions.tradeoff import AGAINST, COMPACT, Tradeoff, tradeoff
from analysis.section import Drawing, Group, Section, Statement, Value, slug
from analysis.stats.bootstrap import Correlation
from analysis.trials import Study, values


def section(study: Study) -> Section:
    """Builds the section on the trade-off of the paper's hypothesis, by corpus and K."""
    statements: list[Statement] = []
    parts: list[Group] = []
    headline: list[str] = []
    for title, panel in study.panels().items():
        tradeoffs = [tradeoff(panel, other) for other in AGAINST]
        made = [one for one in tradeoffs if len(one.points)]
        for one in made:
            name = f"tradeoff/{slug(title)}/{one.other.name}"
            if one.correlation.rho is not None:
                statements.append(_verdict(f"{name}/verdict", title, one))
                headline.append(f"{name}/verdict")
            if len(one.points) > 1 and np.ptp(one.points["compact"]) > 0:
                statements.append(_cost(f"{name}/cost", title, one))
        parts.append(_group(title, panel, tradeoffs))
    if not parts:
        parts.append(Group(f"The trade-off is not drawn, because {study.absent}."))
    title = "Can a trial have both high agreement with labels and high clustering scores?"
    return Section(title, tuple(statements), tuple(parts), tuple(headline))


def _verdict(name: str, title: str, result: Tradeoff) -> Statement:
    rho = result.correlation
    facts: dict[str, Value] = {
        "panel": title,
        "compact": COMPACT.label,
        "other": result.other.label,
        "verdict": result.verdict,
        "n": rho.n,
        **_interval("rho", rho),
    }
    text = (
        "{panel}, {compact} against {other}: {verdict} (Spearman ρ = {rho:+.2f}, 95 % interval {rho_low:+.2f} to "
        "{rho_high:+.2f}, n = {n} trials of designed arms{seeds}). "
    )
    facts["seeds"] = ", relative to the mean of their seed" if result.within else ""
    if result.spread.n < rho.n and result.spread.rho is not None:
        text += (
            "Among the {spread_n} trials that use at least half of the {k} clusters, ρ = {spread:+.2f} "
            "({spread_low:+.2f} to {spread_high:+.2f}). "
        )
        facts |= {"spread_n": result.spread.n, "k": result.k, **_interval("spread", result.spread)}
    if result.volume is not None:
        text += (
            "The Pareto front covers {volume:.0%} ({volume_low:.0%} to {volume_high:.0%}) of the box between the worst "
            "and the best value of each score; 100 % means that one trial is best in both."
        )
        facts |= dict(zip(("volume", "volume_low", "volume_high"), result.volume, strict=True))
    return Statement(name, text.strip(), facts)


def _interval(name: str, correlation: Correlation) -> dict[str, Value]:
    """Returns NAME, NAME_low and NAME_high, as far as they exist."""
    numbers = {name: correlation.rho, f"{name}_low": correlation.low, f"{name}_high": correlation.high}
    return {key: value for key, value in numbers.items() if value is not None}


def _cost(name: str, title: str, result: Tradeoff) -> Statement:
    """States how much the trial with the best Silhouette_p loses in the other score."""
    points = result.points.sort_values("clusters_used", ascending=False, kind="stable")  # breaks ties by clusters used
    chosen, best = points.iloc[points["compact"].argmax()], points.iloc[points["other"].argmax()]
    return Statement(
        name,
        "{panel}: the trial with the best {compact} ({chosen_compact:.3f}, {chosen_clusters} of {k} clusters used) has "
        "{other} {chosen_other:.3f}. The best {other} is {best_other:.3f} ({best_clusters} clusters used, {compact} "
        "{best_compact:.3f}): choosing by {compact} loses {loss:.3f} (n = {n} complete trials).",
        {
            "panel": title,
            "compact": COMPACT.label,
            "other": result.other.label,
            "k": result.k,
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


def _group(title: str, panel: Study, tradeoffs: list[Tradeoff]) -> Group:
    drawings, notes = [], []
    for one in tradeoffs:
        if one.points.empty:
            notes.append(f"{one.other.label} is not drawn: {_why_empty(panel, one)}.")
            continue
        rho, adaptive = one.correlation, int((~one.points["independent"]).sum())
        notes.append(
            f"{one.other.label}: {len(one.points)} complete trials"
            + (f", {adaptive} of them from TPE or a confirm run (hollow)" if adaptive else "")
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
            " One point per trial at its last epoch, coloured by clusters used; line: the Pareto front of all points. "
            "ρ and the hypervolume use only trials of designed arms. Their intervals come from bootstrap resamples of "
            "whole trials (seeds of one setting together); each resample has its own box."
        )
    if tradeoffs[0].collapsed:
        caption += f" Left out, because the Silhouette of one cluster is only a lower bound: {tradeoffs[0].collapsed}."
    return Group(caption, tuple(drawings))


def _why_undefined(correlation: Correlation) -> str:
    return correlation.reason.replace("one of the two is constant", "one score is the same in every independent trial")


def _why_empty(panel: Study, result: Tradeoff) -> str:
    trials = panel.complete
    if trials.empty:
        return "no complete trial"
    if result.other.labels and values(trials, result.other.column).isna().all():
        return "no labels"
    if values(trials, "val/clusters_used").isna().all():
        return "clusters used, without which a score in p means nothing, were not recorded"
    return "no complete trial with two or more clusters has recorded both"
