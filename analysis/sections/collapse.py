"""How often trials collapse or diverge, in words and figures."""

from __future__ import annotations

from analysis.figures import collapse as figures
from analysis.questions.collapse import BINS, OUTCOMES, TOTAL, Collapse, collapse
from analysis.section import Drawing, Group, Section, Statement, Value, slug
from analysis.trials import Study

MAP = ("config/beta", "config/tau_start")  # the axes of the map of all trials


def section(study: Study) -> Section:
    """Builds the section on the rates of collapse and divergence, and where in the search space they occur."""
    statements: list[Statement] = []
    parts: list[Group] = []
    for name, panel in study.panels().items():
        k = int(panel.trials["n_clusters"].iloc[0])
        result = collapse(panel, k)
        statements.append(_rate(f"collapse/{slug(name)}/rate", name, k, result))
        parts += _parts(name, k, result)
    if not parts:
        parts = [Group(f"There is no trial that could have collapsed, because {study.absent}.")]
    headline = tuple(statement.name for statement in statements)
    return Section("How often do trials collapse or diverge, and where?", tuple(statements), tuple(parts), headline)


def _rate(name: str, panel: str, k: int, result: Collapse) -> Statement:
    facts: dict[str, Value] = {"panel": panel, "k": k, "half": k / 2, "merged": TOTAL}
    if result.rates.empty:
        counts = result.points["outcome"].value_counts()
        facts |= {kind: int(counts.get(kind, 0)) for kind in OUTCOMES} | {"n": len(result.points)}
        text = (
            "{panel}: no trial of a designed arm (random, QMC, grid or factorial) completed or diverged, so no rate "
            "over the search space can be stated. Of all {n} trials, {collapsed} collapsed and {diverged} diverged."
        )
        return Statement(name, text, facts)
    rates = result.rates
    facts["n"] = int(rates["n"].iloc[0])
    for kind, row in rates.to_dict("index").items():
        facts |= {f"{kind}": row["rate"], f"{kind}_low": row["low"], f"{kind}_high": row["high"]}
        facts[f"{kind}_count"] = int(row["count"])
    interval = "95 % interval {collapsed_low:.1%} to {collapsed_high:.1%}"
    collapsed = f"{{collapsed_count}} of {{n}} trials of designed arms collapsed ({{collapsed:.0%}}, {interval})"
    if facts["collapsed_count"] == 0:
        collapsed = "none of {n} trials of designed arms collapsed (95 % interval 0% to {collapsed_high:.1%})"
    if facts["collapsed_count"] == facts["n"]:
        collapsed = "all {n} trials of designed arms collapsed (95 % interval {collapsed_low:.1%} to 100%)"
    text = (
        f"{{panel}}: {collapsed}, which means fewer than {{half:g}} of {{k}} clusters in use, or assignments that "
        "never decided, with I(x; y) at most half of log K ({undecided_count} of them); "
        "{total_count} merged to fewer than {merged:g} effective clusters; "
    )
    text += (
        "{diverged_count} diverged ({diverged:.0%}, {diverged_low:.1%} to {diverged_high:.1%})."
        if facts["diverged_count"]
        else "none diverged (0% to {diverged_high:.1%})."
    )
    return Statement(name, text, facts)


def _parts(panel: str, k: int, result: Collapse) -> list[Group]:
    points = result.points
    left_out = f"{result.unknown} that stopped early, failed or lack clusters used are left out"
    if points.empty:
        return [Group(f"{panel}: no trial completed or diverged, so nothing is drawn ({left_out}).")]
    parts: list[Group] = []
    caption = (
        f"{panel}: {len(points)} trials ({left_out}). Collapsed: complete, with fewer than {k / 2:g} of {k} clusters "
        "used or with I(x; y) of at most ½ log K, where q(y|x) has not decided. Diverged: by status."
    )
    if points["adaptive"].any():
        caption += " Hollow points were placed by TPE or a confirm run and are not used for inference."
    if all(points[name].nunique() > 1 for name in MAP):
        drawn = points.dropna(subset=list(MAP))
        parts.append(Group(caption, (figures.plane(f"collapse-{slug(panel)}-map", drawn, *MAP),)))
    else:
        parts.append(Group(caption + " β and τ_start do not both vary, so there is no map to draw."))
    drawings: list[Drawing] = [
        figures.rates(f"collapse-{slug(panel, setting)}", bins, str(setting))
        for setting, bins in result.bins.groupby("setting", sort=False)
    ]
    if drawings:
        parts.append(
            Group(
                f"{panel}: share of {int(result.rates['n'].iloc[0])} trials of designed arms that collapsed or "
                f"diverged, in up to {BINS} bins of about equal counts of each setting, while the other settings vary, "
                "with the Wilson 95 % interval (the seeds of a setting count once).",
                tuple(drawings),
            )
        )
    return parts
