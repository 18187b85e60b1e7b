"""Does a top setting beat itself at the paper's temperature? Compares the runs of `studies/confirm.py` seed by seed.

Both members of a pair share everything but the temperature, so a difference is the effect of the temperature. The top
settings were selected by a score that regresses to the mean on fresh seeds, so they are only compared with themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.questions.effects import LEVEL, Plan
from analysis.stats.equivalence import Contrast, paired
from analysis.trials import Study, undecided, values
from catuvac.experiments.base import AT_PAPER

SETTING = r"-k\d+-(.+)-s\d+$"  # of a trial_id such as "fsdd-k10-top1-s40" (catuvac.experiments.comparison)
OUTCOMES = ("test/ami", "val/ami", "test/invariant_information", "val/invariant_information")  # the first that exists
MIN_PAIRS = 3  # with fewer pairs, a t-interval is too wide to be useful


@dataclass(frozen=True)
class Pair:
    """A top setting minus itself at the paper's temperature.

    Attributes:
        setting: "top1", "top2", …
        words: its temperatures.
        n: number of seeds for which both trials are complete and decided.
        undecided: number of trials of the pair whose q(y|x) has not decided, which are left out.
        contrast: None if the pairs do not support an interval, for `reason`.
    """

    setting: str
    words: str
    n: int
    undecided: int
    contrast: Contrast | None
    reason: str = ""


@dataclass(frozen=True)
class Confirmed:
    """One run of `studies/confirm.py` on one corpus and K.

    Attributes:
        panel: such as "fsdd, K = 10".
        study: the confirm run's name.
        outcome: the column that is compared.
        scores: one row per seed, one column per setting; NaN if a trial is not complete or not decided.
        pairs: one per top setting; none in a run of an earlier version, which compared other settings.
        seed_sd: standard deviation between seeds of one setting; None if no setting has two seeds.
        trainings: number of trials, of which `complete` are complete.
    """

    panel: str
    study: str
    plan: Plan
    outcome: str
    scores: pd.DataFrame
    pairs: tuple[Pair, ...]
    seed_sd: float | None
    trainings: int
    complete: int


def confirmed(study: Study, plans: Mapping[str, Plan]) -> tuple[Confirmed, ...]:
    """Returns every confirm run among the trials of Cat. UVAC.

    Args:
        study: the tables.
        plans: the plan of each study, by its name.
    """
    runs = []
    for panel, part in study.panels().items():
        trials = part.trials[part.trials["arm"] == "confirm"]
        trials = trials.assign(setting=trials["trial_id"].astype(str).str.extract(SETTING)[0])
        for name, group in trials[trials["setting"].notna()].groupby("study", sort=True):
            runs.append(_confirmed(panel, str(name), group, plans.get(str(name), Plan())))
    return tuple(runs)


def _confirmed(panel: str, name: str, trials: pd.DataFrame, plan: Plan) -> Confirmed:
    complete = trials[trials["status"] == "complete"]
    outcome = next((column for column in OUTCOMES if values(complete, column).notna().any()), OUTCOMES[-1])
    ties = undecided(complete)
    score = values(complete, outcome).mask(ties)
    settings = sorted(complete["setting"].unique(), key=_rank)
    table = complete[["seed", "setting"]].assign(score=score)
    scores = table.pivot(index="seed", columns="setting", values="score").reindex(columns=settings)
    tops = [setting for setting in settings if f"{setting}{AT_PAPER}" in settings]
    # Bonferroni correction: the intervals have a joint level of LEVEL, and each agrees with its verdict.
    level = 1 - (1 - LEVEL) / max(1, len(tops))
    pairs = []
    for setting in tops:
        both = [setting, f"{setting}{AT_PAPER}"]
        difference = (scores[both[0]] - scores[both[1]]).dropna().to_numpy(dtype=np.float64)
        rows = complete["setting"].isin(both).to_numpy(dtype=bool)
        contrast, reason = paired(difference, level=level, margin=plan.margin, least=MIN_PAIRS)
        pairs.append(
            Pair(
                setting,
                _words(complete[complete["setting"] == setting]),
                len(difference),
                int(ties[rows].sum()),
                contrast,
                reason,
            )
        )
    return Confirmed(panel, name, plan, outcome, scores, tuple(pairs), _seed_sd(scores), len(trials), len(complete))


def _seed_sd(scores: pd.DataFrame) -> float | None:
    """Computes the standard deviation between seeds, pooled over the settings."""
    table = scores.to_numpy(dtype=np.float64)
    counts = np.isfinite(table).sum(axis=0)
    kept = table[:, counts > 1]
    freedom = int((counts[counts > 1] - 1).sum())
    if freedom == 0:
        return None
    return float(np.sqrt(np.nansum((kept - np.nanmean(kept, axis=0)) ** 2) / freedom))


def _words(trials: pd.DataFrame) -> str:
    start, end = values(trials, "config/tau_start").iloc[0], values(trials, "config/tau_end").iloc[0]
    return f"τ {start:.2f} → {end:.2f}"


def _rank(setting: str) -> tuple[int, bool, str]:
    """Orders top1, top1-paper, top2, …, with any other names last."""
    number = re.match(r"top(\d+)", setting)
    return int(number[1]) if number else 10**6, setting.endswith(AT_PAPER), setting
