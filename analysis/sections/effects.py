"""The first screen: what the temperature does, how sure that is, and how large seeds are beside it."""

from __future__ import annotations

from collections.abc import Mapping

from analysis.columns import title
from analysis.figures import forest
from analysis.questions.effects import DECIDED, DECIDED_MARGIN, FAMILY, Effect, Panel, Plan, Pooled, panels, pooled
from analysis.section import Group, Section, Statement, Table, Value, slug
from analysis.stats.equivalence import POWER, Contrast
from analysis.trials import Study
from catuvac.experiments.search_space import FACTORS

QUESTION = "What does the temperature do, with everything else held?"
MEANING = {
    "tau_start": "the Gumbel-Softmax temperature when the annealing begins",
    "tau_ratio": "how far the temperature falls; 1 is a constant temperature",
}


def section(study: Study, plans: Mapping[str, Plan]) -> Section:
    """At most three sentences and one figure open the page; a table has all contrasts."""
    found = panels(study, plans)
    if not found:
        why = "No trial of Cat. UVAC has been recorded, so there is no temperature to study."
        return Section(QUESTION, (Statement("effects/none", why),), (Group(why),), ("effects/none",))
    statements, headline, mattering = [], [], []
    together = pooled(found)
    if together is not None:
        statements += [_pooled(found, together), _all_seeds(found)]
    for panel in found:
        key = f"effects/{slug(panel.name)}"
        own = [_effect(f"{key}/{e.factor}", e, panel) for e in panel.effects if e.outcome == panel.primary.outcome]
        own.sort(key=lambda statement: not statement.name.endswith(panel.plan.factor))
        own.append(_seeds(f"{key}/seeds", panel))
        statements += own
        if len(panel.plan.grown) > 1:
            statements.append(_extended(f"{key}/extended", panel))
        # The primary contrasts have no interval that is corrected for the number of corpora; their summary needs none.
        secondary = [each for each in own if not each.name.endswith(panel.plan.factor)]
        mattering += [each.name for each in secondary if each.values.get("verdict") == "matters"]
        if len(found) == 1:
            headline += [each.name for each in own]
    if together is not None:
        headline = ["effects/pooled", *mattering[:2], "effects/seeds"][:3]
    elif len(found) > 1:
        headline += [f"effects/{slug(panel.name)}/{panel.plan.factor}" for panel in found[:3]]
    parts: list[Group | Table] = []
    if any(effect.found for panel in found for effect in panel.effects):
        parts.append(Group(CAPTION, (forest.forest(found, name="effects"),), wide=True))
        parts.append(_table(found))
    return Section(QUESTION, tuple(statements), tuple(parts), tuple(headline))


def numbers(contrast: Contrast) -> dict[str, Value]:
    """Every number of a contrast that a sentence may need."""
    found: dict[str, Value] = {
        "value": contrast.value,
        "low": contrast.low,
        "high": contrast.high,
        "level": 100 * contrast.level,
        "margin": contrast.margin,
        "p": contrast.p,
        "detectable": contrast.detectable,
        "verdict": contrast.verdict,
        "n": contrast.n,
        "power": POWER,
    }
    if contrast.more is not None:
        found["more"] = contrast.more
    return found


def verdict(contrast: Contrast, *, fixed: bool, unit: str = "settings") -> str:
    """The format of the words that follow an estimate and its interval; `unit` is what the contrast's n counts."""
    margin = "the margin of {margin:.3g}" + (" that was fixed beforehand" if fixed else "")
    found = " The smallest effect that this design finds in {power:.0%} of cases is {detectable:.3f}."
    match contrast.verdict:
        case "matters":
            return f"It matters: the interval excludes 0 and reaches beyond {margin}."
        case "negligible":
            return f"It is negligible: the whole interval lies within {margin}.{found}"
    if contrast.more is None:
        return f"This is not decided, and far more {unit} than these {{n}} would be needed.{found}"
    more = unit.removesuffix("s") if contrast.more == 1 else unit
    return (
        f"This is not decided: about {{more}} more {more} would decide it against {margin}, if estimate and noise "
        f"stay.{found}"
    )


def _effect(name: str, effect: Effect, panel: Panel) -> Statement:
    words: dict[str, Value] = {
        "panel": effect.panel,
        "factor": title(effect.factor),
        "meaning": MEANING[effect.factor],
        "outcome": title(effect.outcome),
    }
    if effect.found is None:
        text = "{panel}: the effect of {factor} on {outcome} cannot be estimated, because {reason}."
        return Statement(name, text, words | {"reason": effect.reason})
    found = effect.found
    words |= numbers(found.contrast) | {
        "from": found.low,
        "to": found.high,
        "settings": found.settings,
        "rows": found.rows,
    }
    text = (
        "{panel}: with everything else held, raising {factor} ({meaning}) from {from:.2g} to {to:.2g} changes "
        "{outcome} by {value:+.3f} ({level:.4g} % interval {low:+.3f} to {high:+.3f}; {rows} trainings of {settings} "
        "settings). "
    )
    text += verdict(found.contrast, fixed=panel.plan.fixed)
    if found.curved is not None and found.curved.excludes_zero:
        words |= {"bend": found.curved.value, "bend_low": found.curved.low, "bend_high": found.curved.high}
        words["bend_level"] = 100 * found.curved.level
        text += (
            " The effect is not straight: the middle of the range lies {bend:+.3f} ({bend_level:.4g} % interval "
            "{bend_low:+.3f} to {bend_high:+.3f}) above the mean of its ends."
        )
    for crossing in found.crossings:
        if crossing.contrast.excludes_zero:
            key, more = crossing.other.rpartition("/")[2], crossing.contrast
            words |= {f"{key}_from": crossing.low, f"{key}_to": crossing.high, f"{key}_level": 100 * more.level}
            words |= {f"{key}_more": more.value, f"{key}_more_low": more.low, f"{key}_more_high": more.high}
            text += (
                f" The effect depends on {title(crossing.other)}: it is larger by {{{key}_more:+.3f}} "
                f"({{{key}_level:.4g}} % interval {{{key}_more_low:+.3f}} to {{{key}_more_high:+.3f}}) at "
                f"{{{key}_to:.2g}} than at {{{key}_from:.2g}}, so that its mean describes neither."
            )
    return Statement(name, text, words)


def _seeds(name: str, panel: Panel) -> Statement:
    words: dict[str, Value] = {"panel": panel.name, "outcome": title(panel.primary.outcome)}
    text = "{panel}: "
    if panel.decided is None:
        return Statement(name, text + "no trial of a designed arm (random, QMC, grid or factorial) is complete.", words)
    words |= {
        "decided": panel.decided.count,
        "trials": panel.decided.n,
        "decided_low": panel.decided.low,
        "decided_high": panel.decided.high,
    }
    if panel.seed_sd is None:
        text += "no setting was trained on two seeds, so the seeds' share is not known; "
    else:
        words["seed_sd"] = panel.seed_sd
        text += "another seed moves {outcome} by {seed_sd:.3f} (standard deviation within a setting); "
    text += (
        "q(y|x) decided in {decided} of {trials} trainings ({decided_low:.0%} to {decided_high:.0%}), and all of the "
        "above is of those."
    )
    for effect in panel.effects:
        if effect.outcome == DECIDED and effect.found and effect.found.contrast.verdict == "matters":
            found, key = effect.found, effect.factor
            words |= {f"{key}_{name}": value for name, value in numbers(found.contrast).items()}
            words |= {f"{key}_from": found.low, f"{key}_to": found.high}
            text += (
                f" Raising {title(key)} from {{{key}_from:.2g}} to {{{key}_to:.2g}} changes that share by "
                f"{{{key}_value:+.2f}} ({{{key}_level:.4g}} % interval {{{key}_low:+.2f}} to {{{key}_high:+.2f}})."
            )
    if panel.without_temperature:
        words["exact"] = panel.without_temperature
        text += ' {exact} trainings with the estimator "exact", which reads no temperature, are left out.'
    return Statement(name, text, words)


def _extended(name: str, panel: Panel) -> Statement:
    first, *_, last = panel.plan.grown
    text = (
        "{panel}: the study was started with {first} trials and extended to {last} in {times} step(s). The intervals "
        "take no account of that: where it was extended because of what the first trials showed, they are too narrow."
    )
    words: dict[str, Value] = {"panel": panel.name, "first": first, "last": last, "times": len(panel.plan.grown) - 1}
    return Statement(name, text, words)


def _pooled(found: tuple[Panel, ...], together: Pooled) -> Statement:
    words = numbers(together.contrast) | {
        "factor": title(found[0].plan.factor),
        "outcome": title(found[0].primary.outcome),
        "panels": together.panels,
        "heterogeneity": together.heterogeneity_p,
        "each": "; ".join(
            f"{p.name.split(',')[0]} {p.primary.found.contrast.value:+.3f}" for p in found if p.primary.found
        ),
    }
    differ = together.heterogeneity_p < FAMILY
    text = (
        "Over {panels} corpora, raising {factor} changes {outcome} by {value:+.3f} (95 % interval {low:+.3f} to "
        "{high:+.3f}, fixed effects; {each}). "
    )
    text += (
        "The corpora differ (Welch's test, p = {heterogeneity:.2g}), so this mean describes none of them."
        if differ
        else verdict(together.contrast, fixed=all(panel.plan.fixed for panel in found))
        + " The corpora do not differ beyond chance (Welch's test, p = {heterogeneity:.2g})."
    )
    return Statement("effects/pooled", text, words)


def _all_seeds(found: tuple[Panel, ...]) -> Statement:
    """One sentence on what stands beside the pooled effect."""
    words: dict[str, Value] = {
        "outcome": title(found[0].primary.outcome),
        "decided": sum(panel.decided.count for panel in found if panel.decided),
        "trials": sum(panel.decided.n for panel in found if panel.decided),
        "each": "; ".join(f"{p.name.split(',')[0]} {p.seed_sd:.3f}" for p in found if p.seed_sd is not None),
    }
    seeds = "another seed moves {outcome} by (standard deviation within a setting): {each}." if words["each"] else ""
    text = "q(y|x) decided in {decided} of {trials} trainings, and all of the above is of those"
    return Statement("effects/seeds", f"{text}; {seeds}" if seeds else f"{text}.", words)


CAPTION = (
    "Change of each outcome over each temperature's range, all other settings held. Large mark: the contrast that the "
    "study was made for, with its 95 % interval. Small marks: with intervals corrected for their number. Shaded: "
    "changes too small to matter. Silhouette (x) is scored in the features, Silhouette (p) in the probabilities, where "
    "saturation alone raises it. The intervals are over settings and seeds; the validation clips are the same in all "
    "trainings of a seed and are not drawn anew, so that what they hold for is clips like these."
)


def _table(found: tuple[Panel, ...]) -> Table:
    rows = []
    for panel in found:
        for effect in panel.effects:
            own = (panel.name, title(effect.factor), title(effect.outcome))
            if effect.found is None:
                rows.append((*own, "–", "–", "–", "–", effect.reason))
                continue
            found_ = effect.found
            ends = f"{found_.low:.2g} → {found_.high:.2g}"
            rows.append((*own, ends, *_cells(found_.contrast, f"{found_.joint_p:.2g}", primary=effect.primary)))
            if effect.outcome != panel.primary.outcome:
                continue
            corpus, temperature, outcome = own
            if found_.curved:
                rows.append((corpus, f"{temperature}, bend", outcome, ends, *_cells(found_.curved)))
            for crossing in found_.crossings:
                if (crossing.other, effect.factor) != FACTORS:  # the product of both is one contrast
                    across = f"{crossing.low:.2g} → {crossing.high:.2g}"
                    crossed = f"{temperature} × {title(crossing.other)}"
                    rows.append((corpus, crossed, outcome, across, *_cells(crossing.contrast)))
    terms: tuple[str, ...] = max((e.found.terms for p in found for e in p.effects if e.found), key=len, default=())
    return Table(
        "Every contrast: from the lowest to the highest level of a factorial, else from the 10 % to the 90 % quantile. "
        "All intervals but the primary one are Bonferroni's, so that each agrees with its verdict; the margin for "
        f"clusters used is that share of K, for the share of trainings that decide {DECIDED_MARGIN:g}. Bend: how far "
        "the middle lies above the mean of the ends; ×: how much more the temperature does at the high end of the "
        "other setting than at the low one. Joint p: of no effect at all, straight or curved. Detectable: the "
        f"smallest effect whose interval excludes 0 in {POWER:.0%} of cases. Least squares over settings, seeds "
        "averaged and their blocks taken out, HC2 errors with Bell and McCaffrey's degrees of freedom, on the "
        "logarithms of: "
        f"{', '.join(terms)}.",
        ("corpus", "temperature", "outcome", "from → to", "change (interval)", "joint p", "detectable", "verdict"),
        tuple(rows),
    )


def _cells(contrast: Contrast, joint_p: str = "", *, primary: bool = False) -> tuple[str, str, str, str]:
    """Change with interval, joint p, detectable effect and verdict."""
    return (
        f"{contrast.value:+.3f} ({contrast.low:+.3f} to {contrast.high:+.3f})",
        joint_p,
        f"{contrast.detectable:.3f}",
        contrast.verdict + (", primary" if primary else ""),
    )
