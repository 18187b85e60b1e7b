"""Which trial does each label-free criterion choose, and what would labels have chosen?"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import columns
from analysis.figures import selection as figures
from analysis.section import Group, Section, Statement, Table, Value, slug
from analysis.stats.bootstrap import MIN_UNITS, Correlation, interval, resampled, spearman
from analysis.trials import Study, floats, units, values

# Label-free scores set against accuracy, with the sign that makes higher better.
LABEL_FREE = {
    "objective": 1,
    "val/mutual_information": 1,
    "val/effective_clusters": 1,
    "val/clusters_used": 1,
    "val/entropy_y": -1,
    "val/confidence": 1,
    "val/elbo": 1,
    **{f"val/silhouette_{space}": 1 for space in "xzp"},
    **{f"val/dbi_{space}": -1 for space in "xzp"},
    **{f"val/dispersion_{space}": 1 for space in "xzp"},
}
LABELS = ("val/ami", "val/acc")
RANDOM = "random"  # the row of a trial picked blindly

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Selection:
    """The trial that the objective chooses.

    Attributes:
        best: its row of the table of trials.
        acc: its validation accuracy, None without labels.
        best_acc: the highest accuracy of any complete trial, reached by `best_acc_trial`.
        regret: `best_acc - acc`: what choosing without labels cost.
    """

    best: dict[str, Any]
    acc: float | None = None
    best_acc: float | None = None
    best_acc_trial: str | None = None
    regret: float | None = None


def select(study: Study) -> Selection | None:
    """Chooses among complete trials, the first of equals; None where there is none."""
    trials = study.complete
    if trials.empty:
        return None
    chosen = trials.iloc[int(np.argmax(values(trials, "objective")))]
    best = {str(name): None if pd.isna(value) else value for name, value in chosen.items()}
    acc = best.get("val/acc")
    if acc is None:
        return Selection(best)
    accuracies = values(trials, "val/acc")
    top = int(np.nanargmax(accuracies))
    return Selection(
        best,
        acc=float(acc),
        best_acc=float(accuracies.iloc[top]),
        best_acc_trial=str(trials["trial_id"].iloc[top]),
        regret=float(accuracies.iloc[top] - acc),
    )


@dataclass(frozen=True)
class Regrets:
    """What choosing by each criterion costs, among trials that have labels.

    Attributes:
        table: a row per criterion, lowest regret first, and `RANDOM`, a blind pick. Columns: `label` for people;
            `trial`, the first of the `tied` ones that it ranks highest, and its `row` of `Study.trials`; `clusters`
            used by it; and for AMI, and the
            same for ACC: `ami` picked (mean of the tied), `ami_regret` (best minus picked), its 95 % interval
            `ami_low`, `ami_high`, and that of what it gains over a blind pick, `ami_gain_low`, `ami_gain_high`. NaN is
            what does not exist.
        n: trials.
        inference: whether there are intervals: at least five units, none placed by a sampler.
    """

    table: pd.DataFrame
    n: int
    inference: bool

    @property
    def criteria(self) -> pd.DataFrame:
        """The table without the blind pick."""
        return self.table.drop(index=RANDOM)

    @property
    def blind(self) -> pd.Series[Any]:
        """The row of the blind pick."""
        return self.table.T[RANDOM]


def regrets(trials: pd.DataFrame, *, independent: bool) -> Regrets | None:
    """Selects among the trials that have an AMI; None where fewer than two have, or all the same.

    Args:
        trials: complete ones.
        independent: whether no sampler placed them.
    """
    trials = trials[values(trials, "val/ami").notna()]
    labels = np.column_stack([floats(trials, name) for name in LABELS])  # [n, 2]
    if len(trials) < 2 or np.ptp(labels[:, 0]) == 0:
        return None
    if not np.isfinite(labels[:, 1]).all():
        labels[:, 1] = np.nan
    names = [name for name in LABEL_FREE if values(trials, name).notna().any()]
    signed = np.column_stack([LABEL_FREE[name] * floats(trials, name) for name in names])
    scores = np.nan_to_num(signed, nan=-np.inf)  # [n, criteria]
    codes = units(trials)
    inference = independent and len(np.unique(codes)) >= MIN_UNITS
    first, used = scores.argmax(axis=0), floats(trials, "val/clusters_used")
    table = pd.DataFrame(
        {
            "label": [*map(_label, names), "random pick"],
            "trial": [*trials["trial_id"].astype(str).iloc[first], "any"],
            "row": [*trials.index[first], -1],
            "tied": [*(scores == scores.max(axis=0)).sum(axis=0), len(trials)],
            "clusters": [*used[first], used.mean()],
        },
        index=pd.Index([*names, RANDOM], name="criterion"),
    )
    picked = _picked(scores, labels)
    regret = labels.max(axis=0) - picked
    intervals = np.full((4, *picked.shape), np.nan)
    if inference:
        draws = resampled(codes, rng=np.random.default_rng(0))
        drawn = np.array([_picked(scores[rows], labels[rows]) for rows in draws])
        best = np.array([labels[rows].max(axis=0) for rows in draws])[:, None]
        # Without accuracy its column is NaN, which is what numpy then warns of.
        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
            intervals[:2] = interval(best - drawn)
            intervals[2:] = interval(drawn - drawn[:, -1:])
    for i, name in enumerate(("ami", "acc")):
        table[name], table[f"{name}_regret"] = picked[:, i], regret[:, i]
        for suffix, bound in zip(("low", "high", "gain_low", "gain_high"), intervals[:, :, i], strict=True):
            table[f"{name}_{suffix}"] = bound
    return Regrets(
        table=table.sort_values("ami_regret", kind="stable"),
        n=len(trials),
        inference=inference,
    )


def correlations(trials: pd.DataFrame) -> dict[str, Correlation]:
    """Rank correlation of every recorded criterion, signed so that higher is better, with AMI."""
    ami, codes = floats(trials, "val/ami"), units(trials)
    return {
        name: spearman(sign * floats(trials, name), ami, units=codes)
        for name, sign in LABEL_FREE.items()
        if name in trials
    }


def section(study: Study) -> Section:
    """The regret of every criterion, by corpus and K."""
    statements: list[Statement] = []
    parts: list[Group | Table] = []
    headline: list[str] = []
    panels = study.panels()
    for title, panel in panels.items():
        complete = regrets(panel.complete, independent=False)
        if complete is None:
            parts.append(Group(f"{title}: {_why_not(panel)}, so there is no regret to measure."))
            continue
        placed = len(panel.complete) > len(panel.independent)
        unplaced = regrets(panel.independent, independent=True)
        apart = unplaced is not None and (unplaced.inference or not placed)
        found = unplaced if unplaced is not None and apart else complete
        name = f"selection/{slug(title)}"
        statements.append(_objective(found, f"{name}/objective", title))
        headline.append(f"{name}/objective")
        if apart and placed:
            statements.append(_as_chosen(complete, f"{name}/study", title))
        parts.append(
            Group(
                f"{title}: AMI lost by choosing one of {found.n} trials by each label-free score. "
                f"{_how(found, complete, placed)}",
                (figures.draw(found, complete if placed else None, name=slug("selection", title)),),
            )
        )
        parts.append(_table(found, correlations(panel.independent if apart else panel.complete), title))
    if not panels:
        parts.append(Group("There is no trial of Cat. UVAC, so there is nothing to choose from."))
    return Section("What does choosing without labels cost?", tuple(statements), tuple(parts), tuple(headline))


def _label(criterion: str) -> str:
    """Without the unit: "I(x; y)"."""
    return columns.title(criterion).partition(",")[0]


def _picked(scores: Floats, labels: Floats) -> Floats:
    """Labels `[criteria + 1, 2]` of what each column of scores `[n, criteria]` ranks highest; last, their mean.

    Those that tie are averaged. NaN for a criterion that no row has.
    """
    highest = scores.max(axis=0)
    top = (scores == highest) & np.isfinite(highest)
    with np.errstate(invalid="ignore"):
        picked = (top.T.astype(float) @ labels) / top.sum(axis=0)[:, None]
    return np.vstack([picked, labels.mean(axis=0)])


def _why_not(panel: Study) -> str:
    known = values(panel.complete, "val/ami").dropna()
    if panel.complete.empty:
        return "no trial is complete"
    if known.empty:
        return "there are no labels"
    return "only one trial is complete with labels" if len(known) == 1 else "AMI is the same in every trial"


def _how(found: Regrets, complete: Regrets, placed: bool) -> str:
    if found.inference:
        how = (
            "Filled: trials that no sampler placed, with 95 % bootstrap intervals over them (a guide only: a maximum "
            "is hard to resample); line and band: a random pick."
        )
        how += (
            f" Hollow: among all {complete.n} complete trials, those of TPE included, clusters in brackets."
            if placed
            else ""
        )
    else:
        why = "TPE placed trials among these" if placed else "These trials are too few"
        how = f"Line: a random pick. {why}, so there is no interval."
    return f"{how} At the right, the clusters that the picked trial uses. Equal scores share the pick."


def _cost(found: Regrets, criterion: str) -> tuple[str, dict[str, Value]]:
    """Regret in words, with its interval where there is one, and how it compares with a blind pick."""
    row, blind = found.table.T[criterion], found.blind
    said: dict[str, Value] = {"regret": float(row["ami_regret"]), "random": float(blind["ami_regret"]), "n": found.n}
    if not found.inference:
        return "{regret:.3f} AMI below the best of {n} trials; a random pick costs {random:.3f}", said
    said |= {"low": float(row["ami_low"]), "high": float(row["ami_high"])}
    if row["ami_gain_low"] > 0:
        verdict = "better than"
    elif row["ami_gain_high"] < 0:
        verdict = "worse than"
    else:
        verdict = "not surely different from"
    text = "{regret:.3f} AMI (95 % {low:.3f} to {high:.3f}) below the best of {n} trials, "
    return text + "{verdict} a random pick's {random:.3f}", said | {"verdict": verdict}


def _clusters(found: Regrets, criterion: str) -> tuple[str, dict[str, Value]]:
    used = float(found.table["clusters"][criterion])
    return (" It uses {clusters:.0f} clusters.", {"clusters": used}) if np.isfinite(used) else ("", {})


def _objective(found: Regrets, name: str, where: str) -> Statement:
    cost, said = _cost(found, "objective")
    clusters, used = _clusters(found, "objective")
    row = found.table.T["objective"]
    accuracy = ""
    if np.isfinite(row["acc_regret"]):
        accuracy = " In ACC it costs {acc_regret:.3f}."
        used["acc_regret"] = float(row["acc_regret"])
    return Statement(
        name,
        "{where}: the study's objective picks trial {trial}, " + cost + "." + accuracy + clusters,
        {"where": where, "trial": str(row["trial"]), **said, **used},
    )


def _as_chosen(complete: Regrets, name: str, where: str) -> Statement:
    cost, said = _cost(complete, "objective")
    clusters, used = _clusters(complete, "objective")
    return Statement(
        name,
        "{where}: with the trials that TPE placed, the objective picks trial {trial}, " + cost + "." + clusters,
        {"where": where, "trial": str(complete.table.loc["objective", "trial"]), **said, **used},
    )


def _table(found: Regrets, with_ami: dict[str, Correlation], where: str) -> Table:
    return Table(
        f"{where}: the trial that each criterion picks among {found.n}, and Spearman's ρ of the criterion, signed so "
        "that higher is better, with AMI. The lowest of many regrets flatters its criterion: confirm it "
        "on another study.",
        (
            "criterion",
            "trial",
            "clusters used",
            "AMI",
            "regret",
            "95 %",
            "ACC",
            "regret, ACC",
            "95 %, ACC",
            "ρ",
            "95 %, ρ",
        ),
        tuple(_row(found, with_ami.get(str(criterion)), row) for criterion, row in found.table.iterrows()),
    )


def _row(found: Regrets, with_ami: Correlation | None, row: pd.Series[Any]) -> tuple[str, ...]:
    more = int(row["tied"]) - 1
    return (
        str(row["label"]),
        str(row["trial"]) + (f" (and {more} tied)" if more and row.name != RANDOM else ""),
        _number(row["clusters"], ".1f" if row.name == RANDOM else ".0f"),
        *(
            cell
            for name in ("ami", "acc")
            for cell in (
                _number(row[name]),
                _number(row[f"{name}_regret"]),
                _number(row[f"{name}_low"])
                + (f" to {row[f'{name}_high']:.3f}" if np.isfinite(row[f"{name}_low"]) else ""),
            )
        ),
        *_rho(with_ami, interval=found.inference),
    )


def _rho(found: Correlation | None, *, interval: bool) -> tuple[str, str]:
    if found is None or found.rho is None:
        return "–", "–"
    return f"{found.rho:+.2f}", f"{found.low:+.2f} to {found.high:+.2f}" if interval else "–"


def _number(value: float, form: str = ".3f") -> str:
    return format(value, form) if np.isfinite(value) else "–"
