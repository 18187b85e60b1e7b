"""What does a smaller network cost, and what does it save?"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis.questions.effects import FAMILY
from analysis.stats.equivalence import Contrast, paired
from analysis.trials import Study, values

OUTCOMES = ("val/ami", "val/invariant_information")  # the first that was recorded is used; labels may be missing


@dataclass(frozen=True)
class Size:
    """The trials of one network size.

    Attributes:
        macs: MACs of one clip.
        mean: of the outcome over seeds.
        seeds: number of seeds.
        change: of the outcome from the largest size to this one, paired by seed; None for the largest size, and if
            the seeds do not support an interval.
    """

    macs: float
    mean: float
    seeds: int
    change: Contrast | None


@dataclass(frozen=True)
class Sizes:
    """All network sizes, from the smallest to the largest.

    Attributes:
        outcome: its column.
        sizes: at least two.
        trials: `macs` and `outcome` of each trial, by its row in `Study.trials`.
    """

    outcome: str
    sizes: tuple[Size, ...]
    trials: pd.DataFrame

    @property
    def largest(self) -> Size:
        return self.sizes[-1]


def sizes(study: Study, *, margin: float) -> Sizes | None:
    """Compares the sizes among the independent trials; returns None if all have the same size.

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
    # Settings of one seed are averaged, because they share its initial weights and its clips.
    by_seed = known.groupby(["macs", "seed"])["outcome"].mean().unstack("macs")
    level = 1 - FAMILY / (by_seed.shape[1] - 1)
    largest = by_seed.columns[-1]
    compared = []
    for size in by_seed.columns:
        differences = (by_seed[size] - by_seed[largest]).dropna().to_numpy(dtype=float)
        change = None if size == largest else paired(differences, level=level, margin=margin)[0]
        scores = by_seed[size].dropna()
        compared.append(Size(float(size), float(scores.mean()), len(scores), change))
    return Sizes(outcome, tuple(compared), known[["macs", "outcome"]])
