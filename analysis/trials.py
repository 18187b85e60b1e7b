"""Reads the tables of one or several results folders, and selects the rows that answer a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.columns import SETTINGS, title
from catuvac.config import OMITTED, unknown
from catuvac.errors import CatuvacError
from catuvac.evaluation.metrics import DECIDED
from catuvac.experiments.base import BRANCH, DESIGN
from catuvac.results import HISTORY, HISTORY_SCHEMA, STATUSES, TRIALS, TRIALS_SCHEMA, read_history, read_trials
from catuvac.training.schedules import SCHEDULES

DESIGNED = ("random", "qmc", "grid", "factorial")  # arms that cover the search space before there is any result
NOT_A_SETTING = ("config/seed", "config/split_seed", "config/tau_mean")  # ignored when trials are compared as repeats
KEY = ["study", "trial_id"]


@dataclass(frozen=True)
class Study:
    """One results folder, or several.

    Attributes:
        name: of the study, or of the studies, separated by commas.
        trials: one row per trial, by study and number; `load_all` adds the column `config/tau_mean`.
        history: one row per evaluation, by trial and epoch; empty if no trial reached its first evaluation.
        problems: one sentence for each file that could not be read.
    """

    name: str
    trials: pd.DataFrame
    history: pd.DataFrame
    problems: tuple[str, ...] = ()

    @property
    def complete(self) -> pd.DataFrame:
        """Trials that ran to their last epoch and have an objective; a stopped trial never reached tau_end."""
        return self.trials[(self.trials["status"] == "complete") & self.trials["objective"].notna()]

    @property
    def independent(self) -> pd.DataFrame:
        """The complete trials for inference: unlike those of TPE and confirm runs, they do not depend on results."""
        return self.complete[self.complete["arm"].isin(DESIGNED)]

    def panels(self) -> dict[str, Study]:
        """Splits the trials of Cat. UVAC into one study per corpus and K, by titles such as "fsdd, K = 10".

        Studies that trained differently (with other epochs, for example) are separate panels, whose titles state the
        difference. Branches are left out: no search placed them, and they share their first epochs.
        """
        cat_uvac = self.trials[(self.trials["method"] == "cat_uvac") & (self.trials["arm"] != BRANCH)]
        panels = {}
        for (corpus, k), trials in cat_uvac.groupby(["corpus", "n_clusters"], sort=True):
            for differs, part in _alike(trials):
                keys = pd.MultiIndex.from_frame(part[KEY])
                history = self.history[pd.MultiIndex.from_frame(self.history[KEY]).isin(keys)]
                panels[f"{corpus}, K = {k}{differs}"] = replace(self, trials=part, history=history)
        return panels

    @property
    def absent(self) -> str:
        """Says why `panels` is empty."""
        branches = (self.trials["arm"] == BRANCH).any()
        return "all trials of Cat. UVAC are branches" if branches else "no trial of Cat. UVAC has been recorded"

    def counts(self) -> dict[str, int]:
        """Counts the trials by status, including statuses without trials."""
        return {status: int((self.trials["status"] == status).sum()) for status in STATUSES}


def _alike(trials: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Groups the trials by the settings that are fixed within studies but differ between them, with their names."""
    if trials["study"].nunique() == 1:
        return [("", trials)]
    names = [n for n in map(str, trials.columns) if n.startswith("config/") and n not in NOT_A_SETTING]
    # A column that an older table lacks is not a difference.
    words = trials[names].astype(object).where(trials[names].notna()).apply(lambda column: column.bfill().ffill())
    words = words.astype(str)
    searched = words.groupby(trials["study"]).nunique().max() > 1
    # Confirm runs, which vary few settings, repeat searched settings.
    fixed = [name for name in names if not searched[name] and name not in SETTINGS]
    differing = [name for name in fixed if words[name].nunique() > 1]
    if not differing:
        return [("", trials)]
    groups = []
    for values_, part in words.groupby(differing, sort=True):
        difference = ", ".join(f"{title(name)} {value}" for name, value in zip(differing, values_, strict=True))
        groups.append((f" ({difference})", trials.loc[part.index]))
    return groups


def load_all(folders: Sequence[Path]) -> Study:
    """Reads several folders into one study; a damaged table is left out and listed in `problems`.

    Raises:
        CatuvacError: a folder does not exist or contains no study, two folders contain a study of the same name, or a
            table of trials is damaged and no other can be read.
    """
    trials, histories, problems, damage = [], [], [], []
    for folder in folders:
        if not folder.is_dir():
            raise CatuvacError(f"no folder {folder}; give the results folder of a study, such as results/NAME")
        if not any((folder / name).exists() for name in (TRIALS, DESIGN)):
            raise CatuvacError(f"{folder} contains no study; give the results folder of a study, such as results/NAME")
        try:
            trials.append(read_trials(folder))
        except CatuvacError as error:
            if (folder / TRIALS).exists():
                damage.append(error)
            problems.append(str(error) if (folder / TRIALS).exists() else f"{folder.name} has no {TRIALS} yet")
            continue
        try:
            histories += [read_history(folder)] if (folder / HISTORY).exists() else []
        except CatuvacError as error:
            problems.append(str(error))
    if damage and not trials:
        raise damage[0]
    names = [name for table in trials for name in table["study"].unique()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CatuvacError(f"two of the folders contain a study named {', '.join(twice)}; give each folder once")
    empty = pd.DataFrame({name: [] for name in TRIALS_SCHEMA.names})
    table = _whole(pd.concat(trials, ignore_index=True)) if trials else empty
    nothing = pd.DataFrame({name: [] for name in HISTORY_SCHEMA.names})
    history = pd.concat(histories, ignore_index=True) if histories else nothing
    table = table.assign(**{"config/tau_mean": _mean_temperature(table)})
    return Study(
        name=", ".join(names) or ", ".join(folder.name for folder in folders),
        trials=table.sort_values(["study", "number"], ignore_index=True),
        history=history.sort_values([*KEY, "epoch"], ignore_index=True),
        problems=tuple(problems),
    )


def study_name(folder: Path) -> str:
    """Returns the name of a study in its table, which a folder that was copied or renamed keeps."""
    try:
        return str(read_trials(folder)["study"].iloc[0])
    except (CatuvacError, IndexError):
        return folder.resolve().name  # there is no row yet, or the table is damaged


def _whole(trials: pd.DataFrame) -> pd.DataFrame:
    """Fills in the defaults of settings that some rows leave out and other rows have."""
    # A list does not fit in one table cell, and no study searches such a setting.
    return trials.fillna({f"config/{name}": default for name, default in OMITTED.items() if default != ()})


def settings(trials: pd.DataFrame) -> NDArray[np.int64]:
    """Returns codes `[n]` of the settings, equal for trials that differ only in seeds, even across studies."""
    return _codes(trials, [])


def units(trials: pd.DataFrame) -> NDArray[np.int64]:
    """Returns codes `[n]` of the independently drawn units: one setting of one study, with all of its seeds."""
    return _codes(trials, ["study"])


def share_seeds(trials: pd.DataFrame) -> bool:
    """Returns whether several settings were trained on every seed; one start then moves all trials of its seed."""
    return len(trials) > 0 and int(pd.Series(settings(trials)).groupby(trials["seed"].to_numpy()).nunique().min()) > 1


def within_seeds(trials: pd.DataFrame, *columns: str) -> list[NDArray[np.float64]]:
    """Returns columns `[n]`, relative to the mean of each seed where settings share seeds."""
    numbers = [values(trials, column) for column in columns]
    if share_seeds(trials):
        seeds = trials["seed"].to_numpy()
        numbers = [column - column.groupby(seeds).transform("mean") for column in numbers]
    return [np.asarray(column, dtype=np.float64) for column in numbers]


def _codes(trials: pd.DataFrame, further: list[str]) -> NDArray[np.int64]:
    names = [name for name in map(str, trials.columns) if name.startswith("config/") and name not in NOT_A_SETTING]
    words: Any = trials[[*further, *names]].astype(str)
    hashed = pd.util.hash_pandas_object(words, index=False).to_numpy()
    return np.unique(hashed, return_inverse=True)[1].astype(np.int64)


def _mean_temperature(trials: pd.DataFrame) -> pd.Series[float]:
    """Returns the mean of tau over the schedule of each trial; NaN if not recorded."""
    start, end = values(trials, "config/tau_start"), values(trials, "config/tau_end")
    shapes = trials.get("config/tau_schedule", pd.Series(pd.NA, index=trials.index)).astype(object)
    mean = pd.Series(np.nan, index=trials.index, dtype=float)
    for shape in shapes.dropna().unique():
        if shape not in SCHEDULES:
            raise CatuvacError(unknown("tau_schedule in the table of trials,", str(shape), SCHEDULES))
        rows = (shapes == shape).to_numpy(dtype=bool)
        mean[rows] = SCHEDULES[shape].mean(start[rows].to_numpy(), end[rows].to_numpy())
    return mean


def values(frame: pd.DataFrame, column: str) -> pd.Series[float]:
    """Returns a column as floats; NaN for null and for a column that does not exist."""
    if column not in frame:
        return pd.Series(np.nan, index=frame.index, dtype=float)
    return pd.Series(frame[column].to_numpy(dtype=float, na_value=np.nan), index=frame.index)


def undecided(trials: pd.DataFrame) -> NDArray[np.bool_]:
    """Marks the trials `[n]` with I(x; y) of at most ½ log K, whose most probable clusters are near-ties."""
    largest = np.log(values(trials, "n_clusters"))
    return (values(trials, "val/mutual_information") <= DECIDED * largest).to_numpy(dtype=bool)


def reads_temperature(trials: pd.DataFrame) -> NDArray[np.bool_]:
    """Marks the trials `[n]` that sample y at a temperature: all but those whose estimator is the exact sum over y."""
    estimators = trials.get("config/y_estimator", pd.Series("", index=trials.index))
    return ~estimators.isin(["exact"]).to_numpy(dtype=bool)


def floats(frame: pd.DataFrame, column: str) -> NDArray[np.float64]:
    """Returns `values` as an array `[n]`."""
    return np.asarray(values(frame, column), dtype=np.float64)


def splits(trials: pd.DataFrame) -> list[str]:
    """Describes the split of each trial: "random", "grouped by speaker", "not recorded"."""
    absent = pd.Series(pd.NA, index=trials.index)
    kinds, groups = (trials.get(f"config/{name}", absent) for name in ("split", "group"))
    return [
        "not recorded" if pd.isna(kind) else f"{kind} by {group}" if kind == "grouped" else str(kind)
        for kind, group in zip(kinds, groups, strict=True)
    ]
