"""How every figure looks: one palette for light, dark and paper, and how a figure becomes SVG, PNG and PDF.

Text and axes take the colour of the page's text, so one drawing serves light, dark and paper. Figures are narrow, so
that their letters stay legible when a phone shrinks them.
"""

from __future__ import annotations

import html
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

INK = "#010203"  # stands for the page's text colour until `svg` replaces it
# Distinct for every kind of colour vision (after Okabe and Ito 2008), each at least 3:1 on white and on near-black.
BLUE, ORANGE, GREEN, PINK, GREY, BROWN = "#3a8fc8", "#cc7a00", "#1f9e77", "#c45fa0", "#808890", "#a6761d"
PALETTE = (BLUE, ORANGE, GREEN, PINK, BROWN, GREY)
SEQUENTIAL = "cividis"  # reads the same for every kind of colour vision
DIVERGING = "PuOr"
STYLE: dict[Any, Any] = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.prop_cycle": cycler(color=PALETTE),
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.size": 11.0,
    "grid.alpha": 0.15,
    "grid.color": INK,
    "axes.grid": True,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "catuvac",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
SIZE = (4.8, 3.4)  # inches, one column of the page
SMALL = (3.2, 2.5)  # inches, one of many
MANY = 400  # more points than this are drawn as a picture inside the SVG


@contextmanager
def canvas(size: tuple[float, float] = SIZE) -> Iterator[tuple[Figure, Axes]]:
    """A figure with one pair of axes in the project's style; draw inside the `with`."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        yield figure, figure.add_subplot()


def log_axis(axes: Axes, which: str) -> None:
    """Makes "x" or "y" logarithmic, with plain numbers at 1, 2, 5, 10 …; less than a factor of 4 stays linear."""
    data = axes.dataLim.intervalx if which == "x" else axes.dataLim.intervaly
    if data[0] <= 0 or data[1] < 4 * data[0]:
        return
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if data[1] < 300 * data[0] else (1.0,)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def cluster_norm(k: int) -> BoundaryNorm:
    """The colour scale of clusters used, 1 to K, for `SEQUENTIAL`."""
    return BoundaryNorm(np.arange(0.5, k + 1), 256)


def cluster_bar(figure: Figure, axes: Axes, k: int) -> None:
    """The legend of `cluster_norm`: a p-space score is never shown without the clusters used."""
    scale = ScalarMappable(cluster_norm(k), SEQUENTIAL)
    bar = figure.colorbar(scale, ax=axes, ticks=MaxNLocator(6, integer=True), aspect=28)
    bar.set_label(f"clusters used (of {k})")
    bar.ax.minorticks_off()


def svg(figure: Figure, alt: str, name: str = "figure") -> str:
    """Renders a figure as an `<svg>` element in the page's text colour, with `alt` for those who cannot see it.

    Its ids begin with `name`, which must be unique in a page.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(
            buffer, format="svg", dpi=160, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace(INK, "currentColor")
    drawing = re.sub(r'<g id="[^"]*"', "<g", drawing)  # nothing refers to them
    drawing = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", drawing)  # matplotlib's are hashes of the content
    text = html.escape(alt)
    return drawing.replace("<svg", f'<svg role="img" aria-label="{text}"', 1)


def save(figure: Figure, path: Path) -> None:
    """Writes a .pdf or .png for a paper, on white; whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    metadata = {"CreationDate": None} if path.suffix == ".pdf" else None
    with matplotlib.rc_context(STYLE):
        figure.savefig(temporary, format=path.suffix[1:], dpi=300, facecolor="white", metadata=metadata)
    os.replace(temporary, path)
