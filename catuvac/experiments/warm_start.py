"""The trials of an older study that TPE may learn from: complete trials whose settings are in the new study's space."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from catuvac import results
from catuvac.config import SECTION_OF
from catuvac.errors import CatuvacError
from catuvac.experiments.base import settings_of
from catuvac.experiments.search import Search
from catuvac.experiments.search_space import DIMENSIONS, value_of

WARM_START = "warm_start"  # attribute of a trial from another study: its id there
NOT_COMPARED = ("seed", "split_seed")  # settings that differ between the trials of one study


@dataclass(frozen=True)
class WarmStart:
    """The trials of an older study that a new one adds to its own.

    Attributes:
        source: the name of the older study's folder.
        trials: for `add_trial`, each with its settings and objectives.
        outside: number of complete trials with settings that the new study does not search.
        unscored: number of complete trials that lack one of the new study's objectives.
        differences: settings outside the searched dimensions that differ in the older study, such as "epochs 40 → 20":
            its objectives are then not quite comparable to those of the new study.
    """

    source: str
    trials: tuple[FrozenTrial, ...]
    outside: int
    unscored: int
    differences: tuple[str, ...]

    def __str__(self) -> str:
        total = len(self.trials) + self.outside + self.unscored
        words = f"{len(self.trials)} of {total} complete trials of {self.source}"
        words += f"; {self.outside} outside the ranges" * (self.outside > 0)
        words += f"; {self.unscored} without the objective" * (self.unscored > 0)
        differ = ", ".join(self.differences)
        return words + (f"; that study has other settings: {differ}" if differ else "")


def read(study: Search) -> WarmStart:
    """Reads the trials of `study.warm_start` that the study can use.

    Trials with the paper's protocol are excluded: no search has their settings.

    Raises:
        CatuvacError: there is no table of trials, or it has no complete trial.
    """
    assert study.warm_start is not None
    table = results.read_trials(study.warm_start)
    rows = results.records(table[(table["status"] == "complete") & (table["method"] == study.config.model.method)])
    if not rows:
        raise CatuvacError(f"no trial of {study.warm_start} is complete: give --warm-start another study's folder")
    trials, outside, unscored = [], 0, 0
    for row in rows:
        params = _params(study, settings_of(row))
        values = [row.get(name) for name in study.metrics]
        if params is None:
            outside += 1
        elif None in values:
            unscored += 1
        else:
            trials.append(_trial(study, params, values, str(row["trial_id"])))
    return WarmStart(study.warm_start.name, tuple(trials), outside, unscored, _differences(study, settings_of(rows[0])))


def _params(study: Search, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns a trial's coordinates in the study's space; None if it is outside or differs in a fixed dimension."""
    params = {}
    for name, dimension in DIMENSIONS.items():
        try:
            value = value_of(name, settings)
        except KeyError:  # a setting that an older version did not have
            return None
        ends = study.space.ranges.get(name)
        if ends is None:
            if value != value_of(name, study.config.flat()):
                return None
            continue
        for end in ends:  # the ratio of two temperatures may miss the end of its range by a rounding error
            value = end if isinstance(value, float) and math.isclose(value, end, rel_tol=1e-9) else value
        if not dimension.contains(ends, value):
            return None
        params[name] = value
    return params


def _trial(study: Search, params: dict[str, Any], values: list[Any], trial_id: str) -> FrozenTrial:
    return optuna.trial.create_trial(
        state=TrialState.COMPLETE,
        params=params,
        distributions={name: DIMENSIONS[name].distribution(study.space.ranges[name]) for name in params},
        values=[float(value) for value in values],
        user_attrs={WARM_START: trial_id},
    )


def _differences(study: Search, settings: Mapping[str, Any]) -> tuple[str, ...]:
    searched = {*DIMENSIONS, "tau_end", *NOT_COMPARED}
    new = study.config.flat()
    pairs = {name: (settings.get(name), new.get(name)) for name in SECTION_OF if name not in searched}
    # A table omits None, and so does a configuration that does not use one of the later settings.
    return tuple(
        f"{name} {old} → {value}"
        for name, (old, value) in pairs.items()
        if old != value and new.get(name, "") is not None
    )
