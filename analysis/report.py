"""A study's report: one self-contained page, `report.html`, from its two tables.

Run: python -m analysis.report results/NAME
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis import figures
from analysis.dynamics import curves
from analysis.page import render
from analysis.selection import Selection, agreement_with_labels, select
from analysis.table import constant_settings, number, title, trial_table, varied_settings
from analysis.temperature import TemperatureEffect, effect
from analysis.trials import RankCorrelation, Study, load, splits
from catuvac.errors import guarded

REPORT = "report.html"
CURVES = {
    "tau": "temperature τ",
    "val/entropy_y": "assignment entropy H(y|x), nats",
    "val/effective_clusters": "effective clusters, exp H(mean q)",
}


@dataclass(frozen=True)
class Plot:
    """A drawing with its caption; `svg` is empty where there is nothing to draw, and the caption says why."""

    svg: str
    caption: str


def build(folder: Path, *, command: str = "") -> Path:
    """Writes `folder/report.html` and returns its path.

    Args:
        folder: a results folder with `trials.parquet` and, where any trial was evaluated, `history.parquet`.
        command: the command line that ran the study, to be shown.

    Raises:
        CatuvacError: no such folder, no table of trials, or a damaged table.
    """
    study = load(folder)
    filters: dict[str, Callable[..., str]] = {"number": number, "title": title, "duration": duration, "rho": rho}
    page = render(REPORT, {**_content(study), "command": command}, filters)
    path = folder / REPORT
    temporary = path.with_suffix(".tmp")
    temporary.write_text(page, encoding="utf-8")
    os.replace(temporary, path)
    return path


def duration(seconds: float) -> str:
    """Hours and minutes, minutes and seconds, or seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def rho(correlation: RankCorrelation) -> str:
    """Rho with its n, or why there is none."""
    if correlation.rho is None:
        return f"undefined ({correlation.reason}, n = {correlation.n})"
    return f"{correlation.rho:+.2f} (n = {correlation.n})"


def _content(study: Study) -> dict[str, Any]:
    trials = study.trials
    described = trials.assign(split=splits(trials))
    effects = [effect(study, setting) for setting in ("tau_end", "tau_start")]
    selection = select(study)
    return {
        "study": study,
        "counts": study.counts(),
        "arms": trials["arm"].value_counts().to_dict(),
        "distinct": {
            name: ", ".join(map(str, described[name].dropna().unique()))
            for name in ("corpus", "split", "method", "n_clusters", "revision")
        },
        "trial_seconds": float(trials["wall_seconds"].fillna(0).sum()),
        "started": f"{trials['started_at'].min()[:16].replace('T', ' ')} UTC" if len(trials) else "",
        "selection": selection,
        "best_settings": _settings_of_best(study, selection),
        "effects": effects,
        "plots": [*_temperature_plots(effects), *_curve_plots(study)],
        "agreement": agreement_with_labels(study) if selection and selection.acc is not None else {},
        "table": trial_table(study),
        "settings": constant_settings(study),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores, "
        f"Python {platform.python_version()}",
    }


def _settings_of_best(study: Study, selection: Selection | None) -> dict[str, Any]:
    return {name: selection.best[name] for name in varied_settings(study)} if selection else {}


def _temperature_plots(effects: list[TemperatureEffect]) -> list[Plot]:
    plots = []
    for found in effects:
        outcomes = ["objective", "clusters_used"]
        outcomes += ["acc"] if found.points["acc"].notna().any() else []
        for outcome in outcomes:
            words = (
                f"{figures.OUTCOME_LABELS[outcome].capitalize()} against the {figures.SETTING_LABELS[found.setting]}"
            )
            n = int(found.points[outcome].notna().sum())
            if n == 0:
                plots.append(Plot("", f"{words}: nothing to draw, because no complete trial recorded both."))
                continue
            plots.append(
                Plot(
                    figures.temperature_scatter(found, outcome),
                    f"{words}: a point per complete trial (n = {n}) at its last epoch, coloured by clusters used. "
                    f"Spearman rho {rho(found.rho[outcome])}.",
                )
            )
    return plots


def _curve_plots(study: Study) -> list[Plot]:
    plots = []
    for column, label in CURVES.items():
        found = curves(study, column)
        words = label[0].upper() + label[1:]
        if found.trials.empty:
            plots.append(Plot("", f"{words}, over training: nothing to draw, because no complete trial recorded it."))
            continue
        n = found.trials.shape[1]
        median = "; the bold line is the median of the trials evaluated at that epoch" if n > 1 else ""
        caption = f"{words}, over training: a line per complete trial (n = {n}), validation split{median}."
        plots.append(Plot(figures.learning_curves(found, label), caption))
    return plots


def main() -> int:
    """Builds a report from the command line."""
    parser = argparse.ArgumentParser(prog="python -m analysis.report", description="Write a study's report.html.")
    parser.add_argument("folder", type=Path, help="results folder of a study, such as results/NAME")
    parser.add_argument("--command", default="", help="the command line that ran the study, to be shown")
    arguments = parser.parse_args()
    return guarded(lambda: print(build(arguments.folder, command=arguments.command)))


if __name__ == "__main__":
    sys.exit(main())
