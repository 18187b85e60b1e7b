"""What does a smaller network cost, and what does it save?"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis.questions.effects import FAMILY
from analysis.stats.equivalence import Contrast, paired
from analysis.trials import Study, values

OUTCOMES = ("val/ami", "val/invariant_information")  # the first that is known; labels may be missing


@dataclass(frozen=True)
class Size:
    """Trainings of one size of the networks.

    Attributes:
        macs: of one clip.
        mean: of the outcome over seeds.
        seeds: how many.
        change: of the outcome from the largest size to this one, paired by seed; None for the largest, and where the
            seeds carry no interval.
    """

    macs: float
    mean: float
    seeds: int
    change: Contrast | None


@dataclass(frozen=True)
class Sizes:
    """All of them, from the smallest to the largest.

    Attributes:
        outcome: its column.
        sizes: at least two.
        trials: `macs` and `outcome` of each training, by the row of `Study.trials`.
    """

    outcome: str
    sizes: tuple[Size, ...]
    trials: pd.DataFrame

    @property
    def largest(self) -> Size:
        return self.sizes[-1]


def sizes(study: Study, *, margin: float) -> Sizes | None:
    """Compares the sizes among the trials that no result has placed; None where all are of one size.

    Args:
        study: of one corpus and K.
        margin: a change smaller than this does not matter.
    """
    trials = study.independent
    macs = values(trials, "val/macs")
    for outcome in OUTCOMES:
        known = pd.DataFrame({"macs": macs, "outcome": values(trials, outcome), "seed": trials["seed"]}).dropna()
        if known["macs"].nunique() > 1:
            break
    else:
        return None
    # A seed's settings are averaged: they are no further draws of weights and clips.
    by_seed = known.groupby(["macs", "seed"])["outcome"].mean().unstack("macs")
    level = 1 - FAMILY / (by_seed.shape[1] - 1)
    largest = by_seed.columns[-1]
    found = []
    for size in by_seed.columns:
        differences = (by_seed[size] - by_seed[largest]).dropna().to_numpy(dtype=float)
        change = None if size == largest else paired(differences, level=level, margin=margin)[0]
        scores = by_seed[size].dropna()
        found.append(Size(float(size), float(scores.mean()), len(scores), change))
    return Sizes(outcome, tuple(found), known[["macs", "outcome"]])
