"""What does each temperature do, with everything else held?

The estimand is E[outcome(factor = high) - outcome(factor = low)] over the settings of the study in which q(y|x) has
decided; how often it decides is an outcome of its own, never a silent condition. Confirm runs, which repeat the best
settings, and trainings by the paper's protocol are no part of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from statsmodels.stats.meta_analysis import combine_effects
from statsmodels.stats.oneway import anova_generic
from statsmodels.stats.proportion import proportion_confint

from analysis.stats.adjusted import Adjusted, Floats, adjusted, expected
from analysis.stats.equivalence import Contrast
from analysis.trials import Study, reads_temperature, settings, undecided, values
from catuvac.artifacts import read_json
from catuvac.experiments.base import DESIGN
from catuvac.experiments.search import MARGIN, PRIMARY_FACTOR
from catuvac.experiments.search_space import DIMENSIONS, FACTORS, Choice, Number

# What else the designed trials of a study may differ in, by the kind of its dimension.
COVARIATES = tuple(name for name, each in DIMENSIONS.items() if isinstance(each, Number) and name not in FACTORS)
CATEGORIES = tuple(name for name, each in DIMENSIONS.items() if isinstance(each, Choice))
LABELLED, UNLABELLED = "val/ami", "val/invariant_information"  # the primary outcome, and where there are no labels
SECONDARY = ("val/clusters_used", "val/silhouette_x", "val/silhouette_p")
DECIDED = "val/y_decided"  # the hurdle: 1 where q(y|x) decided, 0 where not, over all trainings
DECIDED_MARGIN = 0.1  # of the share of trainings that decide
LEVEL = 0.95
CELL_SD, SEED_SD = 0.015, 0.025  # of AMI, assumed before there is a trial: a setting's own deviation, and a seed's
FAMILY = 0.02  # of all other claims of a panel together: with the primary one, 7 %


@dataclass(frozen=True)
class Plan:
    """What a study fixed before its first trial.

    Attributes:
        factor: whose effect on the primary outcome is the study's question.
        margin: an effect smaller than this does not matter; of clusters used, this share of K.
        fixed: whether the study itself recorded it, and not this program's defaults.
        grown: how many trials it was to have when it was started, and after each extension; () where that is not known.
    """

    factor: str
    margin: float
    fixed: bool
    grown: tuple[int, ...] = ()


@dataclass(frozen=True)
class Effect:
    """One factor on one outcome of one corpus and K.

    Attributes:
        factor: "tau_start" or "tau_ratio".
        outcome: its column.
        primary: the one contrast that the study named beforehand; the others, bends and crossings with them, are
            corrected for their number.
        found: None where the settings cannot tell, for `reason`.
    """

    panel: str
    factor: str
    outcome: str
    primary: bool
    found: Adjusted | None
    reason: str = ""


@dataclass(frozen=True)
class Decided:
    """In how many trainings q(y|x) decided: I(x; y) > ½ log K; with Wilson's 95 % interval."""

    count: int
    n: int
    low: float
    high: float


@dataclass(frozen=True)
class Panel:
    """Everything about one corpus and K."""

    name: str
    plan: Plan
    decided: Decided | None
    effects: tuple[Effect, ...]
    without_temperature: int = 0  # complete designed trainings with the estimator "exact", which are left out

    @property
    def primary(self) -> Effect:
        (found,) = (effect for effect in self.effects if effect.primary)
        return found

    @property
    def seed_sd(self) -> float | None:
        """Of the primary outcome between trainings of one setting."""
        return self.primary.found.seed_sd if self.primary.found else None


@dataclass(frozen=True)
class Pooled:
    """A fixed-effect summary over corpora, and whether they differ: Welch's F, for errors of few degrees of freedom."""

    contrast: Contrast
    heterogeneity_p: float
    panels: int


def read_plan(folder: Path) -> Plan:
    """What `study.json` fixed; the defaults where a folder has none, or one of an earlier version.

    Raises:
        CatuvacError: it is damaged: the defaults would pass for what was fixed.
    """
    try:
        record = read_json(folder / DESIGN, {}) if (folder / DESIGN).exists() else {}
        design, grown = record["design"], tuple(int(stage["trials"]) for stage in record.get("stages", ()))
        return Plan(str(design.get("primary", PRIMARY_FACTOR)), float(design["margin"]), True, grown)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Plan(PRIMARY_FACTOR, MARGIN, False)


def panels(study: Study, plans: Mapping[str, Plan]) -> tuple[Panel, ...]:
    """Every corpus and K of a study, or of several.

    Args:
        study: the tables.
        plans: what each study of them fixed, by its name; a panel takes that of its first study.
    """
    return tuple(_panel(name, panel, plans) for name, panel in study.panels().items())


def pooled(found: tuple[Panel, ...]) -> Pooled | None:
    """The primary contrast over all panels that ask for the same factor; None for fewer than two."""
    contrasts = [panel.primary.found.contrast for panel in found if panel.primary.found]
    if len(contrasts) < 2 or len({panel.plan.factor for panel in found}) > 1:
        return None
    value = np.asarray([contrast.value for contrast in contrasts])
    variance = np.asarray([contrast.error**2 for contrast in contrasts])
    if (variance <= 0).any():
        return None
    together = combine_effects(value, variance)
    margin = max(panel.plan.margin for panel in found)
    # The weights are of estimated errors, which makes their mean look surer than it is (Meier 1953): by little with
    # many degrees of freedom, by an eighth of the error with two corpora of 24 trials each.
    share = (1 / variance) / (1 / variance).sum()
    freedom = np.asarray([contrast.freedom for contrast in contrasts])
    inflation = 1 + 4 * float((share * (1 - share) / freedom).sum())
    contrast = Contrast(
        float(together.mean_effect_fe),
        float(together.sd_eff_w_fe) * math.sqrt(inflation),
        1 / float((share**2 / freedom).sum()),
        LEVEL,
        margin,
        sum(c.n for c in contrasts),
    )
    observations = np.asarray([contrast.freedom + 1 for contrast in contrasts])
    differ = anova_generic(value, variance * observations, observations, use_var="unequal", welch_correction=True)
    return Pooled(contrast, float(differ.pvalue), len(contrasts))


def planned(points: Sequence[Mapping[str, Any]], *, factor: str, margin: float) -> Contrast | None:
    """What the designed points of a study will be able to tell; None where they cannot tell the factor apart.

    Args:
        points: of the designed trials, as `catuvac.experiments.search` has them; seeds of a setting are repeats.
        factor, margin: of the study's question.
    """
    names = [name for name in DIMENSIONS if name in points[0]]
    settings = pd.DataFrame([{name: point[name] for name in names} for point in points]).drop_duplicates()
    if len(settings) < 2:
        return None
    seeds = len(points) / len(settings)
    return expected(
        {name: settings[name].to_numpy(dtype=np.float64) for name in FACTORS},
        factor=factor,
        covariates=dict(_positive(name, settings[name]) for name in COVARIATES if name in names),
        categories={name: settings[name].tolist() for name in CATEGORIES if name in names},
        deviation=math.sqrt(CELL_SD**2 + SEED_SD**2 / seeds),
        margin=margin,
    )


def _positive(name: str, column: pd.Series[Any]) -> tuple[str, Floats]:
    """A covariate under its name, such that it has a logarithm: one that may be 0 is raised by 1."""
    numbers = column.to_numpy(dtype=np.float64)
    dimension = DIMENSIONS[name]
    return (name, numbers) if isinstance(dimension, Number) and dimension.log else (f"1 + {name}", 1 + numbers)


def _panel(name: str, panel: Study, plans: Mapping[str, Plan]) -> Panel:
    trials = panel.independent
    reading = reads_temperature(trials)
    trials = trials[reading]
    plan = next((plans[s] for s in trials["study"].unique() if s in plans), Plan(PRIMARY_FACTOR, MARGIN, False))
    k = int(panel.trials["n_clusters"].iloc[0])
    ties = undecided(trials)
    decided = None
    if len(trials):
        count = int((~ties).sum())
        low, high = proportion_confint(count, len(trials), method="wilson")
        decided = Decided(count, len(trials), float(low), float(high))
    used = trials[~ties]
    labelled = values(used, LABELLED).notna().any()
    outcome = LABELLED if labelled or used.empty else UNLABELLED
    margins = {outcome: plan.margin, **dict.fromkeys(SECONDARY, plan.margin)}
    margins["val/clusters_used"] *= k
    codes = settings(trials)
    effects = [
        each for column, margin in margins.items() for each in _effects(name, used, column, margin, codes[~ties])
    ]
    hurdle = trials.assign(**{DECIDED: (~ties).astype(float)})
    effects += _effects(name, hurdle, DECIDED, DECIDED_MARGIN, codes)
    primary = next(each for each in effects if (each.factor, each.outcome) == (plan.factor, outcome))
    return Panel(name, plan, decided, tuple(_corrected(effects, primary)), int((~reading).sum()))


def _corrected(effects: Sequence[Effect], primary: Effect) -> Iterator[Effect]:
    """Gives every claim but the primary one Bonferroni's interval: an interval has to agree with its verdict."""
    contrasts = sum(each.found is not None for each in effects if each is not primary)
    shapes = [(each.factor, each.found) for each in effects if each.found and each.outcome == primary.outcome]
    bends = sum(found.curved is not None for _, found in shapes)
    crossed = {frozenset((factor, crossing.other)) for factor, found in shapes for crossing in found.crossings}
    level = 1 - FAMILY / max(1, contrasts + bends + len(crossed))
    for each in effects:
        own = LEVEL if each is primary else level
        found = each.found.with_levels(own, shape=level) if each.found else None
        yield replace(each, found=found, primary=each is primary)


def _effects(name: str, trials: pd.DataFrame, column: str, margin: float, setting: NDArray[np.int64]) -> list[Effect]:
    """What every temperature does to one outcome, from one fit; the intervals are not yet corrected."""
    factors = temperatures(trials)
    y = values(trials, column)
    known = y.notna().to_numpy(dtype=bool) & np.all([np.isfinite(each) for each in factors.values()], axis=0)
    nothing = {factor: Effect(name, factor, column, False, None) for factor in factors}
    if not known.any():
        why = "no trial of a designed arm is complete and decided"
        return [replace(each, reason=why) for each in nothing.values()]
    kept = trials[known]
    same = [factor for factor, each in factors.items() if np.ptp(np.log(each[known])) < 1e-9]
    if np.ptp(y[known]) == 0:
        why = f"it is {y[known].iloc[0]:.3g} in every training"
        return [replace(each, reason=why) for each in nothing.values()]
    codes = setting[known]
    numbers = {name: values(kept, f"config/{name}") for name in COVARIATES}
    found = adjusted(
        np.asarray(y[known], dtype=np.float64),
        {each: values_[known] for each, values_ in factors.items()},
        covariates=dict(_positive(name, column) for name, column in numbers.items() if column.notna().all()),
        categories={c: kept[f"config/{c}"].astype(str).tolist() for c in CATEGORIES if f"config/{c}" in kept},
        setting=codes,
        block=np.unique(values(kept, "seed").to_numpy(), return_inverse=True)[1].astype(np.int64),
        margin=margin,
        level=LEVEL,
    )
    few = f"{len(np.unique(codes))} settings are too few for its design"
    return [
        replace(
            each,
            found=found[factor],
            reason="every trial has the same value of it" if factor in same else "" if found[factor] else few,
        )
        for factor, each in nothing.items()
    ]


def temperatures(trials: pd.DataFrame) -> dict[str, Floats]:
    """τ_start and τ_end / τ_start, `[n]` each: unlike τ_start and τ_end, the design makes the two orthogonal."""
    start = np.asarray(values(trials, "config/tau_start"), dtype=np.float64)
    end = np.asarray(values(trials, "config/tau_end"), dtype=np.float64)
    return {"tau_start": start, "tau_ratio": end / start}
