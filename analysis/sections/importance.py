"""The settings' shares of the outcome's variation, in words and bars."""

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
    """The shares of the settings, by corpus and K."""
    statements: list[Statement] = []
    parts: list[Group] = []
    for title, panel in study.panels().items():
        data = sample(panel)
        if data.count < MIN_UNITS:
            parts.append(
                Group(
                    f"{title}: importances are not computed. They take at least {MIN_UNITS} settings of designed arms "
                    f"(random, QMC, grid or factorial) in which q(y|x) decided, and there are {data.count}."
                )
            )
            continue
        if len(data.settings.columns) < 2:
            parts.append(Group(f"{title}: importances are not computed, for fewer than two settings vary.{_out(data)}"))
            continue
        found = importances(data)
        if found is None:
            why = "; ".join(f"{metric.label}: {data.why_not(metric)}" for metric in METRICS)
            parts.append(Group(f"{title}: importances are not computed ({why})."))
            continue
        statements.append(_shared(f"importance/{slug(title)}/shares", title, found))
        parts.append(_bars(title, data, found))
    if not parts:
        parts.append(Group("Importances: nothing to compute, because no trial of Cat. UVAC has been recorded."))
    headline = tuple(each.name for each in statements)
    return Section(
        "How is the outcome's variation shared among the settings?", tuple(statements), tuple(parts), headline
    )


def _shared(name: str, title: str, found: Importances) -> Statement:
    given: dict[str, Value] = {
        "panel": title,
        "metric": found.metric.label,
        "n": found.n,
        **found.predicted.values("r2"),
    }
    held_out = "R² = {r2:.2f} (95 % interval {r2_low:.2f} to {r2_high:.2f})"
    if not found.readable:
        text = (
            "{panel}: the settings together do not reliably predict {metric}, so that their shares say nothing: "
            f"{held_out} on held-out trials (n = {{n}})."
        )
        return Statement(name, text, given)
    shares = []
    for row in found.table.to_dict("records"):
        key = str(row["setting"])
        given |= {key: row["fanova"], f"{key}_low": row["fanova_low"], f"{key}_high": row["fanova_high"]}
        shares.append(f"{row['label']} {{{key}:.0%}} ({{{key}_low:.0%}} to {{{key}_high:.0%}})")
    text = (
        f"{{panel}}: of what the settings do to {{metric}} one at a time, fANOVA gives {', '.join(shares)}. All "
        f"settings together reach {held_out} on held-out trials (n = {{n}})."
    )
    return Statement(name, text, given)


def _trials(data: Sample) -> str:
    """On how many trials, in words."""
    n = len(data.settings)
    return (
        f"{n} of {data.total} independent trials, drawn with a fixed seed"
        if data.total > n
        else f"{n} independent trials"
    )


def _out(data: Sample) -> str:
    return "".join(f" {name} is left out: {why}." for name, why in data.left_out.items())


def _bars(title: str, data: Sample, found: Importances) -> Group:
    caption = (
        f"{title}: the share of each setting in {found.metric.label}, on {_trials(data)}. Bars: fANOVA, a random "
        f"forest of {TREES} trees of depth {DEPTH}, what a setting does by itself when all others are averaged over. "
        f"Dots: PED-ANOVA, how far the best quarter of the trials differs in the setting. Lines: 95 % intervals of "
        f"{RESAMPLES} bootstrap resamples of whole settings. The shares sum to 1, also where nothing matters: R² is "
        f"what a forest predicts of held-out trials, and bars are pale where its interval reaches 0."
    )
    if data.undecided:
        caption += f" Left out, because q(y|x) never decided: {data.undecided}."
    if data.exact:
        caption += f' Left out, because the estimator "exact" reads no temperature: {data.exact}.'
    if found.table["ped"].isna().any():
        caption += " No dots: more than half of the trials share the best quarter's value."
    caption += _out(data)
    drawing = Drawing(
        name=f"importance-{slug(title)}-{found.metric.name}",
        figure=drawn.bars(found.table, pale=not found.readable),
        alt=f"{title}, importance for {found.metric.label} by fANOVA: "
        + ", ".join(f"{row.label} {row.fanova:.0%}" for row in found.table.itertuples())
        + f"; R² on held-out trials {found.predicted.value:.2f}.",
        title=f"{found.metric.label} (R² = {found.predicted.value:.2f})",
    )
    return Group(caption, (drawing,))
