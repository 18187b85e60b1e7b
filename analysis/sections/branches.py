"""When the temperature matters: the effect of τ_end on branches that leave a training run early and late."""

from __future__ import annotations

from collections.abc import Mapping

from analysis.columns import title
from analysis.figures import branches as figures
from analysis.questions.branches import PARENT, Effect, Panel, Partitions, Share, panels
from analysis.questions.effects import Plan
from analysis.section import Group, Section, Statement, Table, Value, slug
from analysis.sections.effects import numbers, verdict
from analysis.trials import Study

QUESTION = "Does the early temperature determine the partition, and the late temperature only sharpen it?"
CAPTION = (
    "{name}: effect of the highest τ_end relative to the lowest, by the share of the ELBO phase (the part of the "
    "training after the warm-up) before the branch point; branches share the other settings, the seed and all earlier "
    "steps. Large marks: the primary outcome, with {level:.4g} % intervals. Small marks: the others, with a joint "
    "interval level of 98 %. Crosses: no interval. Shaded: changes too small to matter."
)
AGREEMENT = (
    " Last panel: AMI between the final partitions of branches that leave one training run at the same point, averaged "
    "over pairs; each line is a seed, and the mean has its 95 % t-interval. Branches with equal τ_end would have 1."
)


def section(study: Study, plans: Mapping[str, Plan], partitions: Partitions) -> Section | None:
    """Builds the section; None for a study without branches.

    Args:
        study, plans, partitions: as for `analysis.questions.branches.panels`.
    """
    all_panels = panels(study, plans, partitions)
    if not all_panels:
        return None
    statements: list[Statement] = []
    headline: list[str] = []
    parts: list[Group | Table] = []
    for panel in all_panels:
        key = f"branches/{slug(panel.name)}"
        effects = [_effect(f"{key}/{share.share:g}", panel, share) for share in panel.shares]
        later = _later(f"{key}/later", panel)
        headline += [effects[0].name, *([effects[-1].name] if len(effects) > 1 else []), later.name]
        sharpened = [_sharpening(f"{key}/confidence", panel)] if panel.shares[-1].effect("val/confidence") else []
        statements += [*effects, later, *sharpened, _decided(f"{key}/decided", panel)]
        caption = CAPTION.format(name=panel.name, level=100 * panel.level)
        caption += AGREEMENT if any(share.siblings for share in panel.shares) else ""
        drawn = any(share.effects or share.siblings for share in panel.shares)
        parts += [*([Group(caption, (figures.draw(panel),), wide=True)] if drawn else []), _table(panel)]
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


POINT = "{panel}: for branches that start after {share:.0%} of the ELBO phase (epoch {epoch}, τ {tau:.2g}), "


def _effect(name: str, panel: Panel, share: Share) -> Statement:
    effect = share.effect(panel.outcome)
    words = _facts(panel, share) | {"outcome": title(panel.outcome)}
    text = POINT
    if effect is None or effect.contrast is None:
        why = effect.reason if effect else "no seed has a complete branch of every τ_end"
        text += "the effect of τ_end on {outcome} cannot be estimated: {why}."
        return Statement(name, text, words | {"why": why})
    text += (
        "a τ_end of {to:.2g} instead of {from:.2g} changes {outcome} by {value:+.3f} ({level:.4g} % interval "
        "{low:+.3f} to {high:+.3f}; paired over {seeds} seeds). "
    )
    return Statement(name, text + verdict(effect.contrast, fixed=panel.plan.fixed), words | numbers(effect.contrast))


def _later(name: str, panel: Panel) -> Statement:
    """States whether siblings that separate late end in more similar partitions than those that separate early."""
    first, last = panel.shares[0], panel.shares[-1]
    words: dict[str, Value] = {"panel": panel.name, "first": first.share, "last": last.share}
    if first.agreement is None or last.agreement is None:
        why = "the clusters of too few seeds are stored"
        text = "{panel}: how similar the final partitions of sibling branches are is not known: {why}."
        return Statement(name, text, words | {"why": why})
    for when, share in (("early", first.agreement), ("late", last.agreement)):
        words |= dict(zip((when, f"{when}_low", f"{when}_high"), share, strict=True))
    text = "{panel}: partitions of sibling branches have an AMI of {early:.3f} ({early_low:.3f} to {early_high:.3f})"
    text += " if they separate after {first:.0%} of the ELBO phase"
    if last is first:
        return Statement(name, text + ".", words)
    text += " and {late:.3f} ({late_low:.3f} to {late_high:.3f}) after {last:.0%}"
    if panel.later is None:
        return Statement(name, text + "; the difference cannot be estimated: {why}.", words | {"why": panel.reason})
    text += ": a change of {value:+.3f} ({level:.4g} % interval {low:+.3f} to {high:+.3f}). "
    text += verdict(panel.later, fixed=panel.plan.fixed)
    return Statement(name, text, words | numbers(panel.later))


def _sharpening(name: str, panel: Panel) -> Statement:
    """States how τ_end changes the confidence of q(y|x) in the latest branches."""
    share = panel.shares[-1]
    effect = share.effect("val/confidence")
    assert effect is not None
    words = _facts(panel, share) | {"outcome": title("val/confidence")}
    if effect.contrast is None:
        return Statement(
            name, POINT + "the effect of τ_end on {outcome} cannot be estimated: {why}.", words | {"why": effect.reason}
        )
    text = POINT + (
        "a τ_end of {to:.2g} instead of {from:.2g} changes the {outcome} of q(y|x) by {value:+.3f} ({level:.4g} % "
        "interval {low:+.3f} to {high:+.3f}). "
    )
    return Statement(name, text + verdict(effect.contrast, fixed=panel.plan.fixed), words | numbers(effect.contrast))


def _decided(name: str, panel: Panel) -> Statement:
    words: dict[str, Value] = {
        "panel": panel.name,
        "decided": sum(share.decided for share in panel.shares),
        "trainings": sum(share.trainings for share in panel.shares),
    }
    text = (
        "{panel}: q(y|x) decided in {decided} of {trainings} branches; all of them are used, because the temperature "
        "may itself affect whether it decides. Small differences early in training grow: if siblings end in different "
        "partitions, τ_end moved them, but not necessarily further than different noise would have."
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
        f"a t-interval. Bonferroni correction: intervals of {title(panel.outcome)} and of the siblings' change have a "
        "joint level of 95 %, all others of 98 %. Detectable: the smallest effect whose interval excludes 0 in 80 % "
        f"of cases. {parent[0].upper()}{parent[1:]}: AMI of the final clusters with those at the branch point. "
        "Siblings: AMI between the branches of one point, with its 95 % interval.",
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
