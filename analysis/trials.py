"""The tables of one results folder, and which of their rows answer a question."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from catuvac.errors import CatuvacError
from catuvac.results import HISTORY, HISTORY_SCHEMA, STATUSES, read_history, read_trials

MIN_PAIRS = 3  # two points always rank perfectly


@dataclass(frozen=True)
class Study:
    """One results folder.

    Attributes:
        name: of the study, or of the studies joined by a comma.
        trials: a row per trial, by number.
        history: a row per evaluation, by trial and epoch; no rows where no trial reached its first evaluation.
    """

    name: str
    trials: pd.DataFrame
    history: pd.DataFrame

    @property
    def complete(self) -> pd.DataFrame:
        """Trials that ran to their last epoch and have an objective: a stopped one never reached tau_end."""
        return self.trials[(self.trials["status"] == "complete") & self.trials["objective"].notna()]

    def counts(self) -> dict[str, int]:
        """Trials by status, every status present."""
        return {status: int((self.trials["status"] == status).sum()) for status in STATUSES}


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rho over `n` pairs; `rho` is None where it is undefined, and `reason` says why."""

    rho: float | None
    n: int
    reason: str = ""


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


def values(frame: pd.DataFrame, column: str) -> pd.Series[float]:
    """A column as floats, NaN for null and for a column that does not exist."""
    if column not in frame:
        return pd.Series(np.nan, index=frame.index, dtype=float)
    return pd.Series(frame[column].to_numpy(dtype=float, na_value=np.nan), index=frame.index)


def splits(trials: pd.DataFrame) -> list[str]:
    """Which split each trial used, in words: "random", "grouped by speaker", "not recorded"."""
    absent = pd.Series(pd.NA, index=trials.index)
    kinds, groups = (trials.get(f"config/{name}", absent) for name in ("split", "group"))
    return [
        "not recorded" if pd.isna(kind) else f"{kind} by {group}" if kind == "grouped" else str(kind)
        for kind, group in zip(kinds, groups, strict=True)
    ]


def rank_correlation(a: pd.Series[float], b: pd.Series[float]) -> RankCorrelation:
    """Spearman's rho over the rows where both values exist, ties at their mean rank."""
    both = a.notna() & b.notna()
    n = int(both.sum())
    if n < MIN_PAIRS:
        return RankCorrelation(None, n, f"fewer than {MIN_PAIRS} trials")
    if a[both].nunique() == 1 or b[both].nunique() == 1:
        return RankCorrelation(None, n, "one of the two is constant")
    return RankCorrelation(float(a[both].rank().corr(b[both].rank())), n)
