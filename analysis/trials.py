"""The tables of one or several results folders, and which of their rows answer a question."""

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
NOT_A_SETTING = ("config/seed", "config/split_seed", "config/tau_mean")  # of what makes two trials repeats
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
        """The complete trials that carry inference: no result has placed them, as TPE's and confirm runs' were."""
        return self.complete[self.complete["arm"].isin(DESIGNED)]

    def panels(self) -> dict[str, Study]:
        """The trials of Cat. UVAC by corpus and K, each as a study of its own, by titles such as "fsdd, K = 10".

        Studies that trained otherwise (other epochs, say) are panels of their own, and the titles say what differs.
        Branches are no part of it: no search placed them, and they share their first epochs.
        """
        mine = self.trials[(self.trials["method"] == "cat_uvac") & (self.trials["arm"] != BRANCH)]
        found = {}
        for (corpus, k), trials in mine.groupby(["corpus", "n_clusters"], sort=True):
            for differs, part in _alike(trials):
                keys = pd.MultiIndex.from_frame(part[KEY])
                history = self.history[pd.MultiIndex.from_frame(self.history[KEY]).isin(keys)]
                found[f"{corpus}, K = {k}{differs}"] = replace(self, trials=part, history=history)
        return found

    def counts(self) -> dict[str, int]:
        """Trials by status, every status present."""
        return {status: int((self.trials["status"] == status).sum()) for status in STATUSES}


def _alike(trials: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The trials by the settings that each study keeps fixed and the studies differ in, with those in words."""
    if trials["study"].nunique() == 1:
        return [("", trials)]
    names = [n for n in map(str, trials.columns) if n.startswith("config/") and n not in NOT_A_SETTING]
    # What an older table does not hold is no difference.
    words = trials[names].astype(object).where(trials[names].notna()).apply(lambda column: column.bfill().ffill())
    words = words.astype(str)
    searched = words.groupby(trials["study"]).nunique().max() > 1
    # Confirm runs, which vary little, repeat what was searched.
    fixed = [name for name in names if not searched[name] and name not in SETTINGS]
    differing = [name for name in fixed if words[name].nunique() > 1]
    if not differing:
        return [("", trials)]
    found = []
    for values_, part in words.groupby(differing, sort=True):
        said = ", ".join(f"{title(name)} {value}" for name, value in zip(differing, values_, strict=True))
        found.append((f" ({said})", trials.loc[part.index]))
    return found


def load(folder: Path) -> Study:
    """Reads a results folder.

    Raises:
        CatuvacError: no such folder, no table of trials, or a damaged table.
    """
    if not folder.is_dir():
        raise CatuvacError(f"no folder {folder}; give the results folder of a study, such as results/NAME")
    trials = _whole(read_trials(folder)).sort_values(["study", "number"], ignore_index=True)
    if (folder / HISTORY).exists():
        history = read_history(folder).sort_values(["study", "trial_id", "epoch"], ignore_index=True)
    else:
        history = pd.DataFrame({name: [] for name in HISTORY_SCHEMA.names})
    return Study(name=", ".join(trials["study"].unique()), trials=trials, history=history)


def load_all(folders: Sequence[Path]) -> Study:
    """Reads folders side by side; a table that is damaged is left out and named in `problems`.

    Raises:
        CatuvacError: no such folder, one without a study, two that hold a study of the same name, or a damaged table of
            trials where no other can be read.
    """
    trials, histories, problems, damage = [], [], [], []
    for folder in folders:
        if not folder.is_dir():
            raise CatuvacError(f"no folder {folder}; give the results folder of a study, such as results/NAME")
        if not any((folder / name).exists() for name in (TRIALS, DESIGN)):
            raise CatuvacError(f"{folder} holds no study; give the results folder of one, such as results/NAME")
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
        raise CatuvacError(f"two of the folders hold a study named {', '.join(twice)}; give each folder once")
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


def _whole(trials: pd.DataFrame) -> pd.DataFrame:
    """The table with the settings that rows at their default leave out, where other rows have them."""
    # Words are no single value of a table, and no study searches them.
    return trials.fillna({f"config/{name}": default for name, default in OMITTED.items() if default != ()})


def settings(trials: pd.DataFrame) -> NDArray[np.int64]:
    """Codes `[n]` of the settings: equal for trials that differ in nothing but seeds, in whichever study they ran."""
    return _codes(trials, [])


def units(trials: pd.DataFrame) -> NDArray[np.int64]:
    """Codes `[n]` of what was drawn independently: one setting of one study, whatever its seeds."""
    return _codes(trials, ["study"])


def _codes(trials: pd.DataFrame, further: list[str]) -> NDArray[np.int64]:
    names = [name for name in map(str, trials.columns) if name.startswith("config/") and name not in NOT_A_SETTING]
    words: Any = trials[[*further, *names]].astype(str)
    hashed = pd.util.hash_pandas_object(words, index=False).to_numpy()
    return np.unique(hashed, return_inverse=True)[1].astype(np.int64)


def _mean_temperature(trials: pd.DataFrame) -> pd.Series[float]:
    """Mean of tau over the schedule of each trial; NaN where it is not recorded."""
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
    """A column as floats, NaN for null and for a column that does not exist."""
    if column not in frame:
        return pd.Series(np.nan, index=frame.index, dtype=float)
    return pd.Series(frame[column].to_numpy(dtype=float, na_value=np.nan), index=frame.index)


def undecided(trials: pd.DataFrame) -> NDArray[np.bool_]:
    """In which trials `[n]` I(x; y) is at most ½ log K: the most probable clusters are near-ties."""
    largest = np.log(values(trials, "n_clusters"))
    return (values(trials, "val/mutual_information") <= DECIDED * largest).to_numpy(dtype=bool)


def reads_temperature(trials: pd.DataFrame) -> NDArray[np.bool_]:
    """Which trials `[n]` sample y at a temperature: all but those whose estimator is the exact sum over y."""
    estimators = trials.get("config/y_estimator", pd.Series("", index=trials.index))
    return ~estimators.isin(["exact"]).to_numpy(dtype=bool)


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
