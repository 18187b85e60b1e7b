"""What selecting a trial without labels costs, in words, a figure and a table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.figures import selection as figures
from analysis.questions.selection import RANDOM, Regrets, correlations, regrets
from analysis.section import Group, Section, Statement, Table, Value, slug
from analysis.stats.bootstrap import Correlation
from analysis.trials import Study, values


def section(study: Study) -> Section:
    """Builds the section on the regret of every criterion, by corpus and K."""
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
        shown = unplaced if unplaced is not None and apart else complete
        name = f"selection/{slug(title)}"
        statements.append(_objective(shown, f"{name}/objective", title))
        headline.append(f"{name}/objective")
        if apart and placed:
            statements.append(_as_chosen(complete, f"{name}/study", title))
        parts.append(
            Group(
                f"{title}: AMI lost by selecting one of {shown.n} trials by each label-free score. "
                f"{_how(shown, complete, placed)}",
                (figures.draw(shown, complete if placed else None, name=slug("selection", title)),),
            )
        )
        parts.append(_table(shown, correlations(panel.independent if apart else panel.complete), title))
    if not panels:
        parts.append(Group(f"There is nothing to select from, because {study.absent}."))
    return Section("What does selecting without labels cost?", tuple(statements), tuple(parts), tuple(headline))


def _why_not(panel: Study) -> str:
    known = values(panel.complete, "val/ami").dropna()
    if panel.complete.empty:
        return "no trial is complete"
    if known.empty:
        return "there are no labels"
    return "only one complete trial has labels" if len(known) == 1 else "AMI is the same in every trial"


def _how(shown: Regrets, complete: Regrets, placed: bool) -> str:
    if shown.inference:
        how = (
            "Filled: trials of designed arms, with 95 % bootstrap intervals over trials (only a guide, because the "
            "bootstrap is unreliable for a maximum); line and band: a random pick."
        )
        how += (
            f" Hollow: among all {complete.n} complete trials, including those of TPE or a confirm run, with clusters "
            "in brackets."
            if placed
            else ""
        )
    else:
        why = "TPE or a confirm run placed some of these trials" if placed else "These trials are too few"
        how = f"Line: a random pick. {why}, so there is no interval."
    return f"{how} On the right: the number of clusters that the picked trial uses. Tied trials share the pick."


def _cost(shown: Regrets, criterion: str) -> tuple[str, dict[str, Value]]:
    """Describes the regret, with its interval if it has one, and compares it with that of a random pick."""
    row, blind = shown.table.T[criterion], shown.blind
    facts: dict[str, Value] = {"regret": float(row["ami_regret"]), "random": float(blind["ami_regret"]), "n": shown.n}
    if not shown.inference:
        return "{regret:.3f} AMI below the best of {n} trials; a random pick loses {random:.3f}", facts
    facts |= {"low": float(row["ami_low"]), "high": float(row["ami_high"])}
    if row["ami_gain_low"] > 0:
        verdict = "better than"
    elif row["ami_gain_high"] < 0:
        verdict = "worse than"
    else:
        verdict = "not distinguishable from"
    text = "{regret:.3f} AMI (95 % interval {low:.3f} to {high:.3f}) below the best of {n} trials, "
    return text + "{verdict} a random pick, which loses {random:.3f}", facts | {"verdict": verdict}


def _clusters(shown: Regrets, criterion: str) -> tuple[str, dict[str, Value]]:
    used = float(shown.table["clusters"][criterion])
    return (" It uses {clusters:.0f} clusters.", {"clusters": used}) if np.isfinite(used) else ("", {})


def _objective(shown: Regrets, name: str, where: str) -> Statement:
    cost, facts = _cost(shown, "objective")
    clusters, used = _clusters(shown, "objective")
    row = shown.table.T["objective"]
    accuracy = ""
    if np.isfinite(row["acc_regret"]):
        accuracy = " The loss in ACC is {acc_regret:.3f}."
        used["acc_regret"] = float(row["acc_regret"])
    return Statement(
        name,
        "{where}: the study's objective picks trial {trial}, " + cost + "." + accuracy + clusters,
        {"where": where, "trial": str(row["trial"]), **facts, **used},
    )


def _as_chosen(complete: Regrets, name: str, where: str) -> Statement:
    cost, facts = _cost(complete, "objective")
    clusters, used = _clusters(complete, "objective")
    return Statement(
        name,
        "{where}: if the trials of TPE or a confirm run are included, the objective picks trial {trial}, "
        + cost
        + "."
        + clusters,
        {"where": where, "trial": str(complete.table.loc["objective", "trial"]), **facts, **used},
    )


def _table(shown: Regrets, with_ami: dict[str, Correlation], where: str) -> Table:
    return Table(
        f"{where}: the trial that each criterion picks among {shown.n}, and Spearman's ρ between AMI and the "
        "criterion, signed so that higher is better, both relative to the mean of their seed where settings share "
        "seeds: a pick among all trials can also be that of a seed with a good start. The lowest of many regrets is "
        "biased in favour of its criterion: "
        "confirm it on another study.",
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
        tuple(_row(shown, with_ami.get(str(criterion)), row) for criterion, row in shown.table.iterrows()),
    )


def _row(shown: Regrets, with_ami: Correlation | None, row: pd.Series[Any]) -> tuple[str, ...]:
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
        *_rho(with_ami, interval=shown.inference),
    )


def _rho(correlation: Correlation | None, *, interval: bool) -> tuple[str, str]:
    if correlation is None or correlation.rho is None:
        return "–", "–"
    return f"{correlation.rho:+.2f}", f"{correlation.low:+.2f} to {correlation.high:+.2f}" if interval else "–"


def _number(value: float, form: str = ".3f") -> str:
    return format(value, form) if np.isfinite(value) else "–"
