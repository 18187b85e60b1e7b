"""The first screen: the effect of the temperature, its uncertainty, and the variation between seeds."""

from __future__ import annotations

from collections.abc import Mapping

from analysis.columns import title
from analysis.figures import forest
from analysis.questions.effects import (
    DECIDED,
    DECIDED_MARGIN,
    FAMILY,
    Effect,
    Panel,
    Plan,
    Pooled,
    by_short_name,
    panels,
    pooled,
)
from analysis.section import Group, Section, Statement, Table, Value, slug
from analysis.stats.adjusted import SEEDS
from analysis.stats.equivalence import POWER, Contrast
from analysis.trials import Study
from catuvac.experiments.search_space import FACTORS

QUESTION = "What does the temperature do, with everything else held fixed?"
MEANING = {
    "tau_start": "the Gumbel-Softmax temperature at the start of annealing",
    "tau_ratio": "the last temperature relative to the first; 1 is a constant temperature",
}


def section(study: Study, plans: Mapping[str, Plan]) -> Section:
    """Opens the page with at most three sentences and one figure; a table lists all contrasts."""
    all_panels = panels(study, plans)
    if not all_panels:
        why = "No trial of Cat. UVAC has been recorded, so there is no temperature to study."
        return Section(QUESTION, (Statement("effects/none", why),), (Group(why),), ("effects/none",))
    statements, headline, mattering = [], [], []
    together = pooled(all_panels)
    if together is not None:
        statements += [_pooled(all_panels, together), _all_seeds(all_panels)]
    for panel in all_panels:
        key = f"effects/{slug(panel.name)}"
        claims = [_effect(f"{key}/{e.factor}", e, panel) for e in panel.effects if e.outcome == panel.primary.outcome]
        claims.sort(key=lambda statement: not statement.name.endswith(panel.plan.factor))
        claims.append(_seeds(f"{key}/seeds", panel))
        statements += claims
        if len(panel.plan.grown) > 1:
            statements.append(_extended(f"{key}/extended", panel))
        # Intervals of the primary contrasts are not corrected for the number of corpora; the pooled one needs none.
        secondary = [claim for claim in claims if not claim.name.endswith(panel.plan.factor)]
        mattering += [claim.name for claim in secondary if claim.values.get("verdict") == "matters"]
        if len(all_panels) == 1:
            # Without an estimate, the page opens with how few trainings decided, which is usually why.
            *effects, seeds = (claim.name for claim in claims)
            headline += [*effects, seeds] if panel.primary.found else [seeds, *effects]
    if together is not None:
        headline = ["effects/pooled", *mattering[:2], "effects/seeds"][:3]
    elif len(all_panels) > 1:
        headline += [f"effects/{slug(panel.name)}/{panel.plan.factor}" for panel in all_panels[:3]]
    parts: list[Group | Table] = []
    if any(effect.found for panel in all_panels for effect in panel.effects):
        parts.append(Group(CAPTION, (forest.forest(all_panels, name="effects"),), wide=True))
        parts.append(_table(all_panels))
    return Section(QUESTION, tuple(statements), tuple(parts), tuple(headline))


def numbers(contrast: Contrast) -> dict[str, Value]:
    """Returns every number of a contrast that a sentence may quote."""
    facts: dict[str, Value] = {
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
        facts["more"] = contrast.more
    return facts


def verdict(contrast: Contrast, *, fixed: bool) -> str:
    """Returns the format of the verdict that follows an estimate."""
    unit = contrast.unit
    margin = "the margin of {margin:.3g}" + (" that was fixed beforehand" if fixed else "")
    detectable = " The smallest effect that this design detects in {power:.0%} of cases is {detectable:.3f}."
    match contrast.verdict:
        case "matters":
            return f"It matters: the interval excludes 0 and extends beyond {margin}."
        case "negligible":
            return f"It is negligible: the whole interval is within {margin}.{detectable}"
    if contrast.more is None:
        return f"This is not decided; a decision would take far more than these {{n}} {unit}.{detectable}"
    more = unit.removesuffix("s") if contrast.more == 1 else unit
    return (
        f"This is not decided: about {{more}} more {more} would decide it against {margin}, if the estimate and the "
        f"noise stay the same.{detectable}"
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
    estimate = effect.found
    words |= numbers(estimate.contrast) | {
        "from": estimate.low,
        "to": estimate.high,
        "settings": estimate.settings,
        "rows": estimate.rows,
    }
    held = "{panel}: with everything else held fixed, "
    if estimate.left_out:
        words["left_out"] = ", ".join(map(title, estimate.left_out))
        held = "{panel}: with everything else held fixed except {left_out}, for which the settings are too few, "
    text = held + (
        "raising {factor} ({meaning}) from {from:.2g} to {to:.2g} changes "
        "{outcome} by {value:+.3f} ({level:.4g} % interval {low:+.3f} to {high:+.3f}; {rows} training runs of "
        "{settings} settings). "
    )
    text += verdict(estimate.contrast, fixed=panel.plan.fixed)
    if estimate.curved is not None and estimate.curved.excludes_zero:
        words |= {"bend": estimate.curved.value, "bend_low": estimate.curved.low, "bend_high": estimate.curved.high}
        words["bend_level"] = 100 * estimate.curved.level
        text += (
            " The effect is not linear: relative to the mean of both ends, the middle of the range is at {bend:+.3f} "
            "({bend_level:.4g} % interval {bend_low:+.3f} to {bend_high:+.3f})."
        )
    for crossing in estimate.crossings:
        if crossing.contrast.excludes_zero:
            key, more = crossing.other.rpartition("/")[2], crossing.contrast
            words |= {f"{key}_from": crossing.low, f"{key}_to": crossing.high, f"{key}_level": 100 * more.level}
            words |= {f"{key}_more": more.value, f"{key}_more_low": more.low, f"{key}_more_high": more.high}
            text += (
                f" The effect depends on {title(crossing.other)}: between {{{key}_from:.2g}} and {{{key}_to:.2g}} it "
                f"changes by {{{key}_more:+.3f}} ({{{key}_level:.4g}} % interval {{{key}_more_low:+.3f}} to "
                f"{{{key}_more_high:+.3f}}), so its mean describes neither end."
            )
    return Statement(name, text, words)


def _seeds(name: str, panel: Panel) -> Statement:
    words: dict[str, Value] = {"panel": panel.name, "outcome": title(panel.primary.outcome)}
    text = "{panel}: "
    exact = other = ""
    if panel.without_temperature:
        words["exact"], other = panel.without_temperature, "other "
        exact = ' {exact} training runs with the estimator "exact", which uses no temperature, are left out.'
    if panel.decided is None:
        text += f"no {other}trial of a designed arm (random, QMC, grid or factorial) is complete."
        return Statement(name, text + exact, words)
    words |= {
        "decided": panel.decided.count,
        "trials": panel.decided.n,
        "decided_low": panel.decided.low,
        "decided_high": panel.decided.high,
    }
    if panel.primary.found and panel.seed_sd is None:
        text += "no setting was trained on two seeds, so the variation between seeds is not known; "
    elif panel.seed_sd is not None:
        words["seed_sd"] = panel.seed_sd
        text += "another seed moves {outcome} by {seed_sd:.3f} (standard deviation within a setting); "
    text += "q(y|x) decided in {decided} of {trials} training runs ({decided_low:.0%} to {decided_high:.0%})"
    text += ", and the effects on all scores are based on those." if panel.decided.count else "."
    if panel.primary.found and panel.primary.found.by_seed:
        words |= {"factor": title(panel.plan.factor), "seeds": len(panel.primary.found.by_seed)}
        words["by_seed"] = ", ".join(f"{value:+.3f}" for value in sorted(panel.primary.found.by_seed))
        if len(panel.primary.found.by_seed) == 1:
            text += " All settings were trained on one seed, and the intervals hold for it alone."
        else:
            text += " On the {seeds} seeds, the effect of {factor} is {by_seed}"
            text += "." if len(panel.primary.found.by_seed) >= SEEDS else "; the intervals hold for these seeds alone."
    for effect in panel.effects:
        if effect.outcome == DECIDED and effect.found and effect.found.contrast.verdict == "matters":
            estimate, key = effect.found, effect.factor
            words |= {f"{key}_{name}": value for name, value in numbers(estimate.contrast).items()}
            words |= {f"{key}_from": estimate.low, f"{key}_to": estimate.high}
            text += (
                f" Raising {title(key)} from {{{key}_from:.2g}} to {{{key}_to:.2g}} changes that share by "
                f"{{{key}_value:+.2f}} ({{{key}_level:.4g}} % interval {{{key}_low:+.2f}} to {{{key}_high:+.2f}})."
            )
    return Statement(name, text + exact, words)


def _extended(name: str, panel: Panel) -> Statement:
    first, *_, last = panel.plan.grown
    text = (
        "{panel}: the study was started with {first} trials and extended to {last} in {times} step(s). The intervals "
        "do not account for that: if the results of the first trials led to the extension, they are too narrow."
    )
    words: dict[str, Value] = {"panel": panel.name, "first": first, "last": last, "times": len(panel.plan.grown) - 1}
    return Statement(name, text, words)


def _pooled(all_panels: tuple[Panel, ...], together: Pooled) -> Statement:
    first = next(panel for panel in all_panels if panel.primary.found)
    words = numbers(together.contrast) | {
        "factor": title(first.primary.factor),
        "outcome": title(first.primary.outcome),
        "panels": together.panels,
        "heterogeneity": together.heterogeneity_p,
        "family": FAMILY,
        "each": "; ".join(
            f"{name} {found.contrast.value:+.3f} from {found.low:.2g} to {found.high:.2g}"
            for name, p in by_short_name(all_panels).items()
            if (found := p.primary.found)
        ),
    }
    differ = together.heterogeneity_p < FAMILY
    kind = "panels" if all_panels[0].name in by_short_name(all_panels) else "corpora"
    text = (
        f"Across {{panels}} {kind}, "
        "raising {factor} changes {outcome} by {value:+.3f} (95 % interval {low:+.3f} to "
        "{high:+.3f}, fixed effects; {each}). "
    )
    text += (
        "They differ (Welch's test, p = {heterogeneity:.2g}), so this mean describes none of them."
        if differ
        else verdict(together.contrast, fixed=all(panel.plan.fixed for panel in all_panels))
        + " That they differ is not established (Welch's test, p = {heterogeneity:.2g}; a secondary claim needs "
        "{family:.0%})."
    )
    return Statement("effects/pooled", text, words)


def _all_seeds(all_panels: tuple[Panel, ...]) -> Statement:
    """States what the pooled effect is based on and how far seeds vary."""
    words: dict[str, Value] = {
        "outcome": title(next(p.primary.outcome for p in all_panels if p.primary.found)),
        "decided": sum(panel.decided.count for panel in all_panels if panel.decided),
        "trials": sum(panel.decided.n for panel in all_panels if panel.decided),
        "each": "; ".join(
            f"{name} {p.seed_sd:.3f}" for name, p in by_short_name(all_panels).items() if p.seed_sd is not None
        ),
    }
    seeds = "another seed moves {outcome} by (standard deviation within a setting): {each}." if words["each"] else ""
    text = "q(y|x) decided in {decided} of {trials} training runs, and the effects on all scores are based on those"
    return Statement("effects/seeds", f"{text}; {seeds}" if seeds else f"{text}.", words)


CAPTION = (
    "Change of each outcome over the range of each temperature, with all other settings held fixed. Large marks: the "
    "primary contrast with its 95 % interval. Small marks: the other contrasts, with intervals corrected for their "
    "number. Shaded: changes too small to matter. Silhouette (x) is computed on the features, Silhouette (p) on the "
    "probabilities, where saturation alone raises it. The intervals cover settings, and seeds where at least "
    f"{SEEDS} of them have the same settings. All training runs of a seed share its validation clips, which are not "
    "resampled, so the intervals apply to clips like these."
)


def _table(all_panels: tuple[Panel, ...]) -> Table:
    rows = []
    for panel in all_panels:
        for effect in panel.effects:
            corpus, temperature, outcome = panel.name, title(effect.factor), title(effect.outcome)
            adjusted = effect.found
            if adjusted is None:
                rows.append((corpus, temperature, outcome, "–", "–", "–", "–", effect.reason))
                continue
            ends = f"{adjusted.low:.2g} → {adjusted.high:.2g}"
            cells = _cells(adjusted.contrast, f"{adjusted.joint_p:.2g}", primary=effect.primary)
            rows.append((corpus, temperature, outcome, ends, *cells))
            if effect.outcome != panel.primary.outcome:
                continue
            if adjusted.curved:
                rows.append((corpus, f"{temperature}, bend", outcome, ends, *_cells(adjusted.curved)))
            for crossing in adjusted.crossings:
                if (crossing.other, effect.factor) != FACTORS:  # the product of both is one contrast
                    across = f"{crossing.low:.2g} → {crossing.high:.2g}"
                    crossed = f"{temperature} × {title(crossing.other)}"
                    rows.append((corpus, crossed, outcome, across, *_cells(crossing.contrast)))
    terms: tuple[str, ...] = max((e.found.terms for p in all_panels for e in p.effects if e.found), key=len, default=())
    return Table(
        "Every contrast: from the lowest to the highest level of a factorial, otherwise from the 10 % to the 90 % "
        "quantile. All intervals but the primary one are Bonferroni-corrected, so that each agrees with its verdict. "
        "The margin for clusters used is the same share of K; for the share of training runs that decide it is "
        f"{DECIDED_MARGIN:g}. Bend: how far the middle is above the mean of the ends. ×: how much larger the effect of "
        "the temperature is at the high end of the other setting than at the low end. Joint p: of no effect at all, "
        "linear or curved, on these seeds. Detectable: the smallest effect whose interval excludes 0 in "
        f"{POWER:.0%} of cases. Least squares over settings, with seeds averaged and seed blocks removed, HC2 standard "
        "errors and the degrees of freedom of Bell and McCaffrey, on logarithms and on indicators of categories: "
        f"{', '.join(terms)}. With {SEEDS} seeds or more that share settings, each is also fitted by itself, and the "
        "t-interval over these estimates is shown where it is the wider one.",
        ("corpus", "temperature", "outcome", "from → to", "change (interval)", "joint p", "detectable", "verdict"),
        tuple(rows),
    )


def _cells(contrast: Contrast, joint_p: str = "", *, primary: bool = False) -> tuple[str, str, str, str]:
    """Returns the cells for the change with its interval, the joint p, the detectable effect and the verdict."""
    return (
        f"{contrast.value:+.3f} ({contrast.low:+.3f} to {contrast.high:+.3f})",
        joint_p,
        f"{contrast.detectable:.3f}",
        contrast.verdict + (", primary" if primary else ""),
    )
