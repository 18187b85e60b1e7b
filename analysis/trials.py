"""The tables of one or several results folders, and which of their rows answer a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catuvac.errors import CatuvacError
from catuvac.metrics import DECIDED
from catuvac.plan import BRANCH
from catuvac.results import HISTORY, HISTORY_SCHEMA, STATUSES, TRIALS, TRIALS_SCHEMA, read_history, read_trials

DESIGNED = ("random", "qmc", "grid", "factorial")  # arms that cover the search space before there is any result
INDEPENDENT = (*DESIGNED, "confirm")  # arms whose points no result has placed; confirm runs repeat what did well
KEY = ["study", "trial_id"]


@dataclass(frozen=True)
class Study:
    """One results folder, or several.

    Attributes:
        name: of the study, or of the studies joined by a comma.
        trials: a row per trial, by study and number; `load_all` adds the column `config/tau_mean`.
        history: a row per evaluation, by trial and epoch; no rows where no trial reached its first evaluation.
        problems: what could not be read, a sentence each.
    """

    name: str
    trials: pd.DataFrame
    history: pd.DataFrame
    problems: tuple[str, ...] = ()

    @property
    def complete(self) -> pd.DataFrame:
        """Trials that ran to their last epoch and have an objective: a stopped one never reached tau_end."""
        return self.trials[(self.trials["status"] == "complete") & self.trials["objective"].notna()]

    @property
    def independent(self) -> pd.DataFrame:
        """The complete trials that carry inference: those that no sampler placed where earlier ones did well."""
        return self.complete[self.complete["arm"].isin(INDEPENDENT)]

    def panels(self) -> dict[str, Study]:
        """The trials of Cat. UVAC by corpus and K, each as a study of its own, by titles such as "fsdd, K = 10".

        Branches are no part of it: no search placed them, and they share their first epochs.
        """
        mine = self.trials[(self.trials["method"] == "cat_uvac") & (self.trials["arm"] != BRANCH)]
        found = {}
        for (corpus, k), trials in mine.groupby(["corpus", "n_clusters"], sort=True):
            keys = pd.MultiIndex.from_frame(trials[KEY])
            history = self.history[pd.MultiIndex.from_frame(self.history[KEY]).isin(keys)]
            found[f"{corpus}, K = {k}"] = replace(self, trials=trials, history=history)
        return found

    def counts(self) -> dict[str, int]:
        """Trials by status, every status present."""
        return {status: int((self.trials["status"] == status).sum()) for status in STATUSES}


def load(folder: Path) -> Study:
    """Reads a results folder.

    Raises:
        CatuvacError: no such folder, no table of trials, or a damaged table.
    """
    if not folder.is_dir():
        raise CatuvacError(f"no folder {folder}; give the results folder of a study, such as results/NAME")
    trials = read_trials(folder).sort_values(["study", "number"], ignore_index=True)
    if (folder / HISTORY).exists():
        history = read_history(folder).sort_values(["study", "trial_id", "epoch"], ignore_index=True)
    else:
        history = pd.DataFrame({name: [] for name in HISTORY_SCHEMA.names})
    return Study(name=", ".join(trials["study"].unique()), trials=trials, history=history)


def load_all(folders: Sequence[Path]) -> Study:
    """Reads folders side by side; a table that is damaged is left out and named in `problems`.

    Raises:
        CatuvacError: no such folder, or two folders that hold a study of the same name.
    """
    trials, histories, problems = [], [], []
    for folder in folders:
        if not folder.is_dir():
            raise CatuvacError(f"no folder {folder}; give the results folder of a study, such as results/NAME")
        try:
            trials.append(read_trials(folder))
        except CatuvacError as error:
            why = f"{folder.name} has no {TRIALS} yet" if not (folder / TRIALS).exists() else str(error)
            problems.append(why)
            continue
        try:
            histories += [read_history(folder)] if (folder / HISTORY).exists() else []
        except CatuvacError as error:
            problems.append(str(error))
    names = [name for table in trials for name in table["study"].unique()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CatuvacError(f"two of the folders hold a study named {', '.join(twice)}; give each folder once")
    empty = pd.DataFrame({name: [] for name in TRIALS_SCHEMA.names})
    table = pd.concat(trials, ignore_index=True) if trials else empty
    nothing = pd.DataFrame({name: [] for name in HISTORY_SCHEMA.names})
    history = pd.concat(histories, ignore_index=True) if histories else nothing
    table = table.assign(**{"config/tau_mean": _mean_temperature(table)})
    return Study(
        name=", ".join(names) or ", ".join(folder.name for folder in folders),
        trials=table.sort_values(["study", "number"], ignore_index=True),
        history=history.sort_values([*KEY, "epoch"], ignore_index=True),
        problems=tuple(problems),
    )


def units(trials: pd.DataFrame) -> NDArray[np.int64]:
    """Codes `[n]` of what was drawn independently: a trial, but all seeds of one setting of a confirm run together."""
    settings = [str(name) for name in trials.columns if str(name).startswith("config/") and name != "config/seed"]
    own = trials["study"].astype(str) + "/" + trials["trial_id"].astype(str)
    confirm = (trials["arm"] == "confirm").to_numpy(dtype=bool)
    if confirm.any():
        hashed = pd.util.hash_pandas_object(trials[settings].astype(str), index=False).astype(str)
        own = own.where(~confirm, hashed)
    return np.unique(own.to_numpy(dtype=str), return_inverse=True)[1].astype(np.int64)


def _mean_temperature(trials: pd.DataFrame) -> pd.Series[float]:
    """Mean of tau over a whole training: the integral of `catuvac.training.schedules.anneal` over its progress."""
    start, end = values(trials, "config/tau_start"), values(trials, "config/tau_end")
    schedule = trials.get("config/tau_schedule", pd.Series(pd.NA, index=trials.index)).astype(object)
    straight = (start + end) / 2  # linear, and cosine, which is symmetric about its middle
    with np.errstate(divide="ignore", invalid="ignore"):
        curved: pd.Series[float] = (start - end) / np.log(start / end)
    exponential = (schedule == "exponential") & (start != end)
    return straight.mask(exponential, curved)


def values(frame: pd.DataFrame, column: str) -> pd.Series[float]:
    """A column as floats, NaN for null and for a column that does not exist."""
    if column not in frame:
        return pd.Series(np.nan, index=frame.index, dtype=float)
    return pd.Series(frame[column].to_numpy(dtype=float, na_value=np.nan), index=frame.index)


def undecided(trials: pd.DataFrame) -> NDArray[np.bool_]:
    """In which trials `[n]` I(x; y) is at most ½ log K: the most probable clusters are near-ties."""
    largest = np.log(values(trials, "n_clusters"))
    return (values(trials, "val/mutual_information") <= DECIDED * largest).to_numpy(dtype=bool)


def floats(frame: pd.DataFrame, column: str) -> NDArray[np.float64]:
    """`values` as an array `[n]`."""
    return np.asarray(values(frame, column), dtype=np.float64)


def splits(trials: pd.DataFrame) -> list[str]:
    """Which split each trial used, in words: "random", "grouped by speaker", "not recorded"."""
    absent = pd.Series(pd.NA, index=trials.index)
    kinds, groups = (trials.get(f"config/{name}", absent) for name in ("split", "group"))
    return [
        "not recorded" if pd.isna(kind) else f"{kind} by {group}" if kind == "grouped" else str(kind)
        for kind, group in zip(kinds, groups, strict=True)
    ]
