"""When the temperature matters: what its end does to trainings that part early, and to those that part late."""

from __future__ import annotations

from collections.abc import Mapping

from analysis.columns import title
from analysis.figures import branches as figures
from analysis.questions.branches import PARENT, Effect, Panel, Partitions, Share, panels
from analysis.questions.effects import Plan
from analysis.section import Group, Section, Statement, Table, Value, slug
from analysis.sections.effects import numbers, verdict
from analysis.trials import Study

QUESTION = "Does an early temperature choose the partition, and a late one only sharpen it?"
CAPTION = (
    "{name}: what the highest τ_end does against the lowest, by how much of the ELBO phase (the part of the training "
    "after the warm-up) comes before the branch; the other settings, the seed and all that comes before are shared. "
    "Large marks: the primary outcome, with {level:.4g} % intervals. Small marks: with intervals that hold together at "
    "98 %. Crosses: no interval. Shaded: changes too small to matter."
)
AGREEMENT = (
    " Last: AMI between the final partitions of branches that leave one training at one point, mean over pairs; a line "
    "is a seed, and the mean has its 95 % t-interval. Branches with the same τ_end would have 1."
)


def section(study: Study, plans: Mapping[str, Plan], partitions: Partitions) -> Section | None:
    """The section; None for a study without branches.

    Args:
        study, plans, partitions: as `analysis.questions.branches.panels` has them.
    """
    found = panels(study, plans, partitions)
    if not found:
        return None
    statements: list[Statement] = []
    headline: list[str] = []
    parts: list[Group | Table] = []
    for panel in found:
        key = f"branches/{slug(panel.name)}"
        own = [_effect(f"{key}/{share.share:g}", panel, share) for share in panel.shares]
        later = _later(f"{key}/later", panel)
        headline += [own[0].name, *([own[-1].name] if len(own) > 1 else []), later.name]
        sharpened = [_sharpening(f"{key}/confidence", panel)] if panel.shares[-1].effect("val/confidence") else []
        statements += [*own, later, *sharpened, _decided(f"{key}/decided", panel)]
        caption = CAPTION.format(name=panel.name, level=100 * panel.level)
        caption += AGREEMENT if any(share.siblings for share in panel.shares) else ""
        parts += [Group(caption, (figures.draw(panel),), wide=True), _table(panel)]
    return Section(QUESTION, tuple(statements), tuple(parts), tuple(headline[:3]))


def _facts(panel: Panel, share: Share) -> dict[str, Value]:
    return {
        "panel": panel.name,
        "share": share.share,
        "epoch": share.epoch,
        "tau": share.tau,
        "from": share.tau_ends[0],
        "to": share.tau_ends[-1],
        "seeds": len(share.seeds),
    }


POINT = "{panel}: in branches that leave after {share:.0%} of the ELBO phase (epoch {epoch}, τ {tau:.2g}), "


def _effect(name: str, panel: Panel, share: Share) -> Statement:
    effect = share.effect(panel.outcome)
    words = _facts(panel, share) | {"outcome": title(panel.outcome)}
    text = POINT
    if effect is None or effect.contrast is None:
        why = effect.reason if effect else "no seed has a complete branch of every τ_end"
        text += "the effect of τ_end on {outcome} cannot be told: {why}."
        return Statement(name, text, words | {"why": why})
    text += (
        "a τ_end of {to:.2g} in place of {from:.2g} changes {outcome} by {value:+.3f} ({level:.4g} % interval "
        "{low:+.3f} to {high:+.3f}; paired over {seeds} seeds). "
    )
    return Statement(
        name, text + verdict(effect.contrast, fixed=panel.plan.fixed, unit="seeds"), words | numbers(effect.contrast)
    )


def _later(name: str, panel: Panel) -> Statement:
    """Whether siblings that part late end in more alike partitions than siblings that part early."""
    first, last = panel.shares[0], panel.shares[-1]
    words: dict[str, Value] = {"panel": panel.name, "first": first.share, "last": last.share}
    if first.agreement is None or last.agreement is None:
        why = "the clusters of too few seeds are stored"
        return Statement(name, "{panel}: how alike sibling branches end is not known: {why}.", words | {"why": why})
    for when, share in (("early", first.agreement), ("late", last.agreement)):
        words |= dict(zip((when, f"{when}_low", f"{when}_high"), share, strict=True))
    text = (
        "{panel}: the partitions of sibling branches agree with AMI {early:.3f} ({early_low:.3f} to {early_high:.3f})"
    )
    text += " where they part at share {first:.2g}"
    if last is first:
        return Statement(name, text + ".", words)
    text += " and {late:.3f} ({late_low:.3f} to {late_high:.3f}) at share {last:.2g}"
    if panel.later is None:
        return Statement(name, text + "; their difference cannot be told: {why}.", words | {"why": panel.reason})
    text += ": a change of {value:+.3f} ({level:.4g} % interval {low:+.3f} to {high:+.3f}). " + verdict(
        panel.later, fixed=panel.plan.fixed, unit="seeds"
    )
    return Statement(name, text, words | numbers(panel.later))


def _sharpening(name: str, panel: Panel) -> Statement:
    """What the last share's branches do to the confidence of q(y|x)."""
    share = panel.shares[-1]
    effect = share.effect("val/confidence")
    assert effect is not None
    words = _facts(panel, share) | {"outcome": title("val/confidence")}
    if effect.contrast is None:
        return Statement(
            name, POINT + "the effect of τ_end on {outcome} cannot be told: {why}.", words | {"why": effect.reason}
        )
    text = POINT + (
        "a τ_end of {to:.2g} in place of {from:.2g} changes the {outcome} of q(y|x) by {value:+.3f} ({level:.4g} % "
        "interval {low:+.3f} to {high:+.3f}). "
    )
    return Statement(
        name, text + verdict(effect.contrast, fixed=panel.plan.fixed, unit="seeds"), words | numbers(effect.contrast)
    )


def _decided(name: str, panel: Panel) -> Statement:
    words: dict[str, Value] = {
        "panel": panel.name,
        "decided": sum(share.decided for share in panel.shares),
        "trainings": sum(share.trainings for share in panel.shares),
    }
    text = (
        "{panel}: q(y|x) decided in {decided} of {trainings} branches; all of them enter, because whether it decides "
        "is itself what the temperature may do. A small difference early in a training grows: that siblings end apart "
        "says that τ_end moved them, not that it moved them further than another noise would have."
    )
    return Statement(name, text, words)


def _table(panel: Panel) -> Table:
    rows = []
    for share in panel.shares:
        agreement = share.agreement
        alike = "–" if agreement is None else "{:.3f} ({:.3f} to {:.3f})".format(*agreement)
        for effect in share.effects:
            ends = " / ".join(f"{end:.3g}" for end in share.tau_ends)
            rows.append((f"{share.share:g}", ends, title(effect.outcome), *_cells(effect), alike))
    parent = title(PARENT)
    return Table(
        f"{panel.name}: every contrast of the highest τ_end with the lowest, paired within seeds: mean difference with "
        f"a t-interval, Bonferroni's: those of {title(panel.outcome)} and of the siblings' change hold together at "
        "95 %, all others at 98 %. Detectable: the smallest effect whose interval excludes 0 in 80 % of cases. "
        f"{parent[0].upper()}{parent[1:]}: AMI of the final clusters with the training's own there. Siblings: AMI "
        "between the branches of one point, with its 95 % interval.",
        ("share", "τ_end", "outcome", "means", "change (interval)", "detectable", "verdict", "siblings"),
        tuple(rows),
    )


def _cells(effect: Effect) -> tuple[str, str, str, str]:
    means = " / ".join(f"{mean:.3f}" for mean in effect.means)
    if effect.contrast is None:
        return means, "–", "–", effect.reason
    contrast = effect.contrast
    change = f"{contrast.value:+.3f} ({contrast.low:+.3f} to {contrast.high:+.3f})"
    return means, change, f"{contrast.detectable:.3f}", contrast.verdict
