"""How much does each setting contribute to the outcome? fANOVA and PED-ANOVA importances.

Shares only describe; effects with signs and intervals, bends and interactions are in `analysis.questions.effects`.
Every fit uses the trials of designed arms in which q(y|x) decided, in the coordinates of the search: τ_start and
τ_end / τ_start, of which the design is a product, with numbers on a logarithmic scale.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import (
    BaseImportanceEvaluator,
    FanovaImportanceEvaluator,
    PedAnovaImportanceEvaluator,
    get_param_importances,
)
from optuna.trial import FrozenTrial, create_trial
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import GroupKFold, cross_val_predict

from analysis import columns
from analysis.columns import Metric
from analysis.stats import bootstrap
from analysis.stats.bootstrap import Estimate, Floats
from analysis.trials import Study, reads_temperature, undecided, units, values
from catuvac.experiments.search_space import DIMENSIONS, Choice

METRICS = (Metric("val/ami"), Metric("objective"))  # the first possible one is used
MIN_UNITS = 16  # fewer independent trials cannot distinguish five settings
CAP = 400  # most trials in a fit
RESAMPLES = 20  # of the importances; each fits a forest
TOP = 0.25  # PED-ANOVA compares the best quarter with all trials
TREES, DRAW_TREES = 32, 8  # of fANOVA, and of each resample, whose noise averages out
DEPTH = 5  # of fANOVA's trees; fully grown trees attribute the noise of a trial to all settings
FOLDS = 5
SAME = 0.9  # with a larger share of equal values, a metric has nothing to explain


@dataclass(frozen=True)
class Sample:
    """The trials that the fits use.

    Attributes:
        settings: `[n, varied settings]` as set (schedules as strings), known for every trial; columns in `DIMENSIONS`.
        scores: `[n, METRICS]` by column; NaN if a trial has no such score.
        units: `[n]` codes of the independently drawn units.
        left_out: settings by label that are not compared, and why.
        total: number of independent trials, of which at most `CAP` are used.
        undecided: number of trials of designed arms left out because q(y|x) never decided.
        exact: number of further trials left out because their estimator of y uses no temperature.
    """

    settings: pd.DataFrame
    scores: pd.DataFrame
    units: NDArray[np.int64]
    left_out: dict[str, str]
    total: int
    undecided: int
    exact: int

    @property
    def count(self) -> int:
        """The number of independent units."""
        return len(np.unique(self.units))

    def known(self, metric: Metric) -> NDArray[np.bool_]:
        """Returns which trials `[n]` have the score."""
        return self.scores[metric.column].notna().to_numpy()

    def why_not(self, metric: Metric) -> str:
        """Explains why the importances of a metric cannot be computed; "" if they can."""
        known = self.known(metric)
        if not known.any():
            return "no labels" if metric.labels else "not recorded"
        if len(np.unique(self.units[known])) < MIN_UNITS:
            return f"recorded for fewer than {MIN_UNITS} independent trials"
        counts = np.unique(self.scores[metric.column].to_numpy()[known], return_counts=True)[1]
        if len(counts) == 1:
            return "the same in every trial"
        # The other values would be missing from many trees and resamples.
        return f"the same in {counts.max()} of {counts.sum()} trials" if counts.max() > SAME * counts.sum() else ""


@dataclass(frozen=True)
class Importances:
    """The importances of one metric.

    Attributes:
        table: one row per setting, most important first: setting, label, fanova, fanova_low, fanova_high, ped,
            ped_low, ped_high (shares that sum to 1; the ped columns are NaN if the best quarter is not distinct).
        predicted: R² of a random forest on held-out trials; if its interval includes 0, the shares mean little.
        n: number of trials.
    """

    metric: Metric
    table: pd.DataFrame
    predicted: Estimate
    n: int

    @property
    def readable(self) -> bool:
        """Whether the settings predict the metric at all, so that their shares are meaningful."""
        return self.predicted.low > 0


def sample(study: Study) -> Sample:
    """Returns at most `CAP` independent trials, drawn with a fixed seed, and the settings that vary among them."""
    reading = reads_temperature(study.independent)
    ties = undecided(study.independent) & reading
    trials = study.independent[reading & ~ties]
    total = len(trials)
    if total > CAP:
        trials = trials.iloc[np.sort(np.random.default_rng(0).choice(total, CAP, replace=False))]
    settings: dict[str, pd.Series[Any]] = {}
    left_out = {}
    for name, dimension in DIMENSIONS.items():
        column = f"config/{name}"
        if name == "tau_ratio":
            setting: pd.Series[Any] = values(trials, "config/tau_end") / values(trials, "config/tau_start")
        elif isinstance(dimension, Choice):
            setting = trials.get(column, pd.Series(pd.NA, index=trials.index)).astype(object)
        else:
            setting = values(trials, column)
        why = ""
        if setting.isna().any() or not total:
            why = "was not recorded for every trial"
        elif np.ptp(_coordinate(setting)) < 1e-9:  # the ratio of a fixed pair is rounded
            why = "does not vary"
        if not why:
            settings[name] = setting
        elif dimension.default is not None:  # a dimension that is only searched on request is not reported
            left_out[label(name)] = why
    scores = pd.DataFrame({metric.column: values(trials, metric.column) for metric in METRICS})
    varied = pd.DataFrame(settings, index=trials.index)
    return Sample(varied, scores, units(trials), left_out, total, int(ties.sum()), int((~reading).sum()))


def label(setting: str) -> str:
    """Returns a setting's display name."""
    return columns.title(f"config/{setting}")


def importances(data: Sample) -> Importances | None:
    """Computes importances with intervals for the first of `METRICS` to which `data.why_not` does not object."""
    metric = next((one for one in METRICS if not data.why_not(one)), None)
    if metric is None:
        return None
    points = _points(data)
    whole = _study(points)
    rows = bootstrap.resampled(data.units, rng=np.random.default_rng(0), times=RESAMPLES)
    resamples = [_study([points[row] for row in chosen]) for chosen in rows]
    return _importances(data, metric, whole, resamples)


def _importances(data: Sample, metric: Metric, whole: optuna.Study, resamples: Sequence[optuna.Study]) -> Importances:
    names = [str(name) for name in data.settings]

    def draws(evaluator: BaseImportanceEvaluator) -> Floats:
        shares: Floats = np.array([_shares(study, names, metric, evaluator) for study in resamples])
        return np.asarray(shares[np.isfinite(shares).all(axis=1)])

    fanova = _shares(whole, names, metric, FanovaImportanceEvaluator(n_trees=TREES, max_depth=DEPTH, seed=0))
    fanova_draws = draws(FanovaImportanceEvaluator(n_trees=DRAW_TREES, max_depth=DEPTH, seed=0))
    ped_evaluator = PedAnovaImportanceEvaluator(target_quantile=TOP)
    ped, ped_draws = _shares(whole, names, metric, ped_evaluator), draws(ped_evaluator)
    table = pd.DataFrame(
        {
            "setting": names,
            "label": [label(name) for name in names],
            **_bounds("fanova", fanova, fanova_draws),
            **_bounds("ped", ped, ped_draws),
        }
    ).sort_values("fanova", ascending=False, ignore_index=True)
    settings, y, codes = _known(data, metric)
    draws_of_r2 = [np.arange(len(y)), *bootstrap.resampled(codes, rng=np.random.default_rng(0))]
    r2 = bootstrap.r_squared(_errors(settings, y, codes), y, draws_of_r2)
    return Importances(metric, table, bootstrap.estimate(r2), len(y))


def _known(data: Sample, metric: Metric) -> tuple[pd.DataFrame, Floats, NDArray[np.int64]]:
    """Returns settings, score and units of the trials that have the score."""
    known = data.known(metric)
    return data.settings[known], data.scores[metric.column].to_numpy()[known], data.units[known]


def _coordinate(setting: pd.Series[Any]) -> Floats:
    """Returns numbers on a logarithmic scale (linear if any is 0), and strings as codes in alphabetical order."""
    if setting.dtype == object:
        return np.unique(setting.to_numpy(dtype=str), return_inverse=True)[1].astype(float)
    numbers = setting.to_numpy(dtype=float)
    return np.asarray(np.log(numbers) if numbers.min() > 0 else numbers, dtype=float)


def _coordinates(settings: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({name: _coordinate(settings[name]) for name in settings}, index=settings.index)


def _points(data: Sample) -> list[FrozenTrial]:
    """Creates Optuna trials with scores, in our coordinates because Optuna's fANOVA averages on a linear scale."""
    x = _coordinates(data.settings)
    kinds: dict[str, BaseDistribution] = {}
    for name, setting in data.settings.items():
        if setting.dtype == object:
            x[name] = setting
            kinds[str(name)] = CategoricalDistribution(sorted(set(setting)))
        else:
            kinds[str(name)] = FloatDistribution(x[name].min(), x[name].max())
    rows = zip(x.to_dict("records"), data.scores.to_dict("records"), strict=True)
    return [
        create_trial(params={str(k): v for k, v in params.items()}, distributions=kinds, value=0.0, user_attrs=scores)
        for params, scores in rows
    ]


def _study(points: Sequence[FrozenTrial]) -> optuna.Study:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # Optuna logs every new study
    study = optuna.create_study()
    study.add_trials(points)
    optuna.logging.set_verbosity(verbosity)
    return study


def _shares(study: optuna.Study, names: Sequence[str], metric: Metric, evaluator: BaseImportanceEvaluator) -> Floats:
    """Returns shares of `names` that sum to 1; NaN if the metric is constant or the best quarter is half of all."""

    def loss(trial: FrozenTrial) -> float:
        return -float(trial.user_attrs[metric.column])  # PED-ANOVA minimises, but every metric is better if higher

    y = np.array([loss(trial) for trial in study.get_trials(deepcopy=False)])
    y = y[np.isfinite(y)]
    if not len(y) or np.ptp(y) == 0:
        return np.full(len(names), np.nan)
    if isinstance(evaluator, PedAnovaImportanceEvaluator) and (y <= np.quantile(y, TOP)).mean() > 2 * TOP:
        return np.full(len(names), np.nan)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*to achieve low `target` values")  # this is intended
        try:
            shares = get_param_importances(study, evaluator=evaluator, params=list(names), target=loss)
        except RuntimeError:  # every tree of fANOVA has drawn only equal trials
            return np.full(len(names), np.nan)
    return np.array([shares[name] for name in names])


def _bounds(name: str, value: Floats, draws: Floats) -> dict[str, Floats]:
    low, high = bootstrap.interval(draws) if len(draws) else (value, value)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _forest() -> RandomForestRegressor:
    return RandomForestRegressor(n_estimators=30, min_samples_leaf=3, random_state=0)


def _errors(settings: pd.DataFrame, y: Floats, codes: NDArray[np.int64]) -> Floats:
    """Returns squared errors `[n]` of a forest that was not fitted on any trial of the same unit."""
    x = _coordinates(settings).to_numpy()
    predicted = cross_val_predict(_forest(), x, y, groups=codes, cv=GroupKFold(FOLDS))
    return np.asarray((y - predicted) ** 2, dtype=float)
