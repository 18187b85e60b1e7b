"""Draws two scores against each other with their Pareto front."""

from __future__ import annotations

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.style import INK, MANY, SEQUENTIAL, SIZE, canvas, cluster_bar, cluster_norm, link


def scatter(points: pd.DataFrame, *, k: int, x: str, y: str) -> Figure:
    """Draws points coloured by clusters used, TPE trials hollow, and the front as a staircase.

    Args:
        points: of `analysis.questions.tradeoff.Tradeoff`.
        k: n_clusters.
        x, y: labels of the columns compact and other.
    """
    with canvas(SIZE) as (figure, axes):
        colours = matplotlib.colormaps[SEQUENTIAL](cluster_norm(k)(points["clusters_used"].to_numpy()))
        solid = points["independent"].to_numpy(dtype=bool)
        many = len(points) > MANY
        for rows, filled in ((solid, True), (~solid, False)):
            dots = axes.scatter(
                points["compact"][rows],
                points["other"][rows],
                s=8 if many else 26,
                facecolors=colours[rows] if filled else "none",
                edgecolors=INK if filled and not many else colours[rows],
                linewidths=0.4 if filled else 1.4,
                rasterized=many,
            )
            link(dots, points["row"][rows])
        front = points[points["front"]].sort_values(["compact", "other"], ascending=[True, False])
        # Between two points of the front, y is that of the right one.
        axes.plot(front["compact"], front["other"], drawstyle="steps-pre", color=INK, linewidth=1.2, zorder=0.5)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        cluster_bar(figure, axes, k)
    return figure
