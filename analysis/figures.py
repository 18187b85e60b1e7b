"""Drawing only: a computed table in, a figure as inline SVG out.

Text and axes take the colour of the page's text, so one drawing serves light, dark and paper. Figures are narrow, so
that their letters stay legible when a phone shrinks them.
"""

from __future__ import annotations

import html
import io
import re
from typing import Any

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from analysis.dynamics import LearningCurves
from analysis.temperature import TemperatureEffect

INK = "#010203"  # stands for the page's text colour until `svg` replaces it
BLUE = "#3a8fc8"  # legible on white and on near-black, and distinct from ink for every kind of colour vision
STYLE: dict[Any, Any] = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.size": 11.0,
    "grid.alpha": 0.15,
    "grid.color": INK,
    "axes.grid": True,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "catuvac",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
SIZE = (4.8, 3.4)  # inches
SETTING_LABELS = {"tau_start": "start temperature τ_start", "tau_end": "end temperature τ_end"}
OUTCOME_LABELS = {"objective": "objective", "clusters_used": "clusters used", "acc": "validation accuracy"}


def temperature_scatter(effect: TemperatureEffect, outcome: str) -> str:
    """One point per trial; the colour is the number of clusters used, so that a collapsed trial never looks good."""
    points = effect.points.dropna(subset=[outcome])
    k = int(points["n_clusters"].max())
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        # cividis reads the same for every kind of colour vision; the edge keeps both of its ends visible on any page.
        norm = BoundaryNorm(np.arange(0.5, k + 1), 256)
        known = points["clusters_used"].notna()
        axes.scatter(points["tau"][~known], points[outcome][~known], s=42, facecolor="none", edgecolor=INK, alpha=0.8)
        axes.scatter(
            points["tau"][known],
            points[outcome][known],
            c=points["clusters_used"][known],
            norm=norm,
            cmap="cividis",
            s=42,
            alpha=0.9,
            edgecolor=INK,
            linewidth=0.8,
        )
        bar = figure.colorbar(ScalarMappable(norm, "cividis"), ax=axes, ticks=MaxNLocator(6, integer=True), aspect=28)
        bar.set_label(f"clusters used (of {k})")
        bar.ax.minorticks_off()
        if outcome == "clusters_used":
            axes.axhline(k, color=INK, linestyle="--", linewidth=1, alpha=0.6)
            axes.set_ylim(0, k * 1.06)
            axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        if points["tau"].max() > 4 * points["tau"].min():
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(SETTING_LABELS[effect.setting])
        axes.set_ylabel(OUTCOME_LABELS[outcome])
        rho = effect.rho[outcome].rho
        alt = (
            f"{OUTCOME_LABELS[outcome]} against {SETTING_LABELS[effect.setting]} of {len(points)} trials, τ from "
            f"{points['tau'].min():.3g} to {points['tau'].max():.3g}, {OUTCOME_LABELS[outcome]} from "
            f"{points[outcome].min():.3g} to {points[outcome].max():.3g}"
            + (f"; Spearman rho {rho:+.2f}" if rho is not None else "")
        )
        return svg(figure, alt)


def learning_curves(curves: LearningCurves, label: str) -> str:
    """One thin line per trial and their median in bold."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        n = curves.trials.shape[1]
        marker = "o" if len(curves.trials) == 1 else ""
        for i, (_, line) in enumerate(curves.trials.items()):
            line = line.dropna()
            name = "one trial" if i == 0 else None
            axes.plot(line.index, line, marker=marker, color=BLUE, lw=1.2, alpha=max(0.5, 1 - n / 20), label=name)
        if n > 1:
            axes.plot(curves.median.index, curves.median, marker=marker, color=INK, lw=2.4, label="median")
            axes.legend(handlelength=1.4)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        first, last = curves.median.iloc[0], curves.median.iloc[-1]
        alt = f"{label} over epochs {curves.median.index[0]} to {curves.median.index[-1]} of {n} trials"
        return svg(figure, f"{alt}; the median goes from {first:.3g} to {last:.3g}")


def svg(figure: Figure, alt: str) -> str:
    """Renders a figure as an `<svg>` element in the page's text colour, with `alt` for those who cannot see it."""
    buffer = io.StringIO()
    figure.savefig(
        buffer,
        format="svg",
        metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
    )
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace(INK, "currentColor")
    drawing = re.sub(r'<g id="[^"]*"', "<g", drawing)  # the same in every figure; a page may hold an id once
    text = html.escape(alt)
    return drawing.replace("<svg", f'<svg role="img" aria-label="{text}"', 1)
