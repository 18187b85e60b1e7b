"""How often trials collapse or diverge, in words and pictures."""

from __future__ import annotations

from analysis.figures import collapse as figures
from analysis.questions.collapse import BINS, OUTCOMES, TOTAL, Collapse, collapse
from analysis.section import Drawing, Group, Section, Statement, Value, slug
from analysis.trials import Study

MAP = ("config/beta", "config/tau_start")  # of the picture of all trials


def section(study: Study) -> Section:
    """Rates of collapse and divergence, and where they lie in the search space."""
    statements: list[Statement] = []
    parts: list[Group] = []
    for name, panel in study.panels().items():
        k = int(panel.trials["n_clusters"].iloc[0])
        found = collapse(panel, k)
        statements.append(_rate(f"collapse/{slug(name)}/rate", name, k, found))
        parts += _parts(name, k, found)
    if not parts:
        parts = [Group("No trial of Cat. UVAC has been recorded, so none has collapsed.")]
    headline = tuple(each.name for each in statements)
    return Section("How often do trials collapse or diverge, and where?", tuple(statements), tuple(parts), headline)


def _rate(name: str, panel: str, k: int, found: Collapse) -> Statement:
    facts: dict[str, Value] = {"panel": panel, "k": k, "half": k / 2, "merged": TOTAL}
    if found.rates.empty:
        counts = found.points["outcome"].value_counts()
        facts |= {kind: int(counts.get(kind, 0)) for kind in OUTCOMES} | {"n": len(found.points)}
        text = (
            "{panel}: no trial of a designed arm (random, QMC, grid or factorial) is complete or diverged, so no rate "
            "over the search space can be stated. Of the {n} trials there are, {collapsed} collapsed and {diverged} "
            "diverged."
        )
        return Statement(name, text, facts)
    rates = found.rates
    facts["n"] = int(rates["n"].iloc[0])
    for kind, row in rates.to_dict("index").items():
        facts |= {f"{kind}": row["rate"], f"{kind}_low": row["low"], f"{kind}_high": row["high"]}
        facts[f"{kind}_count"] = int(row["count"])
    collapsed = "{collapsed_count} of {n} ({collapsed:.0%}, 95 % interval {collapsed_low:.1%} to {collapsed_high:.1%})"
    if facts["collapsed_count"] == 0:
        collapsed = "none of {n} (95 % interval 0% to {collapsed_high:.1%})"
    if facts["collapsed_count"] == facts["n"]:
        collapsed = "all {n} (95 % interval {collapsed_low:.1%} to 100%)"
    text = (
        f"{{panel}}: {collapsed} trials of designed arms collapsed: fewer than {{half:g}} of {{k}} clusters in use, "
        "or assignments that were never decided, I(x; y) at most half of log K ({undecided_count} of them); "
        "{total_count} merged to less than {merged:g} effective ones; "
    )
    text += (
        "{diverged_count} diverged ({diverged:.0%}, {diverged_low:.1%} to {diverged_high:.1%})."
        if facts["diverged_count"]
        else "none diverged (0% to {diverged_high:.1%})."
    )
    return Statement(name, text, facts)


def _parts(panel: str, k: int, found: Collapse) -> list[Group]:
    points = found.points
    left_out = f"{found.unknown} stopped, failed or without clusters used are left out"
    if points.empty:
        return [Group(f"{panel}: no trial is complete or diverged, so nothing is drawn ({left_out}).")]
    parts: list[Group] = []
    caption = (
        f"{panel}: {len(points)} trials ({left_out}). Collapsed: complete, with fewer than {k / 2:g} of {k} clusters "
        "used or with I(x; y) of at most ½ log K, where q(y|x) has not decided; diverged: by status."
    )
    if points["adaptive"].any():
        caption += " Hollow points were placed by TPE or a confirm run and carry no inference."
    if all(points[name].nunique() > 1 for name in MAP):
        drawn = points.dropna(subset=list(MAP))
        parts.append(Group(caption, (figures.plane(f"collapse-{slug(panel)}-map", drawn, *MAP),)))
    else:
        parts.append(Group(caption + " β and τ_start do not both vary, so there is no map to draw."))
    drawings: list[Drawing] = [
        figures.rates(f"collapse-{slug(panel, setting)}", bins, str(setting))
        for setting, bins in found.bins.groupby("setting", sort=False)
    ]
    if drawings:
        parts.append(
            Group(
                f"{panel}: share of {int(found.rates['n'].iloc[0])} trials of designed arms that collapsed or "
                f"diverged, by up to {BINS} bins of about equal counts of each setting, the others as they fall, with "
                "Wilson's 95 % interval (the seeds of a setting count once).",
                tuple(drawings),
            )
        )
    return parts
