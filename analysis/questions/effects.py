"""What does each temperature do, with everything else held fixed?

The estimand is E[outcome(factor = high) - outcome(factor = low)] over the settings of the study in which q(y|x) has
decided; how often it decides is a separate outcome, never a silent condition. Confirm runs, which repeat the best
settings, and trials under the paper's protocol are excluded.
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

from analysis.questions.collapse import proportion
from analysis.stats.adjusted import SEEDS, Adjusted, Floats, adjusted, expected
from analysis.stats.equivalence import CONSTANT, Contrast
from analysis.trials import Study, reads_temperature, settings, undecided, units, values
from catuvac.artifacts import read_json
from catuvac.experiments.base import DESIGN
from catuvac.experiments.search import MARGIN, PRIMARY_FACTOR
from catuvac.experiments.search_space import DIMENSIONS, FACTORS, Choice, Number

# The other settings that may vary between the designed trials of a study, by the kind of their dimension.
COVARIATES = tuple(name for name, each in DIMENSIONS.items() if isinstance(each, Number) and name not in FACTORS)
CATEGORIES = tuple(name for name, each in DIMENSIONS.items() if isinstance(each, Choice))
LABELLED, UNLABELLED = "val/ami", "val/invariant_information"  # the primary outcome with labels, and without
SECONDARY = ("val/clusters_used", "val/silhouette_x", "val/silhouette_p")
DECIDED = "val/y_decided"  # the hurdle: 1 if q(y|x) decided, otherwise 0, over all trials
DECIDED_MARGIN = 0.1  # for the share of trials that decide
LEVEL = 0.95
CELL_SD, SEED_SD = 0.015, 0.025  # standard deviations of AMI between settings and seeds, assumed before any trial
FAMILY = 0.02  # joint error rate of all other claims of a panel; 7 % together with the primary claim


@dataclass(frozen=True)
class Plan:
    """The choices that a study fixed before its first trial.

    Attributes:
        factor: the factor whose effect on the primary outcome is the study's question.
        margin: an effect smaller than this does not matter; for clusters used, it is a share of K.
        fixed: whether the study recorded these choices; False if they are defaults.
        grown: the planned number of trials at the start and after each extension; () if unknown.
    """

    factor: str = PRIMARY_FACTOR
    margin: float = MARGIN
    fixed: bool = False
    grown: tuple[int, ...] = ()


@dataclass(frozen=True)
class Effect:
    """The effect of one factor on one outcome, for one corpus and K.

    Attributes:
        factor: "tau_start" or "tau_ratio".
        outcome: its column.
        primary: whether this is the contrast that the study named beforehand; the others, including bends and
            crossings, are corrected for their number.
        found: the estimate; None if the settings do not identify it, for `reason`.
    """

    panel: str
    factor: str
    outcome: str
    primary: bool
    found: Adjusted | None
    reason: str = ""


@dataclass(frozen=True)
class Decided:
    """The number of trials in which q(y|x) decided (I(x; y) > ½ log K), with the 95 % interval of `proportion`."""

    count: int
    n: int
    low: float
    high: float


@dataclass(frozen=True)
class Panel:
    """All effects for one corpus and K."""

    name: str
    plan: Plan
    decided: Decided | None
    effects: tuple[Effect, ...]
    without_temperature: int = 0  # complete designed trials with the estimator "exact", which are left out

    @property
    def primary(self) -> Effect:
        (primary,) = (effect for effect in self.effects if effect.primary)
        return primary

    @property
    def seed_sd(self) -> float | None:
        """The standard deviation of the primary outcome between trials of one setting."""
        return self.primary.found.seed_sd if self.primary.found else None


@dataclass(frozen=True)
class Pooled:
    """A fixed-effect summary across corpora, and Welch's test of their difference, for few degrees of freedom."""

    contrast: Contrast
    heterogeneity_p: float
    panels: int


def read_plan(folder: Path) -> Plan:
    """Reads the plan from `study.json`; returns the defaults if there is none or it is of an earlier version.

    Raises:
        CatuvacError: the file is damaged; the defaults would then be mistaken for the recorded plan.
    """
    try:
        record = read_json(folder / DESIGN, {}) if (folder / DESIGN).exists() else {}
        design, grown = record["design"], tuple(int(stage["trials"]) for stage in record.get("stages", ()))
        return Plan(str(design.get("primary", PRIMARY_FACTOR)), float(design["margin"]), True, grown)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Plan()


def plan_of(trials: pd.DataFrame, plans: Mapping[str, Plan]) -> Plan:
    """Returns the plan for trials of one or several studies: that of the first, with the smallest margin of all."""
    own = [plans[name] for name in trials["study"].unique() if name in plans] or [Plan()]
    grown = next((plan.grown for plan in own if len(plan.grown) > 1), ())
    return replace(own[0], margin=min(plan.margin for plan in own), fixed=all(plan.fixed for plan in own), grown=grown)


def panels(study: Study, plans: Mapping[str, Plan]) -> tuple[Panel, ...]:
    """Returns a panel for every corpus and K of one or several studies.

    Args:
        study: the tables.
        plans: the plan of each study, by its name.
    """
    return tuple(_panel(name, panel, plans) for name, panel in study.panels().items())


def by_short_name(found: Sequence[Panel]) -> dict[str, Panel]:
    """Returns panels by their corpora if these differ, else by their full names."""
    short = {panel.name.split(",")[0]: panel for panel in found}
    return short if len(short) == len(found) else {panel.name: panel for panel in found}


def pooled(found: tuple[Panel, ...]) -> Pooled | None:
    """Pools the primary contrast over panels; returns None for fewer than two, or if factor or outcome differ."""
    estimated = [panel.primary for panel in found if panel.primary.found]
    contrasts = [effect.found.contrast for effect in estimated if effect.found]
    if len(contrasts) < 2 or len({(effect.factor, effect.outcome) for effect in estimated}) > 1:
        return None
    value = np.asarray([contrast.value for contrast in contrasts])
    variance = np.asarray([contrast.error**2 for contrast in contrasts])
    if (variance <= 0).any():
        return None
    together = combine_effects(value, variance)
    margin = min(panel.plan.margin for panel in found)  # negligible by everything that was fixed beforehand
    # The weights come from estimated errors, so the pooled error is too small (Meier 1953): slightly with many degrees
    # of freedom, by an eighth with two corpora of 24 trials each.
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
    """Predicts the precision of a study from its designed points; returns None if they do not identify the factor.

    Args:
        points: of the designed trials, as in `catuvac.experiments.search`; seeds of a setting are repeats.
        factor, margin: of the study's question.
    """
    names = [name for name in DIMENSIONS if name in points[0]]
    settings = pd.DataFrame([{name: point[name] for name in names} for point in points]).drop_duplicates()
    if len(settings) < 2:
        return None
    seeds = len(points) // len(settings)
    of_seeds = SEED_SD / math.sqrt(seeds)
    deviation = math.hypot(CELL_SD, of_seeds)
    contrast = expected(
        {name: settings[name].to_numpy(dtype=np.float64) for name in FACTORS},
        factor=factor,
        covariates=dict(_positive(name, settings[name]) for name in COVARIATES if name in names),
        categories={name: settings[name].tolist() for name in CATEGORIES if name in names},
        deviation=deviation,
        margin=margin,
    )
    if contrast is None or seeds < SEEDS:
        return contrast
    over = replace(contrast, error=contrast.error * of_seeds / deviation, freedom=seeds - 1.0, n=seeds, unit="seeds")
    return replace(contrast, over_seeds=over).at_level(LEVEL)


def _positive(name: str, column: pd.Series[Any]) -> tuple[str, Floats]:
    """Returns a covariate with its name, made positive for its logarithm: 1 is added to one that may be 0."""
    numbers = column.to_numpy(dtype=np.float64)
    dimension = DIMENSIONS[name]
    return (name, numbers) if isinstance(dimension, Number) and dimension.log else (f"1 + {name}", 1 + numbers)


def _panel(name: str, panel: Study, plans: Mapping[str, Plan]) -> Panel:
    trials = panel.independent
    reading = reads_temperature(trials)
    trials = trials[reading]
    plan = plan_of(trials, plans)
    k = int(panel.trials["n_clusters"].iloc[0])
    ties = undecided(trials)
    decided = None
    if len(trials):
        share = proportion(pd.Series(~ties), pd.Series(units(trials)))
        decided = Decided(int(share["count"]), len(trials), share["low"], share["high"])
    used = trials[~ties]
    labelled = values(used, LABELLED).notna().any()
    outcome = LABELLED if labelled or used.empty else UNLABELLED
    margins = {outcome: plan.margin, **dict.fromkeys(SECONDARY, plan.margin)}
    margins["val/clusters_used"] *= k
    codes = settings(trials)
    effects = [
        effect for column, margin in margins.items() for effect in _effects(name, used, column, margin, codes[~ties])
    ]
    hurdle = trials.assign(**{DECIDED: (~ties).astype(float)})
    effects += _effects(name, hurdle, DECIDED, DECIDED_MARGIN, codes)
    primary = next(effect for effect in effects if (effect.factor, effect.outcome) == (plan.factor, outcome))
    return Panel(name, plan, decided, tuple(_corrected(effects, primary)), int((~reading).sum()))


def _corrected(effects: Sequence[Effect], primary: Effect) -> Iterator[Effect]:
    """Gives every claim but the primary one a Bonferroni interval, so that each interval agrees with its verdict."""
    contrasts = sum(effect.found is not None for effect in effects if effect is not primary)
    shapes = [(effect.factor, effect.found) for effect in effects if effect.found and effect.outcome == primary.outcome]
    bends = sum(found.curved is not None for _, found in shapes)
    crossed = {frozenset((factor, crossing.other)) for factor, found in shapes for crossing in found.crossings}
    level = 1 - FAMILY / max(1, contrasts + bends + len(crossed))
    for effect in effects:
        effect_level = LEVEL if effect is primary else level
        found = effect.found.with_levels(effect_level, shape=level) if effect.found else None
        yield replace(effect, found=found, primary=effect is primary)


def _effects(name: str, trials: pd.DataFrame, column: str, margin: float, setting: NDArray[np.int64]) -> list[Effect]:
    """Estimates the effect of every temperature on one outcome from one fit; the intervals are not yet corrected."""
    factors = temperatures(trials)
    y = values(trials, column)
    known = y.notna().to_numpy(dtype=bool) & np.all([np.isfinite(effect) for effect in factors.values()], axis=0)
    nothing = {factor: Effect(name, factor, column, False, None) for factor in factors}
    if not known.any():
        why = "no trial of a designed arm that samples at a temperature is complete and decided"
        return [replace(effect, reason=why) for effect in nothing.values()]
    kept = trials[known]
    same = [factor for factor, effect in factors.items() if _constant(effect[known])]
    if np.ptp(y[known]) == 0:
        why = f"the outcome is {y[known].iloc[0]:.3g} in every trial"
        return [replace(effect, reason=why) for effect in nothing.values()]
    codes = setting[known]
    numbers = {name: values(kept, f"config/{name}") for name in COVARIATES}
    found = adjusted(
        np.asarray(y[known], dtype=np.float64),
        {effect: values_[known] for effect, values_ in factors.items()},
        covariates=dict(_positive(name, column) for name, column in numbers.items() if column.notna().all()),
        categories={c: kept[f"config/{c}"].astype(str).tolist() for c in CATEGORIES if f"config/{c}" in kept},
        setting=codes,
        block=np.unique(values(kept, "seed").to_numpy(), return_inverse=True)[1].astype(np.int64),
        margin=margin,
        bound=1.0 if column == DECIDED else math.inf,
        level=LEVEL,
    )
    exact = any(estimate and estimate.contrast.error < CONSTANT for estimate in found.values())
    which = "settings" if column == DECIDED else "settings in which q(y|x) decided"
    few = f"{len(np.unique(codes))} {which} are too few for its design"
    if exact:
        found, few = dict.fromkeys(factors), "its design fits every setting exactly, so that the noise is not known"
    return [
        replace(
            effect,
            found=found[factor],
            reason="this factor is the same in every trial" if factor in same else "" if found[factor] else few,
        )
        for factor, effect in nothing.items()
    ]


def varies_temperature(study: Study) -> bool:
    """Returns whether any temperature differs between the independent trials of one corpus and K."""
    trials = [panel.independent for panel in study.panels().values()]
    return any(not _constant(effect) for part in trials if len(part) for effect in temperatures(part).values())


def _constant(effect: Floats) -> bool:
    return bool(np.ptp(np.log(effect)) < 1e-9)


def temperatures(trials: pd.DataFrame) -> dict[str, Floats]:
    """Returns τ_start and τ_end / τ_start, `[n]` each, which are orthogonal by design, unlike τ_start and τ_end."""
    start = np.asarray(values(trials, "config/tau_start"), dtype=np.float64)
    end = np.asarray(values(trials, "config/tau_end"), dtype=np.float64)
    return {"tau_start": start, "tau_ratio": end / start}
