"""What choosing without labels costs, in words, a picture and a table."""

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
