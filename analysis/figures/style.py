"""The common style of all figures, and how a figure becomes SVG, PNG and PDF.

Text and axes have the colour of the page's text, so one drawing works in light mode, in dark mode and on paper.
Figures are narrow, so that their text stays legible when a phone scales them down.
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

INK = "#010203"  # placeholder for the page's text colour, which `svg` replaces
# Distinct for every kind of colour vision (after Okabe and Ito 2008), each at least 3:1 on white and on near-black.
BLUE, ORANGE, GREEN, PINK, GREY, BROWN = "#3a8fc8", "#cc7a00", "#1f9e77", "#c45fa0", "#808890", "#a6761d"
PALETTE = (BLUE, ORANGE, GREEN, PINK, BROWN, GREY)
SEQUENTIAL = "catuvac"  # cividis, which looks the same for every kind of colour vision
# Without its darkest fifth, which would be invisible on a dark page.
matplotlib.colormaps.register(
    ListedColormap(matplotlib.colormaps["cividis"](np.linspace(0.2, 1, 256)), name=SEQUENTIAL), force=True
)
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
MANY = 600  # more points than this are rasterised inside the SVG, without links
TRIAL = "trial-"  # followed by the trial's row in `Study.trials`, the id of its row in the page's table


@contextmanager
def canvas(size: tuple[float, float] = SIZE) -> Iterator[tuple[Figure, Axes]]:
    """Creates a figure with one pair of axes in the project's style; draw inside the `with` block."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        yield figure, figure.add_subplot()


def log_axis(axes: Axes, which: str) -> None:
    """Makes "x" or "y" logarithmic, with plain numbers at 1, 2, 5, 10 …; a range below a factor of 4 stays linear."""
    data = axes.dataLim.intervalx if which == "x" else axes.dataLim.intervaly
    if data[0] <= 0 or data[1] < 4 * data[0]:
        return
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if data[1] < 300 * data[0] else (1.0,)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def cluster_norm(k: int) -> BoundaryNorm:
    """Returns the colour scale of clusters used, 1 to K, for `SEQUENTIAL`."""
    return BoundaryNorm(np.arange(0.5, k + 1), 256)


def cluster_bar(figure: Figure, axes: Axes, k: int) -> None:
    """Adds the colour bar of `cluster_norm`, because a score in p is never shown without clusters used."""
    scale = ScalarMappable(cluster_norm(k), SEQUENTIAL)
    bar = figure.colorbar(scale, ax=axes, ticks=MaxNLocator(6, integer=True), aspect=28)
    bar.set_label(f"clusters used (of {k})")
    bar.ax.minorticks_off()


def link(points: PathCollection, rows: Iterable[int]) -> None:
    """Makes each point of a scatter a link to its trial's row in the page's table.

    Args:
        points: of a scatter plot; clipping to the axes is switched off, because clip paths would double the file size.
        rows: `[n]` row labels of `Study.trials`, in the order of the points.
    """
    points.set_urls([f"#{TRIAL}{row}" for row in rows])
    points.set_clip_on(False)


def svg(figure: Figure, alt: str, name: str = "figure", trials: Mapping[int, str] | None = None) -> str:
    """Renders a figure as an `<svg>` element in the page's text colour.

    Args:
        figure: drawn in this module's style.
        alt: text alternative that describes what it shows.
        name: unique in a page; prefix of the element's ids.
        trials: tooltips of the points of `link`, by row of the page's table; other points have no link.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(
            buffer, format="svg", dpi=160, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace(INK, "currentColor")
    drawing = re.sub(r'<g id="[^"]*"', "<g", drawing)  # these ids are not referenced
    links = f'<a xlink:href="#{TRIAL}' in drawing
    drawing = re.sub(
        rf'<a xlink:href="#{TRIAL}(\d+)"[^>]*>\s*', lambda match: _linked(int(match[1]), trials or {}), drawing
    )
    drawing = _small(drawing, name)
    # Screen readers treat an image as having no interactive content, unlike a group.
    return drawing.replace("<svg", f'<svg role="{"group" if links else "img"}" aria-label="{html.escape(alt)}"', 1)


def _linked(row: int, trials: Mapping[int, str]) -> str:
    return f'<a href="#{TRIAL}{row}"><title>{html.escape(trials[row])}</title>' if row in trials else "<a>"


def _small(drawing: str, name: str) -> str:
    """Shortens the SVG text, because a page contains tens of thousands of points."""
    ids: dict[str, str] = {}

    def renamed(match: re.Match[str]) -> str:
        return f"{match[1]}{ids.setdefault(match[2], f'{name}-{len(ids)}')}"

    def rounded(match: re.Match[str]) -> str:
        numbers = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), match[2])
        return f'{match[1]}="{numbers}"'

    drawing = re.sub(rf'(\bid="|url\(#|href="#)(?!{TRIAL})([^")]+)', renamed, drawing)  # matplotlib's are long hashes
    drawing = re.sub(r'\b(d|x|y)="([^"]*)"', rounded, drawing)  # hundredths of a point
    drawing = drawing.replace("xlink:href", "href")
    drawing = re.sub(r"\n\s+", "\n", drawing)
    # Points repeat their style, for which a class is shorter.
    styles = Counter(re.findall(r' style="([^"]*)"', drawing))
    classes = {style: f"{name}-{place}" for place, (style, n) in enumerate(styles.items()) if n > 2}
    drawing = re.sub(
        r' style="([^"]*)"', lambda match: f' class="{classes[match[1]]}"' if match[1] in classes else match[0], drawing
    )
    sheet = "".join(f".{one}{{{style}}}" for style, one in classes.items())
    return re.sub("(<svg[^>]*>)", rf"\g<1><style>{sheet}</style>", drawing, count=1)


def save(figure: Figure, path: Path) -> None:
    """Writes a .pdf or .png for a paper atomically, with a white background."""
    metadata = {"CreationDate": None} if path.suffix == ".pdf" else None
    with matplotlib.rc_context(STYLE), replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=300, facecolor="white", metadata=metadata)
