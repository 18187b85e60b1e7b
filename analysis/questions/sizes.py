"""What does a smaller network cost, and what does it save?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.regression.linear_model import OLS

from analysis.questions.effects import FAMILY
from analysis.stats.equivalence import CONSTANT, Contrast
from analysis.trials import Study, undecided, values

OUTCOMES = ("val/ami", "val/invariant_information")  # the first that was recorded is used; labels may be missing


@dataclass(frozen=True)
class Size:
    """The trials of one network size.

    Attributes:
        macs: MACs of one clip.
        mean: of the outcome over seeds.
        seeds: number of seeds.
        change: of the outcome from the largest size to this one, within seeds; None for the largest size, and if the
            seeds do not support an interval.
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
        undecided: number of trials in which q(y|x) did not decide; left out.
    """

    outcome: str
    sizes: tuple[Size, ...]
    trials: pd.DataFrame
    undecided: int

    @property
    def largest(self) -> Size:
        return self.sizes[-1]


def sizes(study: Study, *, margin: float) -> Sizes | None:
    """Compares the sizes among the independent trials; returns None if all have the same size.

    Args:
        study: of one corpus and K.
        margin: a change smaller than this does not matter.
    """
    ties = undecided(study.independent)
    trials = study.independent[~ties]
    macs = values(trials, "val/macs")
    for outcome in OUTCOMES:
        known = pd.DataFrame({"macs": macs, "outcome": values(trials, outcome), "seed": trials["seed"]}).dropna()
        if known["macs"].nunique() > 1:
            break
    else:
        return None
    # Settings of one seed are averaged, because they share its initial weights and its clips.
    by_seed = known.groupby(["macs", "seed"])["outcome"].mean().unstack("macs")
    changes = _changes(by_seed, level=1 - FAMILY / (by_seed.shape[1] - 1), margin=margin)
    compared = []
    for size in by_seed.columns:
        scores = by_seed[size].dropna()
        compared.append(Size(float(size), float(scores.mean()), len(scores), changes.get(size)))
    return Sizes(outcome, tuple(compared), known[["macs", "outcome"]], int(ties.sum()))


def _changes(by_seed: pd.DataFrame, *, level: float, margin: float) -> dict[Any, Contrast]:
    """Compares each size with the largest one within seeds.

    One residual variance serves all sizes, in an additive model of sizes and seeds: a size has few seeds, and by itself
    would have almost no degrees of freedom.

    Args:
        by_seed: the outcome, a row per seed and a column per size, the largest last; NaN where it was not trained.
    """
    sizes, seeds = by_seed.columns, by_seed.index
    known = by_seed.notna().to_numpy()
    seed, size = np.nonzero(known)
    design = np.hstack([np.eye(len(sizes))[size, :-1], np.eye(len(seeds))[seed]])
    if np.linalg.matrix_rank(design) < design.shape[1] or design.shape[1] == len(seed):
        return {}  # sizes that share no seed, or no residual
    fit = OLS(by_seed.to_numpy()[known], design).fit()
    if fit.bse[0] < CONSTANT:
        return {}
    return {
        name: Contrast(
            float(fit.params[column]),
            float(fit.bse[column]),
            fit.df_resid,
            level,
            margin,
            int(known[:, column].sum()),
            "seeds",
        )
        for column, name in enumerate(sizes[:-1])
    }
