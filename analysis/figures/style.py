"""How every figure looks: one palette for light, dark and paper, and how a figure becomes SVG, PNG and PDF.

Text and axes take the colour of the page's text, so one drawing serves light, dark and paper. Figures are narrow, so
that their letters stay legible when a phone shrinks them.
"""

from __future__ import annotations

import html
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PathCollection
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from catuvac.io import replacing

INK = "#010203"  # stands for the page's text colour until `svg` replaces it
# Distinct for every kind of colour vision (after Okabe and Ito 2008), each at least 3:1 on white and on near-black.
BLUE, ORANGE, GREEN, PINK, GREY, BROWN = "#3a8fc8", "#cc7a00", "#1f9e77", "#c45fa0", "#808890", "#a6761d"
PALETTE = (BLUE, ORANGE, GREEN, PINK, BROWN, GREY)
SEQUENTIAL = "catuvac"  # cividis, which reads the same for every kind of colour vision
# Its darkest fifth would vanish on a dark page.
matplotlib.colormaps.register(
    ListedColormap(matplotlib.colormaps["cividis"](np.linspace(0.2, 1, 256)), name=SEQUENTIAL), force=True
)
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
MANY = 600  # more points than this are drawn as a picture inside the SVG, and link nowhere
TRIAL = "trial-"  # with the trial's number in `Study.trials`: the id of its row in the page's table


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


def link(points: PathCollection, rows: Iterable[int]) -> None:
    """Makes each point of a scatter a link to its trial's row in the page's table.

    Args:
        points: of a scatter; they are no longer clipped to the axes, since a clip for each would double their size.
        rows: `[n]` row labels of `Study.trials`, in the order of the points.
    """
    points.set_urls([f"#{TRIAL}{row}" for row in rows])
    points.set_clip_on(False)


def svg(figure: Figure, alt: str, name: str = "figure", trials: Mapping[int, str] | None = None) -> str:
    """Renders a figure as an `<svg>` element in the page's text colour.

    Args:
        figure: drawn in this module's style.
        alt: what it shows, for those who cannot see it.
        name: unique in a page; the element's ids begin with it.
        trials: what hovering over a point of `link` shows, by row of the page's table; other points link nowhere.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(
            buffer, format="svg", dpi=160, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace(INK, "currentColor")
    drawing = re.sub(r'<g id="[^"]*"', "<g", drawing)  # nothing refers to them
    links = f'<a xlink:href="#{TRIAL}' in drawing
    drawing = re.sub(
        rf'<a xlink:href="#{TRIAL}(\d+)"[^>]*>\s*', lambda found: _linked(int(found[1]), trials or {}), drawing
    )
    drawing = _small(drawing, name)
    # An image holds nothing to interact with, as far as a screen reader is concerned; a group does.
    return drawing.replace("<svg", f'<svg role="{"group" if links else "img"}" aria-label="{html.escape(alt)}"', 1)


def _linked(row: int, trials: Mapping[int, str]) -> str:
    return f'<a href="#{TRIAL}{row}"><title>{html.escape(trials[row])}</title>' if row in trials else "<a>"


def _small(drawing: str, name: str) -> str:
    """The same drawing in fewer bytes: a page holds tens of thousands of points."""
    ids: dict[str, str] = {}

    def renamed(found: re.Match[str]) -> str:
        return f"{found[1]}{ids.setdefault(found[2], f'{name}-{len(ids)}')}"

    def rounded(found: re.Match[str]) -> str:
        numbers = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), found[2])
        return f'{found[1]}="{numbers}"'

    drawing = re.sub(rf'(\bid="|url\(#|href="#)(?!{TRIAL})([^")]+)', renamed, drawing)  # matplotlib's are long hashes
    drawing = re.sub(r'\b(d|x|y)="([^"]*)"', rounded, drawing)  # hundredths of a point
    drawing = drawing.replace("xlink:href", "href")
    drawing = re.sub(r"\n\s+", "\n", drawing)
    # Points repeat their style: a class is shorter.
    styles = Counter(re.findall(r' style="([^"]*)"', drawing))
    classes = {style: f"{name}-{place}" for place, (style, n) in enumerate(styles.items()) if n > 2}
    drawing = re.sub(
        r' style="([^"]*)"', lambda found: f' class="{classes[found[1]]}"' if found[1] in classes else found[0], drawing
    )
    sheet = "".join(f".{each}{{{style}}}" for style, each in classes.items())
    return re.sub("(<svg[^>]*>)", rf"\g<1><style>{sheet}</style>", drawing, count=1)


def save(figure: Figure, path: Path) -> None:
    """Writes a .pdf or .png for a paper, on white; whole or not at all."""
    metadata = {"CreationDate": None} if path.suffix == ".pdf" else None
    with matplotlib.rc_context(STYLE), replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=300, facecolor="white", metadata=metadata)
