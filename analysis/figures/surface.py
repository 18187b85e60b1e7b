"""Draws a metric over the start and the end temperature."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import AbstractPathEffect, withStroke

from analysis.figures.style import INK, MANY, SEQUENTIAL, SIZE, canvas, log_axis
from analysis.section import Drawing

if TYPE_CHECKING:
    from analysis.surface import Surface

PAPER = (1.0, 0.5)  # tau_start, tau_end
RATIOS = {1.0: ("-", "τ_end = τ_start"), 0.5: ("--", "a half"), 0.1: (":", "a tenth")}
OUTLINED: list[AbstractPathEffect] = [
    withStroke(linewidth=2.5, foreground="black")
]  # white letters on any colour of the map
FLAT = 1.25  # a standard deviation that varies by less than this factor has no contours worth a line


def binned(surface: Surface, *, name: str) -> Drawing:
    """Means of cells, each with its number of trials; for a score in p the clusters used below that."""
    norm, bins = _norm(surface), surface.bins
    beside = surface.metric.name.endswith("_p")
    with canvas(SIZE) as (figure, axes):
        _frame(axes, surface)
        for cell in bins.to_dict("records"):
            left, right, low, high = (cell[key] for key in ("start_low", "start_high", "end_low", "end_high"))
            axes.pcolormesh([left, right], [low, high], [[cell["mean"]]], norm=norm, cmap=SEQUENTIAL)
            text = f"{cell['n']:.0f}"
            if beside and np.isfinite(cell["clusters_used"]):
                text += f"\n{cell['clusters_used']:.1f}"
            middle = np.sqrt(left * right), np.sqrt(low * high)
            aligned: dict[str, Any] = {"ha": "center", "va": "center", "linespacing": 0.95}
            axes.text(*middle, text, color="white", path_effects=OUTLINED, zorder=5, **aligned)
        _lines(figure, axes)
        _bar(figure, axes, surface, norm)
    alt = f"{surface.metric.label}, means over {len(bins)} cells of τ_start and τ_end"
    ranked = bins.sort_values("mean", kind="stable").to_dict("records")
    for word, cell in (("highest", ranked[-1]), ("lowest", ranked[0])):
        alt += (
            f"; {word} {cell['mean']:.3g} at τ_start {cell['start_low']:.2g} to {cell['start_high']:.2g}, τ_end "
            f"{cell['end_low']:.2g} to {cell['end_high']:.2g} (n = {cell['n']:.0f})"
        )
    return Drawing(name, figure, f"{alt}.", title=f"{surface.metric.label}, binned")


def fitted(surface: Surface, *, name: str) -> Drawing:
    """The fitted map under the trials, with contours of its standard deviation; the trials alone without a fit."""
    norm, fit, points = _norm(surface), surface.fit, surface.points
    many = len(points) > MANY
    with canvas(SIZE) as (figure, axes):
        _frame(axes, surface)
        alt = f"{surface.metric.label} of {len(points)} trials over τ_start and τ_end"
        if len(fit):
            side = int(np.sqrt(len(fit)))
            x, y, mean, sd = (fit[key].to_numpy().reshape(side, side) for key in ("tau_start", "tau_end", "mean", "sd"))
            axes.pcolormesh(x, y, mean, norm=norm, cmap=SEQUENTIAL, shading="nearest", rasterized=True)
            if np.nanmax(sd) > FLAT * np.nanmin(sd):
                lines = axes.contour(x, y, sd, levels=3, colors="white", linewidths=1.2, linestyles="dashed")
                for each in axes.clabel(lines, fontsize=11, fmt="%.2g"):
                    each.set_path_effects(OUTLINED)
            alt += (
                f", with a fitted surface from {np.nanmin(mean):.3g} to {np.nanmax(mean):.3g} whose standard deviation "
                f"goes from {np.nanmin(sd):.2g} to {np.nanmax(sd):.2g}"
            )
        for independent in (False, True):
            mine = points[points["independent"] == independent]
            colours = ScalarMappable(norm, SEQUENTIAL).to_rgba(mine["value"].to_numpy()).tolist()
            axes.scatter(
                mine["tau_start"],
                mine["tau_end"],
                s=6 if many else 24,
                marker="o" if independent else "D",
                facecolors=colours if independent else "none",
                edgecolors="white" if independent else INK if len(fit) else colours,
                linewidths=0.3 if many else 0.8 if independent or len(fit) else 1.8,
                rasterized=many,
            )
        _lines(figure, axes)
        _bar(figure, axes, surface, norm)
    return Drawing(name, figure, f"{alt}.", title=f"{surface.metric.label}, {'fitted' if len(fit) else 'trials'}")


def _norm(surface: Surface) -> Normalize:
    """The same colours in both pictures of a metric; a few extreme trials do not stretch them."""
    low, high = np.quantile(surface.points["value"], [0.02, 0.98])
    return Normalize(low, high if high > low else low + 1e-9)


def _frame(axes: Axes, surface: Surface) -> None:
    points = surface.points
    axes.plot(points["tau_start"], points["tau_end"], alpha=0.0)  # the axes' range, whatever is drawn
    axes.plot(*PAPER, alpha=0.0)
    axes.use_sticky_edges = False
    log_axis(axes, "x")
    log_axis(axes, "y")
    axes.set_xlabel("τ_start")
    axes.set_ylabel("τ_end")
    axes.grid(False)


def _lines(figure: Figure, axes: Axes) -> None:
    """The annealing diagonal, what lies below it, and the paper's setting; the corner above the diagonal is empty."""
    left, right = axes.get_xlim()
    low, high = axes.get_ylim()
    for ratio, (style, words) in RATIOS.items():
        axes.plot([left, right], [ratio * left, ratio * right], color=INK, linewidth=1.3, linestyle=style, label=words)
    star: dict[str, Any] = {"marker": "*", "markersize": 13, "color": "white", "markeredgecolor": "black"}
    axes.plot(*PAPER, linestyle="none", zorder=6, label="paper", **star)
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
    figure.legend(loc="outside lower center", ncols=4, handlelength=1.4, columnspacing=0.9, handletextpad=0.4)


def _bar(figure: Figure, axes: Axes, surface: Surface, norm: Normalize) -> None:
    bar = figure.colorbar(ScalarMappable(norm, SEQUENTIAL), ax=axes, aspect=28)
    bar.set_label(surface.metric.label)
