"""What do the temperature at the start and the one at the end do together?"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from analysis.columns import Metric, metric
from analysis.figures import surface as figures
from analysis.section import Drawing, Group, Section, Statement, Table, Value, slug
from analysis.stats.bootstrap import MIN_UNITS, RESAMPLES, Estimate
from analysis.stats.least_squares import resample_weights, slope
from analysis.temperature import RANGE, defined, estimate, moved
from analysis.trials import INDEPENDENT, Study, units, values

QUESTION = "Does the effect of the end temperature depend on the start?"
BINS = (5, 7)  # of tau_start and of tau_end
GRID = 40  # points of the fitted map along each axis
CAP = 300  # trials a Gaussian process is fitted to: its time grows with their cube
MIN_FIT = 12  # trials for a map
MIN_INTERACTION = 20  # independent settings for the six coefficients of the interaction test


@dataclass(frozen=True)
class Surface:
    """A metric over the two temperatures.

    Attributes:
        panel: such as "fsdd, K = 10".
        metric: what is mapped.
        n_clusters: K.
        points: a row per complete trial: tau_start, tau_end, value, clusters_used, independent.
        bins: a row per cell that holds independent trials: start_low, start_high, end_low, end_high, mean, n,
            clusters_used.
        fit: a row per cell of a grid of GRID x GRID, row by row of tau_end: tau_start, tau_end, mean, sd (of the
            surface, without the noise of a trial), NaN where no trial could lie; no rows without a fit.
        fitted: trials behind the fit.
        noise: standard deviation of a trial about the surface, as the fit learned it; None without a fit.
        end_held: change of the metric from the 10 % to the 90 % quantile of tau_start with tau_end held.
        start_held: the same for tau_end with tau_start held.
        interaction: by how much more a tenfold tau_end moves the metric at the 90 % than at the 10 % quantile of
            tau_start; None where the trials do not tell.
        starts: the two quantiles of tau_start; None where there is no interaction.
        units: independent settings.
    """

    panel: str
    metric: Metric
    n_clusters: int
    points: pd.DataFrame
    bins: pd.DataFrame
    fit: pd.DataFrame
    fitted: int
    noise: float | None
    end_held: Estimate | None
    start_held: Estimate | None
    interaction: Estimate | None
    starts: tuple[float, float] | None
    units: int


def surfaces(name: str, panel: Study) -> tuple[Surface, ...]:
    """NMI (the objective where there are no labels), Silhouette in p with the clusters used, and the objective."""
    columns = ["val/nmi", "val/silhouette_p", "val/clusters_used", "objective"]
    if values(panel.complete, "val/nmi").isna().all():
        columns = ["objective", *columns[1:3]]
    found = (surface(name, panel, metric(column)) for column in columns)
    return tuple(each for each in found if len(each.points))


def surface(name: str, panel: Study, response: Metric) -> Surface:
    """One metric's points, bins, fit and interaction."""
    trials = panel.complete
    points = pd.DataFrame(
        {
            "tau_start": values(trials, "config/tau_start"),
            "tau_end": values(trials, "config/tau_end"),
            "value": defined(trials, response),
            "clusters_used": values(trials, "val/clusters_used"),
            "independent": trials["arm"].isin(INDEPENDENT).to_numpy(dtype=bool),
            "unit": units(trials) if len(trials) else np.empty(0, dtype=np.int64),
        }
    ).dropna(subset=["tau_start", "tau_end", "value"])
    # The search never heats; a hand-written setting that does lies off the map.
    points = points[points["tau_end"] <= points["tau_start"] * (1 + 1e-9)].reset_index(drop=True)
    mine = points[points["independent"]]
    fit, fitted, noise = _fit(mine)
    starts = np.log10(mine["tau_start"].to_numpy(dtype=np.float64))
    ends = np.log10(mine["tau_end"].to_numpy(dtype=np.float64))
    y = mine["value"].to_numpy(dtype=np.float64)
    count = mine["unit"].nunique()
    start_held = end_held = interaction = None
    quantiles = None
    if count >= MIN_UNITS and np.ptp(y) > 0:
        weights = resample_weights(mine["unit"].to_numpy(dtype=np.int64))
        low, high = np.quantile(starts, RANGE)
        start_held = slope([starts, ends], y, weights, times=float(np.subtract(*np.quantile(ends, RANGE[::-1]))))
        end_held = slope([ends, starts], y, weights, times=float(high - low))
        if count >= MIN_INTERACTION:
            # With the squares, a curved effect of one temperature is not taken for an interaction: the two rise
            # together. Centred, so that the products say something other than the temperatures themselves.
            u, v = starts - starts.mean(), ends - ends.mean()
            interaction = slope([u, v, u * u, v * v, u * v], y, weights, times=float(high - low))
            quantiles = (float(10**low), float(10**high)) if interaction else None
    return Surface(
        panel=name,
        metric=response,
        n_clusters=int(trials["n_clusters"].iloc[0]) if len(trials) else 0,
        points=points.drop(columns="unit"),
        bins=_bins(mine),
        fit=fit,
        fitted=fitted,
        noise=noise,
        end_held=end_held,
        start_held=start_held,
        interaction=interaction,
        starts=quantiles,
        units=count,
    )


def _bins(points: pd.DataFrame) -> pd.DataFrame:
    """Means over cells that are even in the logarithms, of those cells that hold a trial."""
    names = ("start", "end")
    edges, cells = {}, {}
    for name, count in zip(names, BINS, strict=True):
        tau = points[f"tau_{name}"].to_numpy(dtype=np.float64)
        edges[name] = np.geomspace(tau.min(), tau.max(), count + 1) if len(tau) else np.ones(count + 1)
        cells[name] = np.clip(np.searchsorted(edges[name], tau, side="right") - 1, 0, count - 1)
    grouped = points.assign(**cells).groupby(["start", "end"])
    found = grouped.agg(mean=("value", "mean"), n=("value", "size"), clusters_used=("clusters_used", "mean"))
    found = found.reset_index()
    for name in names:
        found[f"{name}_low"], found[f"{name}_high"] = edges[name][found[name]], edges[name][found[name] + 1]
    return found.drop(columns=list(names))


def _fit(points: pd.DataFrame) -> tuple[pd.DataFrame, int, float | None]:
    """A Gaussian process over the logarithms of both temperatures, evaluated on a grid within the trials."""
    none = pd.DataFrame(columns=["tau_start", "tau_end", "mean", "sd"], dtype=float)
    if len(points) < MIN_FIT or points["value"].nunique() == 1:
        return none, 0, None
    x = np.log10(points[["tau_start", "tau_end"]].to_numpy(dtype=np.float64))
    if np.ptp(x, axis=0).min() == 0:
        return none, 0, None
    edges = x.min(axis=0), x.max(axis=0)
    ratio = (x[:, 1] - x[:, 0]).min()
    kept = points.sample(min(CAP, len(points)), random_state=0).index
    y = points.loc[kept, "value"].to_numpy(dtype=np.float64)
    x = np.log10(points.loc[kept, ["tau_start", "tau_end"]].to_numpy(dtype=np.float64))
    centre, scale = y.mean(), y.std()
    if scale == 0:
        return none, 0, None
    # A length scale of 10 decades is a temperature without effect; less than a tenth of a decade is noise.
    # The level is not known either: the fixed constant.
    effect = ConstantKernel(1.0, (1e-3, 1e2)) * RBF([0.5, 0.5], (0.1, 10.0)) + ConstantKernel(1.0, "fixed")
    kernel = effect + WhiteKernel(0.5, (1e-4, 2.0))
    process = GaussianProcessRegressor(kernel, n_restarts_optimizer=1, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a scale at its bound is an answer, as said above
        process.fit(x, (y - centre) / scale)
    start, end = (10 ** np.linspace(low, high, GRID) for low, high in zip(*edges, strict=True))
    grid = pd.DataFrame({"tau_start": np.tile(start, GRID), "tau_end": np.repeat(end, GRID)})
    log_grid = np.log10(grid.to_numpy())
    mean, sd = process.predict(log_grid, return_std=True)
    noise = process.kernel_.k2.noise_level
    inside = (np.diff(log_grid)[:, 0] <= 1e-9) & (np.diff(log_grid)[:, 0] >= ratio - 1e-9)
    grid["mean"] = np.where(inside, centre + scale * mean, np.nan)
    grid["sd"] = np.where(inside, scale * np.sqrt(np.maximum(0.0, sd**2 - noise)), np.nan)
    return grid, len(kept), float(scale * np.sqrt(noise))


def section(study: Study) -> Section:
    """The interaction in words, and for every panel and metric the binned means and the fitted map."""
    panels = study.panels()
    if not panels:
        why = "No trial of Cat. UVAC has been recorded, so there is no map of the two temperatures."
        return Section(QUESTION, (Statement("surface/none", why),), (Group(why),))
    statements: list[Statement] = []
    parts: list[Group | Table] = []
    headline: list[str] = []
    for name, panel in panels.items():
        found = surfaces(name, panel)
        mine = [_statement(each, found) for each in found]
        if not any(each.interaction for each in found):
            mine = [_why_not(name, panel, found)]
        statements += mine
        headline.append(mine[0].name)
        if any(each.start_held or each.end_held for each in found):
            parts.append(_table(name, found))
        parts.append(_group(name, panel, found))
    return Section(QUESTION, tuple(statements), tuple(parts), tuple(headline))


def _statement(found: Surface, others: tuple[Surface, ...]) -> Statement:
    name = f"surface/{slug(found.panel)}/{found.metric.name}"
    words: dict[str, Value] = {"panel": found.panel, "metric": found.metric.label, "n": found.units}
    if found.interaction is None or found.starts is None:
        text = (
            "{panel}: the {n} independent settings do not tell whether the effect of τ_end on {metric} depends on "
            "τ_start."
        )
        return Statement(name, text, words)
    words |= estimate("more", found.interaction) | {"start_low": found.starts[0], "start_high": found.starts[1]}
    verdict = "depends on τ_start" if found.interaction.excludes_zero else "is not seen to depend on τ_start"
    text = (
        f"{{panel}}: the effect of τ_end on {{metric}} {verdict}. A tenfold τ_end moves it by "
        f"{moved('more', found.interaction)}, n = {{n}}) more at τ_start {{start_high:.2g}} than at {{start_low:.2g}}."
    )
    for other in others:
        if found.metric.name.endswith("_p") and other.metric.name == "clusters_used" and other.interaction:
            words |= estimate("clusters", other.interaction)
            text += f" The same for the clusters used: {moved('clusters', other.interaction)})."
    return Statement(name, text, words)


def _why_not(name: str, panel: Study, found: tuple[Surface, ...]) -> Statement:
    """Why no interaction can be tested for any metric."""
    count = max((each.units for each in found), default=0)
    words: dict[str, Value] = {"panel": name, "n": len(panel.complete), "count": count, "need": MIN_INTERACTION}
    if panel.complete.empty:
        text = "{panel}: no trial ran to its end with an objective, so there is no map of the two temperatures."
    elif not found:
        text = "{panel}: none of {n} complete trials has both temperatures and a score, so there is no map."
    elif count == 0:
        text = (
            "{panel}: all {n} complete trials were placed by the sampler (TPE) where earlier ones did well. They allow "
            "no inference on whether the effect of τ_end depends on τ_start."
        )
    elif count < MIN_INTERACTION:
        text = (
            "{panel}: {count} independent settings are too few to test whether the effect of τ_end depends on τ_start; "
            "it takes {need}."
        )
    else:
        text = (
            "{panel}: {count} independent settings do not tell whether the effect of τ_end depends on τ_start: too few "
            "different temperatures, or nothing that varies."
        )
    return Statement(f"surface/{slug(name)}/none", text, words)


def _table(name: str, found: tuple[Surface, ...]) -> Table:
    rows = tuple(
        (each.metric.label, _cell(each.start_held), _cell(each.end_held), _cell(each.interaction)) for each in found
    )
    return Table(
        f"{name}: change of each metric from the 10 % to the 90 % quantile of one temperature with the other held "
        "(plane over both logarithms), and by how much more a tenfold τ_end moves it at the 90 % than at the 10 % "
        "quantile of τ_start (with squares, so that a curved effect is not taken for one). Least squares over "
        f"{max(each.units for each in found)} independent settings; in brackets 95 % of {RESAMPLES} bootstrap samples, "
        "not corrected for the number of rows. A dash: the trials do not tell.",
        ("metric", "τ_end, τ_start held", "τ_start, τ_end held", "interaction"),
        rows,
    )


def _cell(found: Estimate | None) -> str:
    return (
        "–" if found is None else moved("x", found).format(**estimate("x", found)).replace("95 % interval ", "") + ")"
    )


def _group(name: str, panel: Study, found: tuple[Surface, ...]) -> Group:
    drawings: list[Drawing] = []
    for each in found:
        where = slug("surface", name, each.metric.name)
        if len(each.bins):
            drawings.append(figures.binned(each, name=f"{where}-bins"))
        drawings.append(figures.fitted(each, name=f"{where}-fit"))
    if not drawings:
        return Group(f"{name}: no map, because no complete trial has both temperatures and a score.")
    return Group(_caption(name, panel, found), tuple(drawings))


def _caption(name: str, panel: Study, found: tuple[Surface, ...]) -> str:
    n = int(max(each.points["independent"].sum() for each in found))
    words = [f"{name}: each metric over both temperatures, {n} independent trials."]
    if n:
        words.append(
            "Binned: means over cells even in the logarithms, with the number of trials and, for a score in p, the "
            "mean of the clusters used below it."
        )
    tpe = int(max((~each.points["independent"]).sum() for each in found))
    if any(each.fitted for each in found):
        most = max(each.fitted for each in found)
        cap = f", {most} of them drawn with a fixed seed" if most < n else ""
        words.append(
            "Fitted: a Gaussian process over both logarithms (squared exponential, its scales and noise learned"
            f"{cap}); dashed white: the standard deviation of the surface, where it varies by more than a quarter; no "
            "colour: where no trial could lie, or the ratio is below all trials'."
        )
    elif n:
        words.append(f"No fit: it takes {MIN_FIT} independent trials, different temperatures and a metric that varies.")
    words.append(
        "Lines: τ_end = τ_start (no annealing), and τ_end a half and a tenth of τ_start; star: the paper's 1.0 → 0.5."
    )
    if tpe:
        words.append(
            f"{tpe} hollow diamonds are trials that TPE placed where earlier ones did well; no mean or fit uses them."
        )
    if not any(each.metric.labels for each in found):
        words.append("No labels, so no NMI.")
    hot = len(panel.complete) - max(len(each.points) for each in found)
    if hot:
        words.append(f"{hot} trials are left out: a temperature or score is missing, or τ_end is above τ_start.")
    return " ".join(words)
