"""Draws curves over training, and when the clusters froze."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.ticker import PercentFormatter

from analysis.figures.style import (
    BLUE,
    GREY,
    INK,
    MANY,
    ORANGE,
    SEQUENTIAL,
    SMALL,
    canvas,
    cluster_bar,
    cluster_norm,
    link,
    log_axis,
)
from analysis.section import Drawing

BINS = 20


def curves(name: str, band: pd.DataFrame, lines: pd.DataFrame, label: str, *, log: bool) -> Drawing:
    """Draws the median and the 10-90 % band over epochs or progress, with single trials as thin lines."""
    with canvas(SMALL) as (figure, axes):
        for trial in lines:
            known = lines[trial].dropna()
            axes.plot(known.index, known, color=GREY, linewidth=0.6, alpha=0.5)
        axes.fill_between(band.index, band["low"], band["high"], color=BLUE, alpha=0.25, linewidth=0)
        axes.plot(band.index, band["median"], color=BLUE, linewidth=2.2, marker="o" if len(band) == 1 else "")
        if log:
            log_axis(axes, "y")
        if band.index.name == "progress":
            axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel("share of training" if band.index.name == "progress" else "epoch")
        axes.set_ylabel(label)
    first, last = band.iloc[0], band.iloc[-1]
    alt = (
        f"{label} over training: median from {first['median']:.3g} to {last['median']:.3g}; 80 % of trials end between "
        f"{last['low']:.3g} and {last['high']:.3g}."
    )
    return Drawing(name, figure, alt, title=label)


def freeze(name: str, table: pd.DataFrame, epochs: int | None) -> Drawing:
    """Draws a histogram of the freeze times; trials that never freeze are in a separate bar on the right."""
    late = table[~table["never"]]
    never = int(table["never"].sum())
    scale = epochs or 1
    with canvas() as (figure, axes):
        axes.hist(late["progress"] * scale, bins=list(np.linspace(0, scale, BINS + 1)), color=BLUE)
        axes.bar([scale * 1.1], [never], width=scale * 0.08, color=ORANGE)
        axes.set_xlabel("freeze, epoch" if epochs else "freeze, share of training")
        axes.set_ylabel("trials")
        ticks = [0, scale / 2, scale]
        axes.set_xticks([*ticks, scale * 1.1], [*(f"{x:g}" if epochs else f"{x:.0%}" for x in ticks), "\nnever"])
    alt = f"{len(late)} trials freeze"
    if len(late):
        alt += f", half of them by {late['progress'].median():.0%} of the training"
    return Drawing(name, figure, f"{alt}; {never} never do.", title="when the clusters freeze")


def compactness(name: str, table: pd.DataFrame, k: int) -> Drawing:
    """Draws Silhouette_p at the end against that at the freeze, coloured by clusters used, with the diagonal."""
    with canvas() as (figure, axes):
        norm = cluster_norm(k)
        shades = ScalarMappable(norm, SEQUENTIAL).to_rgba(table["clusters_used"].to_numpy(dtype=float))
        _diagonal(axes, table)
        for adaptive in table["adaptive"].unique():
            rows = (table["adaptive"] == adaptive).to_numpy(dtype=bool)
            colours = [tuple(shade) for shade in shades[rows]]
            dots = axes.scatter(
                table["silhouette_freeze"][rows],
                table["silhouette_end"][rows],
                s=26 if len(table) <= 300 else 9,
                facecolors="none" if adaptive else colours,
                edgecolors=colours if adaptive else INK,
                linewidths=1.2 if adaptive else 0.4,
                alpha=0.85,
                rasterized=len(table) > MANY,
            )
            link(dots, table["row"][rows])
        axes.set_xlabel("Silhouette (p) at the freeze")
        axes.set_ylabel("Silhouette (p) at the end")
        cluster_bar(figure, axes, k)
    rise = table["silhouette_end"] - table["silhouette_freeze"]
    alt = (
        f"Silhouette (p) at the end against that at the freeze: {int((rise > 0).sum())} of {len(table)} trials rise; "
        f"the median change is {rise.median():.2f}."
    )
    return Drawing(name, figure, alt, title="Silhouette (p) after the freeze")


def _diagonal(axes: Axes, table: pd.DataFrame) -> None:
    both = table[["silhouette_freeze", "silhouette_end"]]
    ends = [both.min().min(), both.max().max()]
    axes.plot(ends, ends, color=INK, linewidth=0.8, linestyle="--")
