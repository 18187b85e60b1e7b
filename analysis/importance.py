"""Which setting matters most: fANOVA and PED-ANOVA importances, partial dependence, and whether β and τ_end interact.

Every fit is on the independent trials, in the coordinates of the search: τ_start and τ_end / τ_start, of which the
design is a product, with numbers on a logarithmic scale.
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
from sklearn.inspection import partial_dependence
from sklearn.model_selection import GroupKFold, cross_val_predict

from analysis import columns
from analysis.columns import Metric
from analysis.figures import importance as drawn
from analysis.section import Drawing, Group, Section, Statement, Value, slug
from analysis.stats import bootstrap
from analysis.stats.bootstrap import Estimate, Floats
from analysis.trials import Study, units, values

METRICS = tuple(
    columns.metric(column)
    for column in ("val/nmi", "val/acc", "val/silhouette_x", "val/silhouette_p", "val/clusters_used", "objective")
)
MAIN = ("val/nmi", "objective")  # the first that exists and varies is looked at closely
ACCURACY = ("val/acc", "val/nmi")  # what hypothesis H4 is about
TAU = ("tau_start", "tau_ratio", "tau_schedule")
CAPACITY = ("beta", "latent_dim")  # how much z may carry
SETTINGS = (*TAU, *CAPACITY)
MIN_UNITS = 16  # fewer independent trials cannot tell five settings apart
CAP = 400  # trials in a fit
RESAMPLES = 20  # of the importances: each is a forest
TOP = 0.25  # PED-ANOVA: what sets the best quarter apart
TREES, DRAW_TREES = 32, 8  # of fANOVA; of a resample, whose noise the resamples average
DEPTH = 5  # of fANOVA's trees: fully grown ones spread the noise of a trial over all settings
CURVES = 40  # individual curves drawn
FOLDS = 5
SAME = 0.9  # from this share of equal values on, a metric has nothing to explain
PERCENT = (50 * (1 - bootstrap.CONFIDENCE), 50 * (1 + bootstrap.CONFIDENCE))


@dataclass(frozen=True)
class Sample:
    """The trials that carry the fits.

    Attributes:
        settings: `[n, varied settings]` as set (schedules in words), known for every trial; columns in `SETTINGS`.
        scores: `[n, METRICS]` by column, NaN where a trial has no such score.
        tau_end: `[n]`.
        units: `[n]` codes of what was drawn independently.
        left_out: settings by label that are not compared, and why.
        total: independent trials, of which at most `CAP` are here.
        collapsed: trials here with fewer than two clusters, which have no Silhouette.
    """

    settings: pd.DataFrame
    scores: pd.DataFrame
    tau_end: Floats
    units: NDArray[np.int64]
    left_out: dict[str, str]
    total: int
    collapsed: int

    @property
    def count(self) -> int:
        """Independent units."""
        return len(np.unique(self.units))

    def known(self, metric: Metric) -> NDArray[np.bool_]:
        """`[n]`: which trials have the score."""
        return self.scores[metric.column].notna().to_numpy()

    def why_not(self, metric: Metric) -> str:
        """Why the importances of a metric cannot be computed; "" where they can."""
        known = self.known(metric)
        if not known.any():
            return "no labels" if metric.labels else "not recorded"
        if len(np.unique(self.units[known])) < MIN_UNITS:
            return f"recorded for fewer than {MIN_UNITS} independent trials"
        counts = np.unique(self.scores[metric.column].to_numpy()[known], return_counts=True)[1]
        if len(counts) == 1:
            return "the same in every trial"
        # The rest would be missing from many a tree and resample.
        return f"the same in {counts.max()} of {counts.sum()} trials" if counts.max() > SAME * counts.sum() else ""


@dataclass(frozen=True)
class Importances:
    """The importances of one metric.

    Attributes:
        table: a row per setting, most important first: setting, label, fanova, fanova_low, fanova_high, ped, ped_low,
            ped_high (shares that sum to 1; the ped columns are NaN where the best quarter is not distinct), first
            (share of resamples in which its fANOVA share is the largest).
        predicted: R² of a random forest on held-out trials; an interval that reaches 0 means that no share tells much.
        n: trials.
    """

    metric: Metric
    table: pd.DataFrame
    predicted: Estimate
    n: int

    @property
    def readable(self) -> bool:
        """Whether the settings predict the metric at all, so that their shares say something."""
        return self.predicted.low > 0


@dataclass(frozen=True)
class Hypothesis:
    """H4: the accuracy depends more on how much z may carry (β, d) than on τ.

    Attributes:
        capacity, tau: R² on held-out trials of a forest that knows β and d alone, and τ alone.
        difference: the first minus the second.
        verdict: "supported", "refuted" or "undecided".
    """

    metric: Metric
    capacity: Estimate
    tau: Estimate
    difference: Estimate
    verdict: str
    n: int


@dataclass(frozen=True)
class Dependence:
    """Partial dependence of a metric on one setting.

    Attributes:
        grid: `[g]` values of the setting: numbers, or schedules in words.
        average: `[g]`.
        individual: `[curves, g]`, a trial each with only this setting changed.
    """

    metric: Metric
    setting: str
    label: str
    grid: NDArray[np.generic]
    average: Floats
    individual: Floats


@dataclass(frozen=True)
class Interaction:
    """Whether what τ_end does depends on β, from a linear model in logarithms; slopes are per doubling of τ_end.

    Attributes:
        low, high: slope at `beta_low` and at `beta_high`, the 10 % and 90 % quantile of the trials' β.
        difference: high minus low.
        grid_beta, grid_tau: `[12]` axes of `surface` `[β, τ_end]`, the two-way partial dependence.
        beta, tau_end: `[n]` where the trials lie.
    """

    metric: Metric
    beta_low: float
    beta_high: float
    low: Estimate
    high: Estimate
    difference: Estimate
    grid_beta: Floats
    grid_tau: Floats
    surface: Floats
    beta: Floats
    tau_end: Floats


def sample(study: Study) -> Sample:
    """At most `CAP` independent trials, drawn with a fixed seed, and the settings that vary among them."""
    trials = study.independent
    total = len(trials)
    if total > CAP:
        trials = trials.iloc[np.sort(np.random.default_rng(0).choice(total, CAP, replace=False))]
    tau_end, left_out = values(trials, "config/tau_end"), {}
    found: dict[str, Any] = {name: values(trials, f"config/{name}") for name in ("tau_start", "beta", "latent_dim")}
    found["tau_ratio"] = tau_end / found["tau_start"]
    found["tau_schedule"] = trials.get("config/tau_schedule", pd.Series(pd.NA, index=trials.index)).astype(object)
    for name in SETTINGS:
        if found[name].isna().any() or not total:
            left_out[label(name)] = "not recorded for every trial"
        elif np.ptp(_coordinate(found[name])) < 1e-9:  # the ratio of a fixed pair is rounded
            left_out[label(name)] = "does not vary"
    scores = pd.DataFrame({metric.column: values(trials, metric.column) for metric in METRICS})
    collapsed = values(trials, "val/clusters_used") < 2
    scores.loc[collapsed, ["val/silhouette_x", "val/silhouette_p"]] = np.nan  # a floor, not a score
    settings = pd.DataFrame({name: found[name] for name in SETTINGS if label(name) not in left_out})
    return Sample(
        settings, scores, np.asarray(tau_end, dtype=float), units(trials), left_out, total, int(collapsed.sum())
    )


def label(setting: str) -> str:
    """A setting's name for people."""
    return "τ_end / τ_start" if setting == "tau_ratio" else columns.title(f"config/{setting}")


def importances(data: Sample) -> list[Importances]:
    """Importances with intervals for each of `METRICS` that `data.why_not` has nothing against."""
    points = _points(data)
    whole = _study(points)
    # A study is slow to fill: one for each resample serves every metric, which is a target of it.
    rows = bootstrap.resampled(data.units, rng=np.random.default_rng(0), times=RESAMPLES)
    resamples = [_study([points[row] for row in chosen]) for chosen in rows]
    return [_importances(data, metric, whole, resamples) for metric in METRICS if not data.why_not(metric)]


def hypothesis(data: Sample, metric: Metric) -> Hypothesis | None:
    """H4 on a metric that `data.why_not` has nothing against; None where τ, or both β and d, do not vary."""
    settings, y, codes = _known(data, metric)
    tau, capacity = ([name for name in group if name in settings] for group in (TAU, CAPACITY))
    if not tau or not capacity:
        return None
    rows = _resamples(codes)
    errors = [_errors(settings[group], y, codes) for group in (capacity, tau)]
    mine, other = (_r2(y, error) for error in errors)
    mine_draws, other_draws = (_r2_draws(y, error, rows) for error in errors)
    first, second = _estimate(mine, mine_draws), _estimate(other, other_draws)
    difference = _estimate(mine - other, mine_draws - other_draws)
    # Two forests that predict nothing may differ all the same: the better one must predict something.
    if difference.low > 0 and first.low > 0:
        verdict = "supported"
    elif difference.high < 0 and second.low > 0:
        verdict = "refuted"
    else:
        verdict = "undecided"
    return Hypothesis(metric, first, second, difference, verdict, len(y))


def dependences(data: Sample, metric: Metric) -> list[Dependence]:
    """Partial dependence of a metric on each setting, with the curves of at most `CURVES` trials."""
    settings, y, _ = _known(data, metric)
    x = _coordinates(settings)
    forest = _forest().fit(x.to_numpy(), y)
    chosen = np.random.default_rng(0).permutation(len(y))[:CURVES]
    found = []
    for column, name in enumerate(map(str, x)):
        result = partial_dependence(
            forest, x.to_numpy(), [column], kind="both", method="brute", grid_resolution=16, percentiles=(0.0, 1.0)
        )
        grid = _natural(settings[name], result["grid_values"][0])
        found.append(Dependence(metric, name, label(name), grid, result["average"][0], result["individual"][0][chosen]))
    return found


def interaction(data: Sample, metric: Metric) -> Interaction | str:
    """Whether what τ_end does depends on β, or why that cannot be told."""
    known = data.known(metric)
    settings, y, codes = _known(data, metric)
    tau = data.tau_end[known]
    if "beta" not in settings:
        return "β does not vary"
    if settings["beta"].min() <= 0:
        return "β is 0 in some trials"
    if not np.isfinite(tau).all():
        return "τ_end is not recorded for every trial"
    if np.ptp(np.log(tau)) < 1e-9:
        return "τ_end does not vary"
    # τ_start and τ_end, not their ratio: the question is about τ_end.
    others = _coordinates(settings.drop(columns=["beta", "tau_ratio"], errors="ignore"))
    b, t = np.log2(settings["beta"].to_numpy(dtype=float)), np.log2(tau)
    dummies = pd.get_dummies(others, columns=[c for c in others if c == "tau_schedule"], drop_first=True, dtype=float)
    model = np.column_stack([np.ones(len(y)), t, b, (t - t.mean()) * (b - b.mean()), dummies.to_numpy()])
    if np.linalg.matrix_rank(model) < model.shape[1]:
        return "the settings do not vary independently of each other"
    at = np.quantile(b, (0.1, 0.9))
    fits = np.array([np.linalg.lstsq(model[rows], y[rows])[0] for rows in _resamples(codes)])
    best = np.linalg.lstsq(model, y)[0]
    slopes, draws = (fit[..., 1:2] + fit[..., 3:4] * (at - b.mean()) for fit in (best, fits))
    x = np.column_stack([b, t, others.to_numpy()])
    result = partial_dependence(
        _forest().fit(x, y), x, [0, 1], method="brute", grid_resolution=12, percentiles=(0.0, 1.0)
    )
    grid_beta, grid_tau = (np.exp2(grid) for grid in result["grid_values"])
    return Interaction(
        metric=metric,
        beta_low=float(np.exp2(at[0])),
        beta_high=float(np.exp2(at[1])),
        low=_estimate(slopes[0], draws[:, 0]),
        high=_estimate(slopes[1], draws[:, 1]),
        difference=_estimate(slopes[1] - slopes[0], draws[:, 1] - draws[:, 0]),
        grid_beta=grid_beta,
        grid_tau=grid_tau,
        surface=result["average"][0],
        beta=settings["beta"].to_numpy(dtype=float),
        tau_end=tau,
    )


def _importances(data: Sample, metric: Metric, whole: optuna.Study, resamples: Sequence[optuna.Study]) -> Importances:
    names = [str(name) for name in data.settings]

    def draws(evaluator: BaseImportanceEvaluator) -> Floats:
        found: Floats = np.array([_shares(study, names, metric, evaluator) for study in resamples])
        return np.asarray(found[np.isfinite(found).all(axis=1)])

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
            "first": np.bincount(fanova_draws.argmax(axis=1), minlength=len(names)) / len(fanova_draws),
        }
    ).sort_values("fanova", ascending=False, ignore_index=True)
    settings, y, codes = _known(data, metric)
    errors = _errors(settings, y, codes)
    predicted = _estimate(_r2(y, errors), _r2_draws(y, errors, _resamples(codes)))
    return Importances(metric, table, predicted, len(y))


def _known(data: Sample, metric: Metric) -> tuple[pd.DataFrame, Floats, NDArray[np.int64]]:
    """Settings, score and units of the trials that have the score."""
    known = data.known(metric)
    return data.settings[known], data.scores[metric.column].to_numpy()[known], data.units[known]


def _coordinate(setting: pd.Series[Any]) -> Floats:
    """Numbers on a logarithmic scale (a linear one where any is 0), words as codes in alphabetical order."""
    if setting.dtype == object:
        return np.unique(setting.to_numpy(dtype=str), return_inverse=True)[1].astype(float)
    numbers = setting.to_numpy(dtype=float)
    return np.asarray(np.log(numbers) if numbers.min() > 0 else numbers, dtype=float)


def _coordinates(settings: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({name: _coordinate(settings[name]) for name in settings}, index=settings.index)


def _natural(setting: pd.Series[Any], grid: Floats) -> NDArray[np.generic]:
    """The inverse of `_coordinate`."""
    if setting.dtype == object:
        words = sorted(set(setting))
        return np.asarray([words[int(code)] for code in grid])
    return np.asarray(np.exp(grid) if setting.min() > 0 else grid, dtype=float)


def _points(data: Sample) -> list[FrozenTrial]:
    """Trials of Optuna with their scores. Numbers are in our coordinates: its fANOVA averages over a linear scale."""
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
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces every study
    study = optuna.create_study()
    study.add_trials(points)
    optuna.logging.set_verbosity(verbosity)
    return study


def _shares(study: optuna.Study, names: Sequence[str], metric: Metric, evaluator: BaseImportanceEvaluator) -> Floats:
    """Shares by `names` that sum to 1; NaN where the metric is constant or the best quarter is half of the trials."""

    def loss(trial: FrozenTrial) -> float:
        return -float(
            trial.user_attrs[metric.column]
        )  # PED-ANOVA takes low values for good; every metric is better high

    y = np.array([loss(trial) for trial in study.get_trials(deepcopy=False)])
    y = y[np.isfinite(y)]
    if not len(y) or np.ptp(y) == 0:
        return np.full(len(names), np.nan)
    if isinstance(evaluator, PedAnovaImportanceEvaluator) and (y <= np.quantile(y, TOP)).mean() > 2 * TOP:
        return np.full(len(names), np.nan)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*to achieve low `target` values")  # which is meant
        try:
            found = get_param_importances(study, evaluator=evaluator, params=list(names), target=loss)
        except RuntimeError:  # no tree of fANOVA's has drawn a trial that differs
            return np.full(len(names), np.nan)
    return np.array([found[name] for name in names])


def _bounds(name: str, value: Floats, draws: Floats) -> dict[str, Floats]:
    low, high = np.percentile(draws, PERCENT, axis=0) if len(draws) else (value, value)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _estimate(value: float, draws: Floats) -> Estimate:
    low, high = np.nanpercentile(draws, PERCENT)
    return Estimate(float(value), float(low), float(high))


def _forest() -> RandomForestRegressor:
    return RandomForestRegressor(n_estimators=30, min_samples_leaf=3, random_state=0)


def _errors(settings: pd.DataFrame, y: Floats, codes: NDArray[np.int64]) -> Floats:
    """Squared errors `[n]` of a forest that has not seen the trial, nor another of its unit."""
    x = _coordinates(settings).to_numpy()
    predicted = cross_val_predict(_forest(), x, y, groups=codes, cv=GroupKFold(FOLDS))
    return np.asarray((y - predicted) ** 2, dtype=float)


def _resamples(codes: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return bootstrap.resampled(codes, rng=np.random.default_rng(0))


def _r2(y: Floats, errors: Floats) -> float:
    """NaN for a resample in which the metric is constant."""
    total = float(((y - y.mean()) ** 2).sum())
    return 1 - float(errors.sum()) / total if total > 0 else np.nan


def _r2_draws(y: Floats, errors: Floats, resamples: Sequence[NDArray[np.int64]]) -> Floats:
    return np.array([_r2(y[rows], errors[rows]) for rows in resamples])


def section(study: Study) -> Section:
    """What matters most, by corpus and K."""
    statements: list[Statement] = []
    parts: list[Group] = []
    headline: list[str] = []
    for title, panel in study.panels().items():
        data = sample(panel)
        if data.count < MIN_UNITS:
            parts.append(
                Group(
                    f"{title}: importances are not computed. They take at least {MIN_UNITS} independent trials "
                    f"(complete, of a random, QMC, grid or confirm run; seeds of one setting count once), and there "
                    f"are {data.count}."
                )
            )
            continue
        if len(data.settings.columns) < 2:
            parts.append(Group(f"{title}: importances are not computed, for fewer than two settings vary.{_out(data)}"))
            continue
        found = importances(data)
        parts.append(_bars(title, data, found))
        by_column = {one.metric.column: one for one in found}
        main = next((by_column[column] for column in MAIN if column in by_column), None)
        if main is None:
            continue
        name = f"importance/{slug(title)}"
        statements.append(_most(f"{name}/most", title, main))
        headline.append(f"{name}/most")
        accuracy = next((by_column[column] for column in ACCURACY if column in by_column), None)
        h4 = accuracy and hypothesis(data, accuracy.metric)
        if accuracy and h4:
            statements.append(_h4(f"{name}/h4", title, h4, accuracy))
            headline.append(f"{name}/h4")
        parts.append(_curves(title, dependences(data, main.metric), main))
        crossing = interaction(data, main.metric)
        if isinstance(crossing, str):
            parts.append(Group(f"{title}: whether β and τ_end interact cannot be told: {crossing}."))
        else:
            statements.append(_crossing(f"{name}/interaction", title, crossing))
            parts.append(_map(title, crossing))
    if not parts:
        parts.append(Group("Importances: nothing to compute, because no trial of Cat. UVAC has been recorded."))
    return Section("What matters most?", tuple(statements), tuple(parts), tuple(headline))


def _most(name: str, title: str, found: Importances) -> Statement:
    top = found.table.iloc[0]
    given: dict[str, Value] = {
        "panel": title,
        "metric": found.metric.label,
        "n": found.n,
        **found.predicted.values("r2"),
    }
    held_out = "R² = {r2:.2f} (95 % interval {r2_low:.2f} to {r2_high:.2f})"
    if not found.readable:
        text = (
            "{panel}: no setting can be called the most important for {metric}, because the settings together do not "
            f"reliably predict it: {held_out} on held-out trials (n = {{n}})."
        )
        return Statement(name, text, given)
    text = (
        "{panel}: {setting} matters most for {metric}: {share:.0%} (95 % interval {share_low:.0%} to {share_high:.0%}) "
        "of what the settings do one at a time (fANOVA), the largest share in {first:.0%} of the resamples. "
        f"All settings together reach {held_out} on held-out trials (n = {{n}})."
    )
    given |= {"setting": str(top["label"]), "share": float(top["fanova"]), "first": float(top["first"])}
    given |= {"share_low": float(top["fanova_low"]), "share_high": float(top["fanova_high"])}
    if found.table["ped"].notna().all():
        text += " PED-ANOVA, for reaching the best quarter, puts {ped} first."
        given["ped"] = str(found.table["label"].iloc[found.table["ped"].argmax()])
    return Statement(name, text, given)


def _h4(name: str, title: str, found: Hypothesis, ranks: Importances) -> Statement:
    return Statement(
        name,
        "{panel}: that {metric} depends more on how much z may carry (β, d) than on τ (H4) is {verdict}. "
        "On held-out trials, a forest that knows only β and d reaches R² = {capacity:.2f} (95 % interval "
        "{capacity_low:.2f} to {capacity_high:.2f}), one that knows only τ {tau:.2f} ({tau_low:.2f} to "
        "{tau_high:.2f}): a difference of {difference:+.2f} ({difference_low:+.2f} to {difference_high:+.2f}, "
        "n = {n}). "
        "The order by fANOVA is {order}.",
        {
            "panel": title,
            "metric": found.metric.label,
            "verdict": found.verdict,
            "n": found.n,
            "order": ", ".join(ranks.table["label"]),
            **found.capacity.values("capacity"),
            **found.tau.values("tau"),
            **found.difference.values("difference"),
        },
    )


def _crossing(name: str, title: str, found: Interaction) -> Statement:
    verdict = (
        "what τ_end does depends on β"
        if found.difference.low > 0 or found.difference.high < 0
        else "an interaction cannot be told from none"
    )
    return Statement(
        name,
        "{panel}: doubling τ_end moves {metric} by {low:+.3f} (95 % interval {low_low:+.3f} to {low_high:+.3f}) at "
        "β = {beta_low:.2g} and by {high:+.3f} ({high_low:+.3f} to {high_high:+.3f}) at β = {beta_high:.2g}. "
        "The difference is {difference:+.3f} ({difference_low:+.3f} to {difference_high:+.3f}, n = {n}): {verdict}.",
        {
            "panel": title,
            "metric": found.metric.label,
            "n": len(found.beta),
            "verdict": verdict,
            "beta_low": found.beta_low,
            "beta_high": found.beta_high,
            **found.low.values("low"),
            **found.high.values("high"),
            **found.difference.values("difference"),
        },
    )


def _trials(data: Sample) -> str:
    """On how many trials, in words."""
    n = len(data.settings)
    return (
        f"{n} of {data.total} independent trials, drawn with a fixed seed"
        if data.total > n
        else f"{n} independent trials"
    )


def _out(data: Sample) -> str:
    return "".join(f" {name} is left out: {why}." for name, why in data.left_out.items())


def _bars(title: str, data: Sample, found: list[Importances]) -> Group:
    missing = [f"{metric.label} ({data.why_not(metric)})" for metric in METRICS if data.why_not(metric)]
    caption = (
        f"{title}: the share of each setting in each metric, on {_trials(data)}. Bars: fANOVA, a random forest of "
        f"{TREES} trees of depth {DEPTH}, what a setting does by itself when all others are averaged over. Dots: "
        f"PED-ANOVA, how far the best quarter of the trials differs in the setting. Lines: 95 % intervals of "
        f"{RESAMPLES} bootstrap resamples of whole trials (seeds of one setting together). The shares of a metric sum "
        f"to 1, also where nothing matters: R² is what a forest predicts of held-out trials, and bars are pale where "
        f"its interval reaches 0. τ_end enters as τ_end / τ_start, as it was searched: it is at most τ_start, and only "
        f"the ratio varies independently of it."
    )
    if data.collapsed:
        caption += f" Left out of the Silhouettes, which are only a floor with one cluster: {data.collapsed}."
    if any(one.table["ped"].isna().any() for one in found):
        caption += " No dots: more than half of the trials share the best quarter's value."
    caption += _out(data)
    caption += f" Not drawn: {', '.join(missing)}." if missing else ""
    drawings = [
        Drawing(
            name=f"importance-{slug(title)}-{one.metric.name}",
            figure=drawn.bars(one.table, pale=not one.readable),
            alt=f"{title}, importance for {one.metric.label} by fANOVA: "
            + ", ".join(f"{row.label} {row.fanova:.0%}" for row in one.table.itertuples())
            + f"; R² on held-out trials {one.predicted.value:.2f}.",
            title=f"{one.metric.label} (R² = {one.predicted.value:.2f})",
        )
        for one in found
    ]
    return Group(caption, tuple(drawings))


def _curves(title: str, found: list[Dependence], main: Importances) -> Group:
    lines = len(found[0].individual)
    caption = (
        f"{title}: partial dependence of {main.metric.label}. Bold: what a random forest predicts when one setting is "
        f"changed in all {main.n} trials and the rest stays as it was, on average; thin: for {lines} of the "
        f"trials, one by one. Thin lines that are not parallel tell of interactions. The forest's R² on held-out "
        f"trials is {main.predicted.value:.2f}."
    )
    drawings = [
        Drawing(
            name=f"importance-{slug(title)}-dependence-{one.setting}",
            figure=drawn.dependence(one.grid, one.average, one.individual, one.label, main.metric.label),
            alt=f"{title}, predicted {main.metric.label} against {one.label}: on average from {one.average[0]:.3f} at "
            f"{_word(one.grid[0])} to {one.average[-1]:.3f} at {_word(one.grid[-1])}.",
            title=one.label,
        )
        for one in found
    ]
    return Group(caption, tuple(drawings))


def _map(title: str, found: Interaction) -> Group:
    caption = (
        f"{title}: {found.metric.label} as a random forest predicts it over β and τ_end, averaged over the other "
        f"settings of {len(found.beta)} independent trials (points); away from the points it is a guess. The numbers "
        f"above are of a linear model in the logarithms of the settings with the product of β and τ_end, their "
        f"intervals of {bootstrap.RESAMPLES} bootstrap resamples of whole trials."
    )
    drawing = Drawing(
        name=f"importance-{slug(title)}-map",
        figure=drawn.surface(
            found.grid_beta, found.grid_tau, found.surface, found.beta, found.tau_end, found.metric.label
        ),
        alt=f"{title}, predicted {found.metric.label} over β and τ_end, from {found.surface.min():.3f} to "
        f"{found.surface.max():.3f}.",
    )
    return Group(caption, (drawing,))


def _word(value: object) -> str:
    return value if isinstance(value, str) else f"{value:.2g}"
