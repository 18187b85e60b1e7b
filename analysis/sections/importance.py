"""The share of each setting in the variation of the outcome, in words and bars."""

from __future__ import annotations

from analysis.figures import importance as drawn
from analysis.questions.importance import (
    DEPTH,
    METRICS,
    MIN_UNITS,
    RESAMPLES,
    TREES,
    Importances,
    Sample,
    importances,
    sample,
)
from analysis.section import Drawing, Group, Section, Statement, Value, slug
from analysis.trials import Study


def section(study: Study) -> Section:
    """Builds the section on the shares of the settings, by corpus and K."""
    statements: list[Statement] = []
    parts: list[Group] = []
    for title, panel in study.panels().items():
        data = sample(panel)
        if data.count < MIN_UNITS:
            parts.append(
                Group(
                    f"{title}: importances are not computed. They need at least {MIN_UNITS} settings of designed arms "
                    f"(random, QMC, grid or factorial) in which q(y|x) decided, but there are {data.count}."
                )
            )
            continue
        if len(data.settings.columns) < 2:
            parts.append(Group(f"{title}: importances need at least two settings that vary.{_out(data)}"))
            continue
        result = importances(data)
        if result is None:
            why = "; ".join(f"{metric.label}: {data.why_not(metric)}" for metric in METRICS)
            parts.append(Group(f"{title}: importances are not computed ({why})."))
            continue
        statements.append(_shared(f"importance/{slug(title)}/shares", title, result))
        parts.append(_bars(title, data, result))
    if not parts:
        parts.append(Group(f"Importances are not computed, because {study.absent}."))
    headline = tuple(statement.name for statement in statements)
    return Section("How much does each setting contribute to the outcome?", tuple(statements), tuple(parts), headline)


def _shared(name: str, title: str, result: Importances) -> Statement:
    facts: dict[str, Value] = {
        "panel": title,
        "metric": result.metric.label,
        "n": result.n,
        **result.predicted.values("r2"),
    }
    held_out = "R² = {r2:.2f} (95 % interval {r2_low:.2f} to {r2_high:.2f})"
    if not result.readable:
        text = (
            "{panel}: the settings together do not reliably predict {metric}, so their shares mean nothing: "
            f"{held_out} on held-out trials (n = {{n}})."
        )
        return Statement(name, text, facts)
    shares = []
    for row in result.table.to_dict("records"):
        key = str(row["setting"])
        facts |= {key: row["fanova"], f"{key}_low": row["fanova_low"], f"{key}_high": row["fanova_high"]}
        shares.append(f"{row['label']} {{{key}:.0%}} ({{{key}_low:.0%}} to {{{key}_high:.0%}})")
    text = (
        f"{{panel}}: fANOVA divides the main effects of the settings on {{metric}} into {', '.join(shares)}. All "
        f"settings together reach {held_out} on held-out trials (n = {{n}})."
    )
    return Statement(name, text, facts)


def _trials(data: Sample) -> str:
    """Describes on how many trials the importances are computed."""
    n = len(data.settings)
    return (
        f"{n} of {data.total} independent trials, drawn with a fixed seed"
        if data.total > n
        else f"{n} independent trials"
    )


def _out(data: Sample) -> str:
    return "".join(f" {name} is left out, because it {why}." for name, why in data.left_out.items())


def _bars(title: str, data: Sample, result: Importances) -> Group:
    caption = (
        f"{title}: the share of each setting in the variation of {result.metric.label}, on {_trials(data)}. Bars: "
        f"fANOVA on a random forest of {TREES} trees of depth {DEPTH}, the effect of one setting averaged over others. "
        f"Dots: PED-ANOVA, how much the best quarter of the trials differs in the setting. Lines: 95 % intervals from "
        f"{RESAMPLES} bootstrap resamples of whole settings. The shares sum to 1 even if no setting has an effect: R² "
        f"is the forest's score on held-out trials, and the bars are pale if its interval includes 0."
    )
    if data.undecided:
        caption += f" Left out, because q(y|x) never decided: {data.undecided}."
    if data.exact:
        caption += f' Left out, because the estimator "exact" uses no temperature: {data.exact}.'
    if result.table["ped"].isna().any():
        caption += " No dots: more than half of the trials share the best quarter's value."
    caption += _out(data)
    drawing = Drawing(
        name=f"importance-{slug(title)}-{result.metric.name}",
        figure=drawn.bars(result.table, pale=not result.readable),
        alt=f"{title}, importance for {result.metric.label} by fANOVA: "
        + ", ".join(f"{row.label} {row.fanova:.0%}" for row in result.table.itertuples())
        + f"; R² on held-out trials {result.predicted.value:.2f}.",
        title=f"{result.metric.label} (R² = {result.predicted.value:.2f})",
    )
    return Group(caption, (drawing,))
