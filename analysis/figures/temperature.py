"""Draws one metric against one temperature."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib
from matplotlib.ticker import LogLocator

from analysis.columns import title
from analysis.figures.style import BLUE, INK, MANY, SEQUENTIAL, SMALL, canvas, cluster_bar, cluster_norm, log_axis
from analysis.section import Drawing

if TYPE_CHECKING:
    from analysis.temperature import Response

SIZES = (18.0, 5.0)  # of a point, in square points: few of them, and more than `MANY`


def draw(response: Response, *, name: str) -> Drawing:
    """Points, hollow where TPE placed them, the curve and its band; scores in p in the colour of the clusters used."""
    effect, points, curve = response.effect, response.points, response.curve
    coloured = effect.metric.name.endswith("_p") or effect.metric.name == "objective"
    coloured = coloured and bool(points["clusters_used"].notna().all())
    many = len(points) > MANY
    with canvas(SMALL) as (figure, axes):
        for independent in (False, True):
            mine = points[points["independent"] == independent]
            tau, value = mine["tau"].to_numpy(), mine["value"].to_numpy()
            used = cluster_norm(response.n_clusters)(mine["clusters_used"].to_numpy())
            colours = matplotlib.colormaps[SEQUENTIAL](used) if coloured else BLUE
            axes.scatter(
                tau,
                value,
                s=SIZES[many],
                facecolors=colours if independent else "none",
                edgecolors="none" if independent else colours,
                linewidths=1.0,
                alpha=0.85 if len(points) <= MANY else 0.4,
                rasterized=many,
            )
        axes.plot(curve["tau"], curve["value"], color=INK, linewidth=1.8)
        axes.fill_between(curve["tau"], curve["low"], curve["high"], color=INK, alpha=0.15, linewidth=0)
        log_axis(axes, "x")
        if axes.get_xscale() == "log":  # fewer numbers than `log_axis` writes: beside a colour bar they would touch
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        if effect.metric.log:
            log_axis(axes, "y")
        low, high = points["value"].min(), points["value"].max()
        if high > low:  # the points decide what is seen, not the ends of the band
            if axes.get_yscale() == "log":
                axes.set_ylim(low / (high / low) ** 0.05, high * (high / low) ** 0.05)
            else:
                axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
        axes.set_xlabel(title(effect.temperature))
        axes.set_ylabel(effect.metric.label)
        if coloured:
            cluster_bar(figure, axes, response.n_clusters)
    return Drawing(name, figure, _alt(response), title=effect.metric.label)


def _alt(response: Response) -> str:
    effect, points, curve = response.effect, response.points, response.curve
    text = f"{effect.metric.label} against {title(effect.temperature)}, {len(points)} trials"
    if effect.correlation.rho is not None:
        text += f"; Spearman ρ {effect.correlation.rho:+.2f} over {effect.correlation.n} independent ones"
    if len(curve):
        ends = [f"{row['value']:.3g} at {row['tau']:.2g}" for _, row in curve.iloc[[0, -1]].iterrows()]
        text += f"; the curve goes from {ends[0]} to {ends[1]}"
    return text + "."
