"""How do temperature, assignments and losses evolve over training, and when do the clusters freeze?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.columns import title
from analysis.figures import dynamics as figures
from analysis.section import Drawing, Group, Section, Statement, Value, slug
from analysis.stats.bootstrap import MIN_UNITS, Floats, estimate, resampled
from analysis.trials import DESIGNED, KEY, Study, undecided, units, values
from catuvac.evaluation.metrics import FLOORS

# In the order of the page; Silhouette (p) is never shown without the clusters used beside it.
QUANTITIES = (
    "tau",
    "lr",
    "val/entropy_y",
    "val/effective_clusters",
    "val/kl_y",
    "val/kl_z",
    "val/churn",
    "val/silhouette_p",
    "val/clusters_used",
)
INSTEAD = {"val/kl_y": "loss/kl_y", "val/kl_z": "loss/kl_z"}  # where no trial has the first
LOGARITHMIC = ("tau", "lr")
LABELS = {"tau": "τ", "lr": "learning rate"}
LINES = 20  # trials drawn on their own; the rest is in the band
STEPS = 50  # at most, where trials are aligned on progress
FROZEN = 0.02  # churn, as a share of the validation clips
UNCHANGED = 0.02  # of AMI: a partition that moves less stands still (H1)
EARLY = 0.5  # share of the training by which half of the trials have frozen, where the partition is decided early


@dataclass(frozen=True)
class Evaluations:
    """The history of the complete trials of one corpus and K.

    Attributes:
        trials: complete ones, numbered from 0: trial_id, adaptive (of no designed arm, or y undecided: carries no
            inference), unit.
        rows: a row per evaluation, by trial and epoch: trial (number), epoch, progress in [0, 1], and the columns of
            the history as floats.
        epochs: of every trial; None where trials differ in length, which aligns them on progress.
    """

    trials: pd.DataFrame
    rows: pd.DataFrame
    epochs: int | None


@dataclass(frozen=True)
class Curves:
    """One quantity over training.

    Attributes:
        column: of the history.
        band: median, low (10 %), high (90 %) and trials (evaluated there), by epoch or by progress.
        lines: up to `LINES` trials, a column each, NaN where a trial was not evaluated.
    """

    column: str
    band: pd.DataFrame
    lines: pd.DataFrame


@dataclass(frozen=True)
class Freezes:
    """When each trial's clusters froze.

    Frozen is the first evaluation after which churn stays at or below `FROZEN` to the end.

    Attributes:
        table: a row per complete trial with churn and more than one cluster at its end: trial_id, adaptive, unit,
            never; epoch, progress and tau of the freeze (NaN where never); silhouette_first,
            silhouette_freeze, silhouette_end, ami_freeze, ami_end (NaN where not recorded), clusters_used (at its end).
        unknown: complete trials without churn.
        merged: complete trials left out because one cluster cannot churn.
    """

    table: pd.DataFrame
    unknown: int
    merged: int

    @property
    def carrying(self) -> tuple[pd.DataFrame, str]:
        """The rows that describe the study, and what they are: the independent ones, where there are enough."""
        own = self.table[~self.table["adaptive"]]
        if own["unit"].nunique() >= MIN_UNITS:
            return own, "independent trials"
        return self.table, "in all, too few of them independent to infer from"


def evaluations(study: Study) -> Evaluations:
    """Collects the history of the complete trials; stopped and diverged ones never reached their end temperature."""
    complete = study.complete
    trials = pd.DataFrame(
        {
            "trial_id": complete["trial_id"].astype(str),
            "row": complete.index,
            "adaptive": ~complete["arm"].isin(DESIGNED).to_numpy(dtype=bool) | undecided(complete),
            "unit": units(complete),
        }
    ).reset_index(drop=True)
    found = pd.MultiIndex.from_frame(complete[KEY]).get_indexer(pd.MultiIndex.from_frame(study.history[KEY]))
    history, trial = study.history[found >= 0], found[found >= 0]
    columns = [*dict.fromkeys([*QUANTITIES, *INSTEAD.values(), "val/ami"])]
    rows = pd.DataFrame(
        {"trial": trial, "epoch": values(history, "epoch"), **{name: values(history, name) for name in columns}}
    )
    rows = rows.sort_values(["trial", "epoch"], ignore_index=True)
    rows["val/silhouette_p"] = rows["val/silhouette_p"].mask(rows["val/silhouette_p"] == FLOORS["silhouette"])
    planned = values(complete, "config/epochs").reset_index(drop=True)
    planned = planned.fillna(rows.groupby("trial")["epoch"].max()).clip(lower=1)
    rows["progress"] = (rows["epoch"] / rows["trial"].map(planned)).clip(0, 1)
    lengths = planned.dropna().unique()
    return Evaluations(trials, rows, int(lengths[0]) if len(lengths) == 1 else None)


def curves(found: Evaluations, column: str) -> Curves:
    """Aligns a column of the history across trials: on the epoch, or on progress where trials differ in length."""
    if column in INSTEAD and not found.rows[column].notna().any():
        column = INSTEAD[column]
    rows = found.rows[found.rows[column].notna()]
    if found.epochs is not None:
        at = rows["epoch"].astype(int).rename("epoch")
    else:
        # As many steps as short trials have evaluations, so that few steps lack a trial.
        fewest = rows.groupby("trial").size().quantile(0.1) if len(rows) else 1
        steps = int(np.clip(fewest, 1, STEPS))
        at = (np.ceil(rows["progress"] * steps - 1e-9) / steps).rename("progress")
    table = rows.groupby([at, "trial"])[column].mean().unstack("trial")
    quantiles = np.nanquantile(table.to_numpy(dtype=float), [0.5, 0.1, 0.9], axis=1) if len(table) else np.empty((3, 0))
    band = pd.DataFrame(dict(zip(("median", "low", "high"), quantiles, strict=True)), index=table.index)
    shown = np.sort(np.random.default_rng(0).permutation(table.shape[1])[:LINES])
    return Curves(column, band.assign(trials=table.notna().sum(axis=1)), table.iloc[:, shown])


def freezes(found: Evaluations) -> Freezes:
    """Finds when the clusters of every complete trial stopped to change."""
    rows = found.rows
    churned = rows[rows["val/churn"].notna()]
    last_known = pd.Series(churned.index, index=churned["trial"]).groupby(level=0).max()
    moving = rows.index[rows["val/churn"] > FROZEN]
    last_moving = pd.Series(moving, index=rows["trial"][moving]).groupby(level=0).max()
    by_trial = rows.groupby("trial")
    first = pd.Series(rows.index, index=rows["trial"]).groupby(level=0).min()
    table = found.trials.loc[last_known.index].copy()
    # Nothing above the threshold: frozen since the first evaluation. Above it at the last one: never.
    at = last_moving.reindex(table.index).fillna(first.reindex(table.index)).astype(int)
    table["never"] = at == last_known
    for name, column in (("epoch", "epoch"), ("progress", "progress"), ("tau", "tau")):
        table[name] = rows[column].loc[at].to_numpy()
    for name, column in (("silhouette", "val/silhouette_p"), ("ami", "val/ami")):
        table[f"{name}_freeze"] = rows[column].loc[at].to_numpy()
        table[f"{name}_end"] = by_trial[column].nth(-1).set_axis(first.index).reindex(table.index)
    table["silhouette_first"] = rows["val/silhouette_p"].loc[first].set_axis(first.index).reindex(table.index)
    of_freeze = ["epoch", "progress", "tau", "silhouette_freeze", "ami_freeze"]
    table[of_freeze] = table[of_freeze].mask(table["never"])
    table["clusters_used"] = by_trial["val/clusters_used"].nth(-1).set_axis(first.index).reindex(table.index)
    merged = table["clusters_used"] < 2
    return Freezes(
        table[~merged].reset_index(drop=True), unknown=len(found.trials) - len(table), merged=int(merged.sum())
    )


def section(study: Study) -> Section:
    """Curves of every quantity over training, when the clusters freeze, and what Silhouette_p still does after that."""
    statements: list[Statement] = []
    parts: list[Group] = []
    headline: list[str] = []
    for name, panel in study.panels().items():
        found, key = evaluations(panel), f"dynamics/{slug(name)}"
        frozen = freezes(found)
        mine = [_freeze(f"{key}/freeze", name, found, frozen), _after(f"{key}/after", name, frozen)]
        statements += mine
        headline += [each.name for each in mine]
        parts += [_curves(name, panel, found), _freezing(name, int(panel.trials["n_clusters"].iloc[0]), found, frozen)]
    if not parts:
        parts = [Group("No trial of Cat. UVAC has been recorded, so there is nothing to follow over training.")]
    return Section(
        "What happens during training, and when do the clusters freeze?",
        tuple(statements),
        tuple(parts),
        tuple(headline),
    )


def _freeze(name: str, panel: str, found: Evaluations, frozen: Freezes) -> Statement:
    facts: dict[str, Value] = {"panel": panel}
    if frozen.table.empty:
        return Statement(
            name, "{panel}: when the clusters freeze cannot be said: {why}.", facts | {"why": _why(frozen)}
        )
    table, what = frozen.carrying
    late = table[~table["never"]]
    facts |= {"n": len(table), "what": what, "never": float(table["never"].mean()), "threshold": FROZEN}
    if late.empty:
        text = "{panel}: the clusters never freeze: over {threshold:.0%} still change at the end of all {n} {what}."
        return Statement(name, text, facts)
    low, median, high = late["progress"].quantile([0.25, 0.5, 0.75])
    facts |= {"progress": float(median), "progress_low": float(low), "progress_high": float(high)}
    when = "after {progress:.0%} of the training in the median (quartiles {progress_low:.0%} to {progress_high:.0%})"
    if found.epochs is not None:
        low, median, high = late["epoch"].quantile([0.25, 0.5, 0.75])
        facts |= {"epoch": float(median), "epoch_low": float(low), "epoch_high": float(high), "epochs": found.epochs}
        when = "at epoch {epoch:.0f} of {epochs} in the median (quartiles {epoch_low:.0f} to {epoch_high:.0f})"
    if late["tau"].notna().any():
        low, median, high = late["tau"].quantile([0.25, 0.5, 0.75])
        facts |= {"tau": float(median), "tau_low": float(low), "tau_high": float(high)}
        when += ", at τ = {tau:.2f} ({tau_low:.2f} to {tau_high:.2f})"
    text = f"{{panel}}: the clusters freeze {when} ({{n}} {{what}})."
    if facts["never"]:
        text = (
            "{panel}: {never:.0%} never freeze ({n} {what}): over {threshold:.0%} of the clips still change their "
            f"cluster at the end. The others freeze {when}."
        )
    return Statement(name, text, facts)


def _after(name: str, panel: str, frozen: Freezes) -> Statement:
    """Hypothesis H1: the partition is decided early, and what follows makes p compact without changing it."""
    facts: dict[str, Value] = {"panel": panel}
    everyone = frozen.table[~frozen.table["adaptive"]]
    own = everyone[~everyone["never"]]
    rise = (own["silhouette_end"] - own["silhouette_freeze"]).dropna()
    own = own.loc[rise.index]
    if own["unit"].nunique() < MIN_UNITS:
        reason = _why(frozen) if frozen.table.empty else "too few independent trials froze with Silhouette (p) recorded"
        text = "{panel}: what Silhouette (p) does after the freeze (H1) cannot be said: {why}."
        return Statement(name, text, facts | {"why": reason})
    median, low, high = _median(rise.to_numpy(dtype=float), own["unit"].to_numpy(dtype=np.int64))
    facts |= {"rise": median, "rise_low": low, "rise_high": high, "n": len(own)}
    text = (
        "{panel}: after the freeze Silhouette (p) changes by a further {rise:+z.2f} in the median "
        "(95 % interval {rise_low:+z.2f} to {rise_high:+z.2f}, {n} independent trials)"
    )
    whole = (own["silhouette_end"] - own["silhouette_first"]).dropna()
    if len(whole):
        facts["whole"] = float(whole.median())
        text += ", of {whole:+z.2f} over the whole training"
    half, half_low, half_high = _median(
        everyone["progress"].fillna(1.0).to_numpy(dtype=float), everyone["unit"].to_numpy(dtype=np.int64)
    )
    facts |= {"half": half, "half_low": half_low, "half_high": half_high}
    supported, refuted = half_high < EARLY and low > 0, half_low > EARLY or high <= 0
    moved = (own["ami_end"] - own["ami_freeze"]).abs().dropna()
    if len(moved):
        units_ = own.loc[moved.index, "unit"].to_numpy(dtype=np.int64)
        moved_median, moved_low, moved_high = _median(moved.to_numpy(dtype=float), units_)
        facts |= {"moved": moved_median, "moved_low": moved_low, "moved_high": moved_high}
        text += "; AMI moves by {moved:.3f} ({moved_low:.3f} to {moved_high:.3f})"
        supported, refuted = supported and moved_high < UNCHANGED, refuted or moved_low > UNCHANGED
    facts["verdict"] = "supports" if supported else "contradicts" if refuted else "does not decide"
    text += (
        ". Half of the trials are frozen by {half:.0%} of the training ({half_low:.0%} to {half_high:.0%}). This "
        "{verdict} H1, that the partition is decided early and later training only makes p compact."
    )
    return Statement(name, text, facts)


def _median(x: Floats, unit: NDArray[np.int64]) -> tuple[float, float, float]:
    """With a 95 % bootstrap interval by units."""
    rows = [np.arange(len(x)), *resampled(unit, rng=np.random.default_rng(0))]
    found = estimate(np.asarray([np.median(x[chosen]) for chosen in rows]))
    return found.value, found.low, found.high


def _why(frozen: Freezes) -> str:
    if frozen.merged:
        return "every trial with churn recorded ends in one cluster"
    return "no complete trial has churn recorded, which older tables lack" if frozen.unknown else "no complete trial"


def _curves(panel: str, study: Study, found: Evaluations) -> Group:
    followed = found.rows["trial"].nunique()
    counts = study.counts()
    left_out = f"{counts['stopped']} stopped and {counts['diverged']} diverged ones are left out"
    if not followed:
        return Group(f"{panel}: no complete trial has left a history, so no curves are drawn ({left_out}).")
    kept = [one for one in (curves(found, name) for name in QUANTITIES) if len(one.band)]
    if not any(one.column == "val/clusters_used" for one in kept):
        kept = [one for one in kept if one.column != "val/silhouette_p"]
    gone = [
        LABELS.get(name, title(name))
        for name in QUANTITIES
        if not any(one.column in (name, INSTEAD.get(name)) for one in kept)
    ]
    on = "the epoch" if found.epochs is not None else "progress, because trials differ in length"
    caption = (
        f"{panel}: {followed} complete trials aligned on {on}: median, the band from 10 to 90 %, and up to {LINES} "
        f"trials drawn at random as thin lines; {left_out}. Churn is the share of validation clips that changed "
        "cluster since the evaluation before."
    )
    caption += f" Not recorded: {', '.join(gone)}." if gone else ""
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


def _freezing(panel: str, k: int, found: Evaluations, frozen: Freezes) -> Group:
    if frozen.table.empty:
        return Group(f"{panel}: no freeze is drawn: {_why(frozen)}.")
    table = frozen.table
    drawings: list[Drawing] = [figures.freeze(f"dynamics-{slug(panel)}-freeze", table, found.epochs)]
    both = table[["silhouette_freeze", "silhouette_end", "clusters_used"]].notna().all(axis=1)
    if both.any():
        drawings.append(figures.compactness(f"dynamics-{slug(panel)}-after", table[both], k))
    hollow = (
        " Hollow points carry no inference: no design placed them, or q(y|x) never decided."
        if table["adaptive"].any()
        else ""
    )
    caption = (
        f"{panel}: the freeze is the first evaluation after which churn stays at or below {FROZEN:.0%} to the end, so "
        f"it depends on how often a trial is evaluated. {len(table)} complete trials; {int(table['never'].sum())} of "
        f"them never freeze and count as freezing at their end. Left out: {frozen.merged} that "
        f"end in one cluster, {frozen.unknown} without churn.{hollow} H1 counts as supported where the intervals say "
        f"that half of the trials freeze in the first half of training, that Silhouette (p) rises afterwards, and that "
        f"AMI, where there are labels, moves by less than {UNCHANGED:g} in the median; as contradicted where one of "
        f"them says the opposite."
    )
    return Group(caption, tuple(drawings))
