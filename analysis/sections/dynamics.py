"""What happens during training, in words and curves."""

from __future__ import annotations

from analysis.columns import title
from analysis.figures import dynamics as figures
from analysis.questions.dynamics import (
    FROZEN,
    INSTEAD,
    LINES,
    QUANTITIES,
    UNCHANGED,
    Evaluations,
    Freezes,
    after_freeze,
    curves,
    evaluations,
    freezes,
)
from analysis.section import Drawing, Group, Section, Statement, Value, slug
from analysis.trials import Study

LOGARITHMIC = ("tau", "lr")
LABELS = {"tau": "τ", "lr": "learning rate"}


def section(study: Study) -> Section:
    """Builds the section: curves over training, when the clusters freeze, and how Silhouette_p changes after that."""
    statements: list[Statement] = []
    parts: list[Group] = []
    headline: list[str] = []
    for name, panel in study.panels().items():
        history, key = evaluations(panel), f"dynamics/{slug(name)}"
        frozen = freezes(history)
        answers = [_freeze(f"{key}/freeze", name, history, frozen), _after(f"{key}/after", name, frozen)]
        statements += answers
        headline += [statement.name for statement in answers]
        parts += [
            _curves(name, panel, history),
            _freezing(name, int(panel.trials["n_clusters"].iloc[0]), history, frozen),
        ]
    if not parts:
        parts = [Group(f"There are no training curves here, because {study.absent}.")]
    return Section(
        "What happens during training, and when do the clusters freeze?",
        tuple(statements),
        tuple(parts),
        tuple(headline),
    )


def _freeze(name: str, panel: str, history: Evaluations, frozen: Freezes) -> Statement:
    facts: dict[str, Value] = {"panel": panel}
    if frozen.table.empty:
        return Statement(name, "{panel}: when the clusters freeze is not known: {why}.", facts | {"why": _why(frozen)})
    table, what = frozen.carrying
    late = table[~table["never"]]
    facts |= {"n": len(table), "what": what, "never": float(table["never"].mean()), "threshold": FROZEN}
    if late.empty:
        text = "{panel}: the clusters never freeze: over {threshold:.0%} still change at the end of all {n} {what}."
        return Statement(name, text, facts)
    low, median, high = late["progress"].quantile([0.25, 0.5, 0.75])
    facts |= {"progress": float(median), "progress_low": float(low), "progress_high": float(high)}
    when = "after a median of {progress:.0%} of the training (quartiles {progress_low:.0%} to {progress_high:.0%})"
    if history.epochs is not None:
        low, median, high = late["epoch"].quantile([0.25, 0.5, 0.75])
        facts |= {"epoch": float(median), "epoch_low": float(low), "epoch_high": float(high), "epochs": history.epochs}
        when = "at a median epoch of {epoch:.0f} of {epochs} (quartiles {epoch_low:.0f} to {epoch_high:.0f})"
    if late["tau"].notna().any():
        low, median, high = late["tau"].quantile([0.25, 0.5, 0.75])
        facts |= {"tau": float(median), "tau_low": float(low), "tau_high": float(high)}
        when += ", at τ = {tau:.2f} ({tau_low:.2f} to {tau_high:.2f})"
    text = f"{{panel}}: the clusters freeze {when} ({{n}} {{what}})."
    if facts["never"]:
        text = (
            "{panel}: in {never:.0%} of {n} {what}, the clusters never freeze: over {threshold:.0%} of the clips still "
            f"change cluster at the end. In the others, they freeze {when}."
        )
    return Statement(name, text, facts)


def _after(name: str, panel: str, frozen: Freezes) -> Statement:
    facts: dict[str, Value] = {"panel": panel}
    after = after_freeze(frozen)
    if after is None:
        reason = _why(frozen) if frozen.table.empty else "too few independent trials froze with Silhouette (p) recorded"
        text = "{panel}: how Silhouette (p) changes after the freeze (H1) is not known: {why}."
        return Statement(name, text, facts | {"why": reason})
    facts |= {**after.rise.values("rise"), "n": after.n}
    text = (
        "{panel}: the median change of Silhouette (p) after the freeze is {rise:+z.2f} "
        "(95 % interval {rise_low:+z.2f} to {rise_high:+z.2f}, {n} independent trials)"
    )
    if after.whole is not None:
        facts["whole"] = after.whole
        text += ", out of {whole:+z.2f} over the whole training"
    facts |= after.half.values("half")
    if after.moved is not None:
        facts |= after.moved.values("moved")
        text += "; AMI moves by {moved:.3f} ({moved_low:.3f} to {moved_high:.3f})"
    facts["verdict"] = after.verdict
    text += (
        ". Half of the trials are frozen by {half:.0%} of the training ({half_low:.0%} to {half_high:.0%}). This "
        "{verdict} H1, that the partition is decided early and that later training only makes p more compact."
    )
    return Statement(name, text, facts)


def _why(frozen: Freezes) -> str:
    if frozen.merged:
        return "every trial with recorded churn ends in one cluster"
    return "no complete trial has recorded churn, as in older tables" if frozen.unknown else "no trial is complete"


def _curves(panel: str, study: Study, history: Evaluations) -> Group:
    followed = history.rows["trial"].nunique()
    counts = study.counts()
    left_out = f"{counts['stopped']} stopped and {counts['diverged']} diverged trials are left out"
    if not followed:
        return Group(f"{panel}: no complete trial has a history, so no curves are drawn ({left_out}).")
    kept = [one for one in (curves(history, name) for name in QUANTITIES) if len(one.band)]
    if not any(one.column == "val/clusters_used" for one in kept):
        kept = [one for one in kept if one.column != "val/silhouette_p"]
    missing = [
        LABELS.get(name, title(name))
        for name in QUANTITIES
        if not any(one.column in (name, INSTEAD.get(name)) for one in kept)
    ]
    on = "the epoch" if history.epochs is not None else "progress, because trials differ in length"
    caption = (
        f"{panel}: {followed} complete trials aligned on {on}: the median, the band from 10 to 90 %, and up to {LINES} "
        f"randomly selected trials as thin lines; {left_out}. Churn is the share of validation clips that changed "
        "cluster since the previous evaluation."
    )
    caption += f" Not recorded: {', '.join(missing)}." if missing else ""
    return Group(
        caption,
        tuple(
            figures.curves(
                f"dynamics-{slug(panel, one.column)}",
                one.band,
                one.lines,
                LABELS.get(one.column, title(one.column)),
                log=one.column in LOGARITHMIC,
            )
            for one in kept
        ),
    )


def _freezing(panel: str, k: int, history: Evaluations, frozen: Freezes) -> Group:
    if frozen.table.empty:
        return Group(f"{panel}: no freeze is drawn: {_why(frozen)}.")
    table = frozen.table
    drawings: list[Drawing] = [figures.freeze(f"dynamics-{slug(panel)}-freeze", table, history.epochs)]
    both = table[["silhouette_freeze", "silhouette_end", "clusters_used"]].notna().all(axis=1)
    if both.any():
        drawings.append(figures.compactness(f"dynamics-{slug(panel)}-after", table[both], k))
    hollow = (
        " Hollow points are not used for inference: no design placed them, or q(y|x) never decided."
        if table["adaptive"].any()
        else ""
    )
    caption = (
        f"{panel}: the freeze is the first evaluation after which churn stays at or below {FROZEN:.0%} until the end, "
        f"so it depends on how often a trial is evaluated. {len(table)} complete trials; {int(table['never'].sum())} "
        f"of them never freeze and count as freezing at their end. Left out: {frozen.merged} that "
        f"end in one cluster, {frozen.unknown} without churn.{hollow} H1 counts as supported if the intervals show "
        f"that half of the trials freeze in the first half of training, that Silhouette (p) rises afterwards, and that "
        f"AMI, if there are labels, moves by a median of less than {UNCHANGED:g}. It counts as contradicted if one of "
        f"them shows the opposite."
    )
    return Group(caption, tuple(drawings))
