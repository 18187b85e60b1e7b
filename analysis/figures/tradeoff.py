"""Draws two scores against each other with their Pareto front."""

from __future__ import annotations

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.style import INK, MANY, SEQUENTIAL, SIZE, canvas, cluster_bar, cluster_norm, link


def scatter(points: pd.DataFrame, *, k: int, x: str, y: str) -> Figure:
    """Points coloured by clusters used, TPE trials hollow, and the front as a staircase.

    Args:
        points: of `analysis.questions.tradeoff.Tradeoff`.
        k: clusters asked for.
        x, y: what the columns compact and other are called.
    """
    with canvas(SIZE) as (figure, axes):
        colours = matplotlib.colormaps[SEQUENTIAL](cluster_norm(k)(points["clusters_used"].to_numpy()))
        solid = points["independent"].to_numpy(dtype=bool)
        many = len(points) > MANY
        for mine, filled in ((solid, True), (~solid, False)):
            dots = axes.scatter(
                points["compact"][mine],
                points["other"][mine],
                s=8 if many else 26,
                facecolors=colours[mine] if filled else "none",
                edgecolors=INK if filled and not many else colours[mine],
                linewidths=0.4 if filled else 1.4,
                rasterized=many,
            )
            link(dots, points["row"][mine])
        front = points[points["front"]].sort_values(["compact", "other"], ascending=[True, False])
        # Up to each point's x nothing better than its y has been reached.
        axes.plot(front["compact"], front["other"], drawstyle="steps-pre", color=INK, linewidth=1.2, zorder=0.5)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        cluster_bar(figure, axes, k)
    return figure
