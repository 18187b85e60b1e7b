"""What was run, how long it took, and which trial the study's objective selects."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.columns import title
from analysis.questions.selection import select
from analysis.section import Section, Statement, Table, Value
from analysis.table import number, varied_settings
from analysis.trials import Study, splits, undecided, values
from catuvac.config import PAPER_METHOD
from catuvac.experiments.base import duration


def section(study: Study) -> Section:
    """Builds the section, all of whose statements are headlines."""
    statements = [_run(study)]
    statements += [Statement(f"run/problem-{i}", "{why}.", {"why": why}) for i, why in enumerate(study.problems)]
    statements += _paper(study)
    parts = []
    for name, panel in study.panels().items():
        chosen = select(panel)
        if chosen is None:
            text = "{panel}: no trial completed with an objective, so there is no best trial."
            statements.append(Statement(f"best/{name}", text, {"panel": name}))
            continue
        statements += _best(name, chosen)
        settings = [(title(column), number(chosen[column])) for column in varied_settings(panel)]
        if settings:
            parts.append(
                Table(
                    f"{name}: the varied settings of the best trial.",
                    ("setting", "value"),
                    tuple(settings),
                )
            )
    return Section("What was run", tuple(statements), tuple(parts), tuple(one.name for one in statements))


def _run(study: Study) -> Statement:
    trials = study.trials
    if trials.empty:
        return Statement("run", "No trial has been recorded yet.")
    arms = {str(name): int(n) for name, n in trials["arm"].value_counts().items()}
    counts = study.counts()
    described = trials.assign(split=splits(trials))
    facts: dict[str, Value] = {
        "trials": len(trials),
        "what": "trial" if len(trials) == 1 else "trials",
        "arms": ", ".join(f"{name} {n}" for name, n in arms.items()),
        **{
            name: ", ".join(map(str, described[name].dropna().unique()))
            for name in ("method", "corpus", "split", "n_clusters")
        },
        **counts,
        "time": duration(float(values(trials, "wall_seconds").sum())),
    }
    return Statement(
        "run",
        "{trials} {what} of {method} on {corpus} (split: {split}), K = {n_clusters} ({arms}): {complete} complete, "
        "{stopped} stopped early, {diverged} diverged, {error} failed with an error; {time} of trial time in total. "
        "Only complete trials are used below, because a trial stopped early never reaches its final temperature.",
        facts,
    )


def _paper(study: Study) -> list[Statement]:
    """Summarises the trials under the paper's own protocol, one sentence per corpus and K."""
    by_protocol = study.complete[study.complete["method"] == PAPER_METHOD]
    statements = []
    for (corpus, _), trials in by_protocol.groupby(["corpus", "n_clusters"], sort=True):
        k = int(trials["n_clusters"].iloc[0])
        facts: dict[str, Value] = {
            "panel": f"{corpus}, K = {k}",
            "n": len(trials),
            "decided": int((~undecided(trials)).sum()),
            "used": float(values(trials, "val/clusters_used").mean()),
            "k": k,
        }
        text = (
            "{panel}: under the paper's protocol (random initialisation, no added term), q(y|x) decided in {decided} "
            "of {n} training runs, which use {used:.1f} of {k} clusters on average"
        )
        agreement = values(trials, "val/ami").dropna()
        if len(agreement):
            facts |= {"low": float(agreement.min()), "high": float(agreement.max())}
            text += "; AMI with the label ranges from {low:.2f} to {high:.2f}"
        statements.append(Statement(f"paper/{corpus}-k{k}", text + ".", facts))
    return statements


def _best(name: str, best: dict[str, Any]) -> list[Statement]:
    """Describes the best trial; its p-space Silhouette appears only together with the number of clusters used."""
    facts: dict[str, Value] = {
        "panel": name,
        "number": best["number"],
        "trial": best["trial_id"],
        "objective": best["objective"],
        "k": best["n_clusters"],
    }
    text = "{panel}: by the label-free objective, the best trial is number {number} ({trial}), at {objective:.3f}"
    if best.get("val/clusters_used") is not None:
        facts["clusters_used"] = best["val/clusters_used"]
        text += ", {clusters_used:.0f} of {k} clusters used"
    if best.get("val/y_decided") is not None and not best["val/y_decided"]:
        text += ", but with q(y|x) undecided, so its clusters are near-ties"
    for space in "xzp" if "clusters_used" in facts else "xz":
        score = best.get(f"val/silhouette_{space}")
        if score is not None:
            facts[f"silhouette_{space}"] = score
            text += f", Silhouette {{silhouette_{space}:.2f}} in {space}"
    statements = [Statement(f"best/{name}", text + ".", facts)]
    known = {column.removeprefix("val/"): value for column, value in best.items() if not pd.isna(value)}
    if "ami" in known:
        nuisances = [column for column in known if column.startswith("ami_")]
        words = [
            "{ami:.2f} with the label",
            *(f"{{{name}:.2f}} with {name.removeprefix('ami_')}" for name in nuisances),
        ]
        text = f"{{panel}}: AMI of the best trial's clusters: {', '.join(words)}. No label was used to select it."
        scores = {"panel": name, **{column: known[column] for column in ("ami", *nuisances)}}
        statements.append(Statement(f"follow/{name}", text, scores))
    return statements
