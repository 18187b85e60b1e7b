"""Draws the results of `analysis.questions.simplex`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.figures.style import BLUE, INK, ORANGE, SIZE, SMALL, canvas, log_axis
from analysis.questions.simplex import Gradients
from analysis.section import Drawing, slug

CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(0.75)]])


def triangle(samples: pd.DataFrame, *, tau: float, p: Sequence[float]) -> Drawing:
    """Draws samples of one temperature on the simplex of three clusters, with their probabilities at the corners."""
    y = samples[["y0", "y1", "y2"]].to_numpy(dtype=float)
    places = y @ CORNERS
    with canvas(SMALL) as (figure, axes):
        axes.fill(*CORNERS.T, fill=False, edgecolor=INK, linewidth=0.8)
        axes.scatter(places[:, 0], places[:, 1], s=14, color=BLUE, alpha=0.35, linewidths=0, clip_on=False)
        for k, (x, height) in enumerate(CORNERS):
            bottom = k < 2
            axes.annotate(
                f"cluster {k + 1}: {p[k]:g}",
                (x, height),
                xytext=(0, -7 if bottom else 5),
                textcoords="offset points",
                ha="center",
                va="top" if bottom else "bottom",
            )
        axes.set_aspect("equal")
        axes.set_xlim(-0.25, 1.25)
        axes.set_ylim(-0.17, 1.02)
        axes.axis("off")
    mean = float(y.max(axis=1).mean())
    alt = f"{len(y)} samples at tau {tau:g} on a triangle: the largest of the three entries is {mean:.2f} on average."
    return Drawing(slug("simplex-samples-tau", f"{tau:g}"), figure, alt, title=f"τ = {tau:g}")


def gradients(found: Gradients) -> Drawing:
    """Draws the variance with its interval, and the squared bias, against temperature."""
    table = found.table
    tau = table.index.to_numpy(dtype=float)
    with canvas(SIZE) as (figure, axes):
        axes.fill_between(tau, table["low"], table["high"], color=BLUE, alpha=0.25, linewidth=0)
        axes.plot(tau, table["variance"], color=BLUE, marker="o", markersize=4, label="variance")
        axes.plot(tau, table["bias"] ** 2, color=ORANGE, marker="s", markersize=4, linestyle="--", label="bias²")
        axes.axhline(found.exact**2, color=INK, linewidth=0.8, linestyle=":", label="exact gradient²")
        axes.set_xlabel("τ")
        axes.set_ylabel("squared norm of the gradient")
        log_axis(axes, "x")
        log_axis(axes, "y")
        figure.legend(loc="outside upper center", ncols=3, columnspacing=1.2, handlelength=1.6)
    ends = table.iloc[[0, -1]]
    alt = (
        f"{found.loss.name} loss: from tau {tau[0]:g} to {tau[-1]:g}, the variance falls from "
        f"{ends['variance'].iloc[0]:.2g} to {ends['variance'].iloc[1]:.2g}, and the squared bias changes from "
        f"{ends['bias'].iloc[0] ** 2:.2g} to {ends['bias'].iloc[1] ** 2:.2g}; the squared exact gradient is "
        f"{found.exact**2:.2g}."
    )
    return Drawing(f"simplex-gradients-{found.loss.name}", figure, alt, title=f"{found.loss.name} loss")
