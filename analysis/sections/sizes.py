"""What a smaller network costs, in words and a picture; left out where all networks are of one size."""

from __future__ import annotations

from collections.abc import Mapping

from analysis.columns import title
from analysis.figures import sizes as figures
from analysis.questions.effects import Plan
from analysis.questions.sizes import Sizes, sizes
from analysis.section import Group, Section, Statement, Value, slug
from analysis.sections.effects import numbers, verdict
from analysis.trials import Study
from catuvac.experiments.search import MARGIN

QUESTION = "What does a smaller network cost?"


def section(study: Study, plans: Mapping[str, Plan]) -> Section | None:
    """The change of the outcome from the largest size to each other one, by corpus and K."""
    statements: list[Statement] = []
    parts: list[Group] = []
    for panel, part in study.panels().items():
        plan = plans.get(str(part.trials["study"].iloc[0]))
        found = sizes(part, margin=plan.margin if plan else MARGIN)
        if found is None:
            continue
        statements += _statements(found, panel, fixed=plan is not None and plan.fixed)
        caption = (
            f"{panel}: each dot is a training, the line goes through the means. MACs are the multiplications with an "
            "addition that the cluster of one clip takes, in convolutions and matrix products."
        )
        parts.append(Group(caption, (figures.draw(found, name=slug("sizes", panel)),)))
    return Section(QUESTION, tuple(statements), tuple(parts), ()) if parts else None


def _statements(found: Sizes, panel: str, *, fixed: bool) -> list[Statement]:
    statements = []
    for size in found.sizes[:-1]:
        words: dict[str, Value] = {
            "panel": panel,
            "macs": size.macs / 1e6,
            "share": size.macs / found.largest.macs,
            "outcome": title(found.outcome),
            "mean": size.mean,
            "largest": found.largest.mean,
        }
        text = (
            "{panel}: with {macs:.3g} million MACs a clip, {share:.1%} of the largest network's, {outcome} is "
            "{mean:.3f} in place of {largest:.3f}"
        )
        if size.change is None:
            text += "; the seeds are too few for an interval."
        else:
            words |= numbers(size.change)
            text += " ({level:.4g} % interval of the change {low:+.3f} to {high:+.3f}, {n} seeds). "
            text += verdict(size.change, fixed=fixed, unit="seeds")
        statements.append(Statement(f"sizes/{slug(panel)}/{size.macs:.0f}", text, words))
    return statements
