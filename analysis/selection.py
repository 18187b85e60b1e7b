"""Which trial does the label-free objective choose, and what would labels have chosen?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.trials import RankCorrelation, Study, rank_correlation, values

# Label-free scores set against accuracy, with the sign that makes higher better.
LABEL_FREE = {
    "objective": 1,
    "val/mutual_information": 1,
    "val/effective_clusters": 1,
    "val/clusters_used": 1,
    "val/entropy_y": -1,
    **{f"val/silhouette_{space}": 1 for space in "xzp"},
    **{f"val/dbi_{space}": -1 for space in "xzp"},
    **{f"val/dispersion_{space}": 1 for space in "xzp"},
}


@dataclass(frozen=True)
class Selection:
    """The trial that the objective chooses.

    Attributes:
        best: its row of the table of trials.
        acc: its validation accuracy, None without labels.
        best_acc: the highest accuracy of any complete trial, reached by `best_acc_trial`.
        regret: `best_acc - acc`: what choosing without labels cost.
    """

    best: dict[str, Any]
    acc: float | None = None
    best_acc: float | None = None
    best_acc_trial: str | None = None
    regret: float | None = None


def select(study: Study) -> Selection | None:
    """Chooses among complete trials, the first of equals; None where there is none."""
    trials = study.complete
    if trials.empty:
        return None
    chosen = trials.iloc[int(np.argmax(values(trials, "objective")))]
    best = {str(name): None if pd.isna(value) else value for name, value in chosen.items()}
    acc = best.get("val/acc")
    if acc is None:
        return Selection(best)
    accuracies = values(trials, "val/acc")
    top = int(np.nanargmax(accuracies))
    return Selection(
        best,
        acc=float(acc),
        best_acc=float(accuracies.iloc[top]),
        best_acc_trial=str(trials["trial_id"].iloc[top]),
        regret=float(accuracies.iloc[top] - acc),
    )


def agreement_with_labels(study: Study) -> dict[str, RankCorrelation]:
    """Rank correlation of every recorded label-free score with accuracy, each signed so that higher is better.

    A diagnosis of the scores: it reads labels, so it never selects.
    """
    trials = study.complete
    acc = values(trials, "val/acc")
    return {
        name: rank_correlation(sign * values(trials, name), acc) for name, sign in LABEL_FREE.items() if name in trials
    }
