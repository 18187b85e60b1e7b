"""Draws Silhouette_p against saturation, and the same probabilities sharpened by temperature alone."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator

from analysis.figures.style import INK, MANY, PALETTE, SEQUENTIAL, canvas, cluster_bar, cluster_norm, link, log_axis
from analysis.questions.trap import Sharpened
from analysis.section import Drawing

LINES = ("-", "--", ":", "-.")


def against_saturation(
    name: str, points: pd.DataFrame, measure: str, k: int, sharpened: Sequence[Sharpened] = ()
) -> Drawing:
    """Draws Silhouette_p of every trial against confidence, coloured by clusters used, with the sharpening curves."""
    with canvas() as (figure, axes):
        norm, colours = cluster_norm(k), matplotlib.colormaps[SEQUENTIAL]
        _points(axes, points["saturation"], points, points["clusters_used"], norm)
        column = "confidence" if "confidence" in measure else "entropy_y"
        for i, model in enumerate(sharpened):
            x, y, shade = model.curve[column], model.curve["silhouette"], colours(norm(model.clusters_used))
            style = LINES[i % len(LINES)]
            axes.plot(x, y, color=INK, linewidth=3.2, alpha=0.35)
            axes.plot(x, y, color=shade, linewidth=2.0, linestyle=style)
            trained = model.curve["temperature"] == 1.0
            axes.plot(x[trained], y[trained], color=shade, marker="D", markersize=7, markeredgecolor=INK)
            axes.plot([], [], color=INK, linestyle=style, marker="D", markersize=5, label=model.name)
        axes.set_xlabel(measure)
        axes.set_ylabel("Silhouette (p)")
        if sharpened:
            figure.legend(loc="outside upper left", ncols=1 if len(sharpened) > 2 else 2, handlelength=3)
        cluster_bar(figure, axes, k)
    alt = f"Silhouette (p) against {measure}: {_range(points)}"
    alt += "".join(f"; {_change(model)}" for model in sharpened)
    return Drawing(name, figure, alt + ".", title=f"against {measure}")


def against_clusters(name: str, points: pd.DataFrame, measure: str, k: int) -> Drawing:
    """Draws Silhouette_p of every trial against clusters used, coloured by confidence."""
    with canvas() as (figure, axes):
        saturation = points["saturation"]
        norm = Normalize(saturation.min(), saturation.max())
        # Seeded horizontal jitter separates trials that use the same number of clusters.
        aside = np.random.default_rng(0).uniform(-0.25, 0.25, len(points))
        _points(axes, points["clusters_used"] + aside, points, saturation, norm)
        axes.set_xlim(1.5, k + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel(f"clusters used (of {k})")
        axes.set_ylabel("Silhouette (p)")
        bar = figure.colorbar(ScalarMappable(norm, SEQUENTIAL), ax=axes, aspect=28)
        bar.set_label(measure)
    medians = points.groupby("clusters_used")["silhouette"].median()
    alt = "Median Silhouette (p) by clusters used: " + ", ".join(f"{used:g}: {y:.2f}" for used, y in medians.items())
    return Drawing(name, figure, alt + ".", title="against clusters used")


def sharpening(name: str, sharpened: Sequence[Sharpened], column: str) -> Drawing:
    """Draws a score in p of each model against the temperature that divides its logits; `column` as in the curve."""
    label = {"silhouette": "Silhouette (p)", "dbi": "DBI (p)"}[column]
    with canvas() as (figure, axes):
        for i, model in enumerate(sharpened):
            axes.plot(
                model.curve["temperature"],
                model.curve[column],
                color=PALETTE[i % len(PALETTE)],
                linestyle=LINES[i % len(LINES)],
                marker="o",
                markersize=3,
                linewidth=1.8,
                label=f"{model.name}: {model.clusters_used} of {model.n_clusters} clusters used",
            )
        log_axis(axes, "x")
        axes.invert_xaxis()
        axes.axvline(1.0, color=INK, linewidth=0.8, linestyle="--")
        axes.set_xlabel("T, sharper to the right")
        axes.set_ylabel(label)
        figure.legend(loc="outside upper left")
    ends = [(model, model.curve[column].iloc[0], model.curve[column].iloc[-1]) for model in sharpened]
    alt = "; ".join(f"{model.name} from {first:.2f} to {last:.2f}" for model, first, last in ends)
    return Drawing(name, figure, f"{label} as T falls: {alt}.", title=f"{label} against T")


def _points(axes: Axes, x: pd.Series[float], points: pd.DataFrame, colour: pd.Series[float], norm: Normalize) -> None:
    shades = ScalarMappable(norm, SEQUENTIAL).to_rgba(colour.to_numpy(dtype=float))
    for hollow in points["adaptive"].unique():
        rows = (points["adaptive"] == hollow).to_numpy(dtype=bool)
        colours = [tuple(shade) for shade in shades[rows]]
        dots = axes.scatter(
            x[rows],
            points["silhouette"][rows],
            s=26 if len(points) <= 300 else 9,
            facecolors="none" if hollow else colours,
            edgecolors=colours if hollow else INK,
            linewidths=1.2 if hollow else 0.4,
            alpha=0.85,
            rasterized=len(points) > MANY,
        )
        link(dots, points["row"][rows])


def _range(points: pd.DataFrame) -> str:
    if points.empty:
        return "no trial"
    score, x = points["silhouette"], points["saturation"]
    return (
        f"{len(points)} trials from {score.min():.2f} to {score.max():.2f} over {x.min():.2f} to {x.max():.2f}, "
        f"{points['clusters_used'].min():g} to {points['clusters_used'].max():g} clusters used"
    )


def _change(model: Sharpened) -> str:
    score, used = model.curve["silhouette"], model.clusters_used
    return f"sharpening {model.name} ({used} clusters used) changes from {score.iloc[0]:.2f} to {score.iloc[-1]:.2f}"
