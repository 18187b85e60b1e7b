"""Draws importances, partial dependence and the β × τ_end map."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from analysis.figures.style import BLUE, GREY, INK, ORANGE, SEQUENTIAL, SIZE, canvas, log_axis

Floats = NDArray[np.float64]
WIDER = (3.6, 2.8)  # inches: a small multiple with long names


def bars(table: pd.DataFrame, *, pale: bool) -> Figure:
    """fANOVA shares as bars and PED-ANOVA shares as dots, with their intervals, the most important on top.

    Args:
        table: of `analysis.importance.Importances`.
        pale: the shares tell nothing.
    """
    alpha = 0.5 if pale else 1.0
    with canvas(WIDER) as (figure, axes):
        at = np.arange(len(table), dtype=float)
        axes.barh(at - 0.18, table["fanova"], height=0.36, color=BLUE, alpha=0.75 * alpha, label="fANOVA")
        axes.hlines(at - 0.18, table["fanova_low"], table["fanova_high"], color=INK, linewidth=1.2, alpha=alpha)
        if table["ped"].notna().all():
            axes.plot(table["ped"], at + 0.2, "o", color=ORANGE, markersize=5, alpha=alpha, label="PED-ANOVA")
            axes.hlines(at + 0.2, table["ped_low"], table["ped_high"], color=ORANGE, linewidth=1.2, alpha=alpha)
        axes.set_yticks(at, table["label"])
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(axis="y", visible=False)
        figure.legend(loc="outside lower center", ncols=2, handlelength=1.2)
    return figure


def dependence(grid: NDArray[np.generic], average: Floats, individual: Floats, setting: str, metric: str) -> Figure:
    """The average bold over the individual curves `[curves, grid]`; a grid of words is drawn at whole numbers."""
    words = grid.dtype.kind in "OU"
    x = np.arange(len(grid)) if words else grid
    with canvas(WIDER) as (figure, axes):
        axes.plot(x, individual.T, color=GREY, linewidth=0.6, alpha=0.4)
        axes.plot(x, average, color=BLUE, linewidth=2.5, marker="o" if words else "")
        if words:
            axes.set_xticks(x, [str(word) for word in grid], rotation=20 if len(grid) > 2 else 0)
        else:
            log_axis(axes, "x")
        axes.set_xlabel(setting)
        axes.set_ylabel(metric)
    return figure


def surface(
    grid_beta: Floats, grid_tau: Floats, predicted: Floats, beta: Floats, tau_end: Floats, metric: str
) -> Figure:
    """Predictions `[β, τ_end]` in colour, the trials as points."""
    with canvas(SIZE) as (figure, axes):
        mesh = axes.pcolormesh(grid_beta, grid_tau, predicted.T, cmap=SEQUENTIAL, shading="gouraud", rasterized=True)
        axes.plot(beta, tau_end, ".", color="white", markeredgecolor="black", markersize=5, markeredgewidth=0.4)
        log_axis(axes, "x")
        log_axis(axes, "y")
        axes.set_xlabel("β")
        axes.set_ylabel("τ_end")
        bar = figure.colorbar(mesh, ax=axes, aspect=28, ticks=MaxNLocator(6))
        bar.set_label(f"predicted {metric}")
    return figure
