"""How do temperature, assignment entropy and cluster use evolve over training?"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis.trials import Study, values


@dataclass(frozen=True)
class LearningCurves:
    """One quantity over the epochs of complete trials.

    Attributes:
        column: its name in `history.parquet`.
        trials: rows by epoch, a column per (study, trial_id), NaN where a trial was not evaluated.
        median: per epoch, over the trials evaluated there.
    """

    column: str
    trials: pd.DataFrame
    median: pd.Series[float]


def curves(study: Study, column: str) -> LearningCurves:
    """Collects a column of the history, such as `tau` or `val/entropy_y`."""
    history = study.history[study.history["trial_id"].isin(study.complete["trial_id"])]
    rows = history[["study", "trial_id"]].assign(epoch=history["epoch"].astype(int), value=values(history, column))
    table = rows.pivot(index="epoch", columns=["study", "trial_id"], values="value").dropna(how="all")
    return LearningCurves(column=column, trials=table, median=table.median(axis=1))
