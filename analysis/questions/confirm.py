"""Does a top setting beat itself at the paper's temperature? The runs of `studies/confirm.py`, seed by seed.

Both members of a pair share everything but the temperature, so that a difference is the temperature's. The top settings
were chosen by a score that falls back on fresh seeds, and so must not be compared with anything but themselves.
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
from catuvac.experiments.search import MARGIN, PRIMARY_FACTOR

SETTING = r"-k\d+-(.+)-s\d+$"  # of a trial_id such as "fsdd-k10-top1-s40" (catuvac.experiments.comparison)
OUTCOMES = ("test/ami", "val/ami", "test/invariant_information", "val/invariant_information")  # the first that exists
MIN_PAIRS = 3  # below that, a t-interval says nothing


@dataclass(frozen=True)
class Pair:
    """A top setting less itself at the paper's temperature.

    Attributes:
        setting: "top1", "top2", …
        words: its temperatures.
        n: seeds on which both trainings are complete and decided.
        undecided: trainings of the two whose q(y|x) has not decided, which are left out.
        contrast: None where the pairs carry no interval, for `reason`.
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
        scores: a row per seed, a column per setting; NaN where a training is not complete, or not decided.
        pairs: one per top setting; none in a run of an earlier version, which compared other settings.
        seed_sd: standard deviation between seeds of one setting; None where no setting has two.
        trainings: all of them, `complete` of which count.
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
    """Every confirm run among the trials of Cat. UVAC.

    Args:
        study: the tables.
        plans: what each study fixed, by its name.
    """
    found = []
    for panel, part in study.panels().items():
        trials = part.trials[part.trials["arm"] == "confirm"]
        trials = trials.assign(setting=trials["trial_id"].astype(str).str.extract(SETTING)[0])
        for name, own in trials[trials["setting"].notna()].groupby("study", sort=True):
            found.append(_confirmed(panel, str(name), own, plans.get(str(name), Plan(PRIMARY_FACTOR, MARGIN, False))))
    return tuple(found)


def _confirmed(panel: str, name: str, trials: pd.DataFrame, plan: Plan) -> Confirmed:
    complete = trials[trials["status"] == "complete"]
    outcome = next((column for column in OUTCOMES if values(complete, column).notna().any()), OUTCOMES[-1])
    ties = undecided(complete)
    score = values(complete, outcome).mask(ties)
    settings = sorted(complete["setting"].unique(), key=_rank)
    table = complete[["seed", "setting"]].assign(score=score)
    scores = table.pivot(index="seed", columns="setting", values="score").reindex(columns=settings)
    tops = [setting for setting in settings if f"{setting}{AT_PAPER}" in settings]
    # An interval of each, of which all hold together at the level, and which agrees with its verdict (Bonferroni).
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
    """Pooled over the settings."""
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
    """Orders top1, top1-paper, top2, …, and whatever has another name last."""
    number = re.match(r"top(\d+)", setting)
    return int(number[1]) if number else 10**6, setting.endswith(AT_PAPER), setting
