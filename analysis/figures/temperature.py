"""Draws one metric against one temperature."""

from __future__ import annotations

import matplotlib
from matplotlib.ticker import LogLocator

from analysis.columns import title
from analysis.figures.style import BLUE, MANY, SEQUENTIAL, SMALL, canvas, cluster_bar, cluster_norm, link, log_axis
from analysis.questions.temperature import Response
from analysis.section import Drawing

SIZES = (18.0, 5.0)  # area of a point in square points, for few points and for more than `MANY`


def draw(response: Response, *, name: str) -> Drawing:
    """Draws points (hollow: no design placed them; crosses: y is undecided), and scores in p by clusters used."""
    metric, points = response.metric, response.points
    coloured = metric.name.endswith("_p") or metric.name == "objective"
    coloured = coloured and bool(points["clusters_used"].notna().all())
    many = len(points) > MANY
    with canvas(SMALL) as (figure, axes):
        for (independent, decided), group in points.groupby(["independent", "decided"]):
            tau, value = group["tau"].to_numpy(), group["value"].to_numpy()
            used = cluster_norm(response.n_clusters)(group["clusters_used"].to_numpy())
            colours = matplotlib.colormaps[SEQUENTIAL](used) if coloured else BLUE
            dots = axes.scatter(
                tau,
                value,
                s=SIZES[many],
                marker="o" if decided else "x",
                facecolors=colours if independent or not decided else "none",
                edgecolors=colours if decided else None,
                linewidths=1.0,
                alpha=0.85 if len(points) <= MANY else 0.4,
                rasterized=many,
            )
            link(dots, group["row"])
        log_axis(axes, "x")
        if axes.get_xscale() == "log":  # fewer tick labels than `log_axis`, which would overlap next to a colour bar
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axes.set_xlabel(title(response.temperature))
        axes.set_ylabel(metric.label)
        if coloured:
            cluster_bar(figure, axes, response.n_clusters)
    return Drawing(name, figure, _alt(response), title=metric.label)


def _alt(response: Response) -> str:
    name, points = response.metric.label, response.points
    low, high = points["value"].min(), points["value"].max()
    return f"{name} against {title(response.temperature)}, {len(points)} trials, from {low:.3g} to {high:.3g}."
