"""The table of all trials for display: column titles, formatted values, and reasons for missing values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.columns import title
from analysis.trials import Study
from catuvac.evaluation.objectives import reads_labels

DASH = "–"


@dataclass(frozen=True)
class Cell:
    """The text of a cell, the key that its column sorts by, and why the text is a dash if it is one."""

    text: str
    key: str
    reason: str = ""


@dataclass(frozen=True)
class TrialTable:
    """The table of trials as the page shows it.

    Attributes:
        titles: of the columns.
        rows: one row of cells per trial, starting with the trial id, by the trial's row in `Study.trials`.
    """

    titles: list[str]
    rows: dict[int, list[Cell]]


def number(value: Any) -> str:
    """Formats a value with three significant digits, integers without decimals, and a missing value as a dash."""
    if value is None or pd.isna(value):
        return DASH
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value) or "(empty)"
    if float(value).is_integer() and abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:.3f}" if 0.01 <= abs(value) < 10 else f"{value:.3g}"


def varied_settings(study: Study) -> list[str]:
    """Returns the `config/` columns that differ between trials."""
    return [name for name in _config(study) if study.trials[name].nunique(dropna=False) > 1]


def constant_settings(study: Study) -> dict[str, Any]:
    """Returns the values of the other `config/` columns, if they have one."""
    varied = varied_settings(study)
    same = (name for name in _config(study) if name not in varied and study.trials[name].notna().any())
    return {name.removeprefix("config/"): study.trials[name].iloc[0] for name in same}


def trial_table(study: Study, most: int | None = None) -> TrialTable:
    """Lists the trials with every recorded score; scores in p follow the clusters used, never alone.

    Args:
        study: any number of corpora.
        most: the maximum number of trials, of which those with the highest objective are kept; None: all.
    """
    best = study.trials.sort_values("objective", ascending=False, kind="stable").index[:most]
    names: list[str] = study.trials.columns.tolist()
    several = ["study"] if study.trials["study"].nunique() > 1 else []
    columns = ["trial_id", *several, "objective", "status", *varied_settings(study)]
    for split in ("val/", "test/"):
        scores = [name for name in names if name.startswith(split) and name != f"{split}clusters_used"]
        in_p = [name for name in scores if name.endswith("_p")]
        used = [name for name in (f"{split}clusters_used",) if name in names]
        columns += [*used, *in_p, *(name for name in scores if name not in in_p)]
    columns += ["arm", "seed", "epochs", "wall_seconds"]
    kept = study.trials.loc[best.sort_values(), columns]
    rows = [[_cell(name, row[name], row["status"]) for name in columns] for row in kept.to_dict("records")]
    return TrialTable([title(name) for name in columns], dict(zip(kept.index.tolist(), rows, strict=True)))


def settings_in_words(study: Study) -> dict[int, str]:
    """Describes each trial by its name and its values of the varied settings, by its row in `Study.trials`."""
    columns = [name for name in varied_settings(study) if name != "config/tau_mean"]  # derived from the others
    several = study.trials["study"].nunique() > 1
    described = {}
    for row, trial in zip(study.trials.index.tolist(), study.trials.to_dict("records"), strict=True):
        words = [f"{title(name)} {number(trial[name])}" for name in columns if not pd.isna(trial[name])]
        where = f"{trial['study']} " if several else ""
        described[row] = f"{where}{trial['trial_id']}: {', '.join(words)}" if words else f"{where}{trial['trial_id']}"
    return described


def _config(study: Study) -> list[str]:
    return [name for name in study.trials.columns.tolist() if name.startswith("config/")]


def _cell(column: str, value: Any, status: str) -> Cell:
    if value is None or pd.isna(value):
        return Cell(DASH, "", _reason(column, status))
    return Cell(number(value), f"{value:.7g}" if isinstance(value, float) else str(value))


def _reason(column: str, status: str) -> str:
    name = column.rpartition("/")[2]
    if status in ("error", "diverged"):
        return f"the trial's status is {status}"
    if reads_labels(name):
        return "no labels"
    if column.startswith("test/"):
        return "only confirm runs use the test split"
    return "not recorded"
