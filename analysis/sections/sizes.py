"""What a smaller network costs, in words and a figure; left out if all networks have the same size."""

from __future__ import annotations

from collections.abc import Mapping

from analysis.columns import title
from analysis.figures import sizes as figures
from analysis.questions.effects import Plan, plan_of
from analysis.questions.sizes import Sizes, sizes
from analysis.section import Group, Section, Statement, Value, slug
from analysis.sections.effects import numbers, verdict
from analysis.trials import Study

QUESTION = "What does a smaller network cost?"


def section(study: Study, plans: Mapping[str, Plan]) -> Section | None:
    """Builds the section on the change of the outcome from the largest size to each other size, by corpus and K."""
    statements: list[Statement] = []
    headline: list[str] = []
    parts: list[Group] = []
    for panel, part in study.panels().items():
        plan = plan_of(part.trials, plans)
        result = sizes(part, margin=plan.margin)
        if result is None:
            continue
        summary, *compared = _statements(result, panel, fixed=plan.fixed)
        statements += [summary, *compared]
        enough = [each for each in compared if each.values.get("verdict", "matters") != "matters"]
        headline += [each.name for each in (summary, *enough[:1])]
        caption = (
            f"{panel}: each dot is a training run, and the line connects the means. MACs are the multiply-accumulate "
            "operations needed to assign one clip to its cluster, in convolutions and matrix products."
        )
        parts.append(Group(caption, (figures.draw(result, name=slug("sizes", panel)),)))
    return Section(QUESTION, tuple(statements), tuple(parts), tuple(headline[:3])) if parts else None


def _statements(result: Sizes, panel: str, *, fixed: bool) -> list[Statement]:
    """Returns the sentence on all sizes, and one for each but the largest, the smallest first."""
    verdicts = [size.change.verdict if size.change else "not decided" for size in result.sizes[:-1]]
    facts: dict[str, Value] = {
        "panel": panel,
        "outcome": title(result.outcome),
        "sizes": len(verdicts),
        "low": result.sizes[0].macs / 1e6,
        "high": result.sizes[-2].macs / 1e6,
        "largest": result.largest.macs / 1e6,
        "matters": verdicts.count("matters"),
        "negligible": verdicts.count("negligible"),
        "open": verdicts.count("not decided"),
    }
    text = (
        "{panel}: relative to a network with {largest:.3g} million MACs per clip, the change of {outcome} matters for "
        "{matters} of {sizes} smaller ones ({low:.3g} to {high:.3g} million), is negligible for {negligible} and not "
        "decided for {open}."
    )
    if result.undecided:
        facts["undecided"] = result.undecided
        text += " {undecided} of the training runs, in which q(y|x) did not decide, are left out."
    statements = [Statement(f"sizes/{slug(panel)}/all", text, facts)]
    for size in result.sizes[:-1]:
        words: dict[str, Value] = {
            "panel": panel,
            "macs": size.macs / 1e6,
            "share": size.macs / result.largest.macs,
            "outcome": title(result.outcome),
            "mean": size.mean,
            "largest": result.largest.mean,
        }
        text = (
            "{panel}: with {macs:.3g} million MACs per clip, {share:.1%} of the largest network's, {outcome} is "
            "{mean:.3f} instead of {largest:.3f}"
        )
        if size.change is None:
            text += "; there are too few seeds for an interval."
        else:
            words |= numbers(size.change)
            text += " ({level:.4g} % interval of the change {low:+.3f} to {high:+.3f}, {n} seeds). "
            text += verdict(size.change, fixed=fixed)
        statements.append(Statement(f"sizes/{slug(panel)}/{size.macs:.0f}", text, words))
    return statements
