"""Does the early temperature determine the partition, and the late temperature only sharpen it?

Branches of one training run share everything up to a point, including the seed, and continue to different values of
tau_end. Paired within a seed, a difference at the end is the effect of the temperature after the branch point. These
rows are not points of a search, so they are only used for this question.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import adjusted_mutual_info_score
from statsmodels.stats.weightstats import DescrStatsW

from analysis.questions.effects import FAMILY, LABELLED, LEVEL, SEED_SD, UNLABELLED, Plan
from analysis.stats.equivalence import POWER, Contrast, paired
from analysis.trials import Study, floats, study_name, undecided
from catuvac.errors import CatuvacError
from catuvac.experiments.base import BRANCH, PARTITIONS

PARENT = "branch/agreement"  # AMI of the final clusters with the parent's at the branch point, from stored clusters
OUTCOMES = (LABELLED, UNLABELLED, "val/confidence", "val/clusters_used", PARENT)
Partitions = Mapping[tuple[str, str], NDArray[np.int64]]  # by study and trial: [2, n], the parent's and the branch's


@dataclass(frozen=True)
class Effect:
    """The effect of the highest tau_end relative to the lowest, paired within seeds.

    Attributes:
        outcome: its column.
        means: of each tau_end, over the seeds that are complete for all of them.
        contrast: None if the seeds do not support one, for `reason`.
    """

    outcome: str
    means: tuple[float, ...]
    contrast: Contrast | None
    reason: str = ""


@dataclass(frozen=True)
class Share:
    """The branches that start after one share of the ELBO phase.

    Attributes:
        share: of the ELBO phase, in [0, 1).
        epoch: number of finished epochs.
        tau: of the parent at the branch point.
        tau_ends: of the branches, ascending.
        seeds: those with a complete branch for every tau_end, ascending.
        trainings, decided: number of complete branches, and of those in which q(y|x) decided.
        effects: one per outcome; outcomes without a value are left out.
        siblings: `[seeds]` mean AMI between the final clusters of two branches; empty if clusters are not stored.
    """

    share: float
    epoch: int
    tau: float
    tau_ends: tuple[float, ...]
    seeds: tuple[int, ...]
    trainings: int
    decided: int
    effects: tuple[Effect, ...]
    siblings: tuple[float, ...]

    @property
    def agreement(self) -> tuple[float, float, float] | None:
        """Mean of `siblings` with its 95 % t-interval, which is capped at 1; None for fewer than two seeds."""
        if len(self.siblings) < 2:
            return None
        low, high = DescrStatsW(self.siblings).tconfint_mean(1 - LEVEL)
        return float(np.mean(self.siblings)), float(low), min(1.0, float(high))

    def effect(self, outcome: str) -> Effect | None:
        """Returns the effect on an outcome; None if it has no value."""
        return next((effect for effect in self.effects if effect.outcome == outcome), None)


@dataclass(frozen=True)
class Panel:
    """One study's branches of one corpus and K.

    Attributes:
        plan: the choices that the study fixed beforehand.
        outcome: the primary outcome: AMI, or invariant information without labels.
        shares: ascending.
        level: of each primary interval, for a joint level of 95 %: the primary outcome at every share, and `later`.
        later: change of the siblings' agreement from the first share to the last, paired within seeds; None if
            it cannot be estimated, for `reason`.
    """

    name: str
    k: int
    plan: Plan
    outcome: str
    shares: tuple[Share, ...]
    level: float
    later: Contrast | None
    reason: str = ""


def read_partitions(folder: Path) -> dict[tuple[str, str], NDArray[np.int64]]:
    """Reads the stored clusters of the validation clips of each branch of a study, by study and trial.

    Raises:
        CatuvacError: a file is damaged.
    """
    paths = sorted((folder / PARTITIONS).glob("*.npz"))
    partitions, name = {}, study_name(folder) if paths else ""
    for path in paths:
        try:
            with np.load(path) as archive:
                partitions[name, path.stem] = archive["clusters"]
        except (OSError, ValueError, EOFError, KeyError, BadZipFile) as error:
            raise CatuvacError(f"{path} is damaged ({error}); delete it and run the study again") from error
    return partitions


def panels(study: Study, plans: Mapping[str, Plan], partitions: Partitions) -> tuple[Panel, ...]:
    """Returns one panel for the branches of each study, corpus and K.

    Args:
        study: the tables; rows of other arms are left out.
        plans: the plan of each study, by its name.
        partitions: the results of `read_partitions` for all studies.
    """
    rows = study.trials[(study.trials["arm"] == BRANCH) & (study.trials["status"] == "complete")]
    groups = list(rows.groupby(["study", "corpus", "n_clusters"], sort=True))
    several = len({name for (name, _, _), _ in groups}) > 1
    all_panels = []
    for (name, corpus, k), trials in groups:
        title = f"{corpus}, K = {k}" + (f" ({name})" if several else "")
        all_panels.append(_panel(title, trials, plans.get(str(name), Plan()), partitions))
    return tuple(all_panels)


def primary_level(shares: int) -> float:
    """Returns the level of each primary interval: one per share, and one for the siblings' change with two or more."""
    return 1 - (1 - LEVEL) / (shares + (shares > 1))


def power(seeds: int, shares: int, margin: float) -> str:
    """Describes in one line which effects paired seeds will detect."""
    expected = Contrast(0.0, SEED_SD / np.sqrt(seeds), seeds - 1, primary_level(shares), margin, seeds, "seeds")
    able = "can" if expected.half < margin else "cannot"
    return (
        f"power      {seeds} seeds detect an effect of tau_end of {expected.detectable:.3f} AMI at one share in "
        f"{100 * POWER:.0f} % of cases ({100 * expected.level:.4g} % interval ± {expected.half:.3f}, corrected for "
        f"{shares} shares); they {able} show that an effect is within the margin of {margin:g}. Assumed: a paired "
        f"difference has a standard deviation of {SEED_SD:g}"
    )


def _panel(name: str, trials: pd.DataFrame, plan: Plan, partitions: Partitions) -> Panel:
    trials = trials.assign(
        **{PARENT: [_agreement(*partitions[key]) if key in partitions else np.nan for key in _keys(trials)]}
    )
    k = int(trials["n_clusters"].iloc[0])
    outcome = LABELLED if np.isfinite(floats(trials, LABELLED)).any() else UNLABELLED
    groups = [group for _, group in trials.groupby("branch/share", sort=True)]
    known = [column for column in OUTCOMES if np.isfinite(floats(trials, column)).any()]
    # Every interval agrees with its verdict: the primary ones have a joint level of 95 %, all others of 98 %.
    level = primary_level(len(groups))
    others = 1 - FAMILY / max(1, (len(known) - 1) * len(groups))
    levels = {column: level if column == outcome else others for column in known}
    shares = tuple(_share(group, known, levels, plan.margin, k, partitions) for group in groups)
    later, reason = None, "there is only one share"
    if len(shares) > 1:
        first, last = (dict(zip(s.seeds, s.siblings, strict=False)) for s in (shares[0], shares[-1]))
        both = [seed for seed in first if seed in last]
        changes = np.asarray([last[seed] - first[seed] for seed in both])
        later, reason = paired(changes, level=level, margin=plan.margin)
    return Panel(name, k, plan, outcome, shares, level, later, reason)


def _share(
    trials: pd.DataFrame,
    outcomes: list[str],
    levels: Mapping[str, float],
    margin: float,
    k: int,
    partitions: Partitions,
) -> Share:
    # Each branch point has its own schedule, but the same requested tau_end is the same number for every seed.
    ends = sorted(float(end) for end in trials["config/tau_end"].unique())
    counts = trials.groupby("seed")["config/tau_end"].nunique()
    seeds = sorted(int(seed) for seed in counts.index[counts == len(ends)])
    whole = trials[trials["seed"].isin(seeds)].sort_values(["seed", "config/tau_end"])
    shape = (len(seeds), len(ends))
    effects = []
    for outcome in outcomes:
        scores = floats(whole, outcome).reshape(shape)
        scores = scores[np.isfinite(scores).all(axis=1)]
        if not len(scores):
            continue
        contrast, reason = paired(
            scores[:, -1] - scores[:, 0],
            level=levels[outcome],
            margin=margin * (k if outcome == "val/clusters_used" else 1),
        )
        effects.append(Effect(outcome, tuple(scores.mean(axis=0).tolist()), contrast, reason))
    keys = _keys(whole)
    siblings: tuple[float, ...] = ()
    if all(key in partitions for key in keys) and len(ends) > 1:
        final = [[partitions[key][1] for key in keys[i : i + len(ends)]] for i in range(0, len(keys), len(ends))]
        siblings = tuple(float(np.mean([_agreement(a, b) for a, b in itertools.combinations(s, 2)])) for s in final)
    row = trials.iloc[0]
    return Share(
        share=float(row["branch/share"]),
        epoch=int(row["branch/epoch"]),
        tau=float(row["branch/tau"]),
        tau_ends=tuple(ends),
        seeds=tuple(seeds),
        trainings=len(trials),
        decided=int((~undecided(trials)).sum()),
        effects=tuple(effects),
        siblings=siblings,
    )


def _agreement(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    return float(adjusted_mutual_info_score(one, other))


def _keys(trials: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(trials["study"].astype(str), trials["trial_id"].astype(str), strict=True))
