"""Draws the clusters: heat maps, maps of the clips, and pictures of every cluster."""

from __future__ import annotations

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.style import BLUE, GREY, INK, MANY, PALETTE, SEQUENTIAL, SIZE, SMALL, STYLE, canvas
from analysis.questions.clusters import Agreement, Confusion, Map, Picture, Values
from analysis.section import Drawing

COLOURS = [colour for colour in PALETTE if colour != GREY]  # grey is for categories without their own colour
MARKERS = "o^sX"
CATEGORIES = len(COLOURS) * len(MARKERS)  # all pairs occur, because the two lengths have no common divisor
LETTERS = 18  # of a name on an axis
PICTURE = "magma"  # colour map of features; dark is silence
ROW = 0.24  # inches per line of text


def agreement(found: Agreement, *, name: str) -> Drawing:
    """Draws the NMI of each column with its interval, and a cross at the NMI of shuffled clusters."""
    scores = found.scores.iloc[::-1]  # the first column on top
    rows = np.arange(len(scores))
    with canvas((SIZE[0], 1.0 + 0.3 * len(scores))) as (figure, axes):
        reach = np.abs(scores[["low", "high"]].to_numpy().T - scores["nmi"].to_numpy())
        axes.errorbar(scores["nmi"], rows, xerr=reach, fmt="o", color=BLUE, capsize=3)
        axes.plot(scores["chance"], rows, "x", color=INK)
        axes.set_yticks(rows, [_name(column) for column in scores.index])
        axes.set_ylim(-0.6, len(scores) - 0.4)
        right = max(0.1, 1.05 * scores[["high", "chance"]].to_numpy(dtype=float).max())
        axes.set_xlim(-0.02 * right, right)  # does not cut off a point at 0
        axes.set_xlabel("NMI with the clusters")
    listed = ", ".join(f"{column} {nmi:.2f}" for column, nmi in found.scores["nmi"].items())
    return Drawing(name, figure, f"NMI of the clusters with each column, with intervals: {listed}.")


def confusion(found: Confusion, *, name: str) -> Drawing:
    """Draws a heat map with clusters from left to right and values from top to bottom."""
    shares, counts = found.shares.to_numpy().T, found.counts.to_numpy().T
    values, clusters = counts.shape
    names = [_name(value) for value in found.counts.columns]
    beside = 1.1 + 0.1 * max(map(len, names))  # inches for the names of the values and the colour bar
    size = max(SIZE[0], beside + ROW * clusters), max(2.0, 1.3 + ROW * values)
    with canvas(size) as (figure, axes):
        image = axes.imshow(shares, aspect="auto", cmap=SEQUENTIAL, vmin=0, vmax=1)
        axes.grid(False)
        axes.set_yticks(range(values), names)
        axes.set_xticks(range(clusters), found.counts.index)
        axes.set_xlabel("cluster")
        if 0.1 * len(str(counts.max())) < (size[0] - beside) / clusters:  # a cell has room for its number
            for (row, column), count in np.ndenumerate(counts):
                colour = "black" if shares[row, column] > 0.55 else "white"
                axes.text(column, row, str(count) if count else "", color=colour, ha="center", va="center_baseline")
        figure.colorbar(image, ax=axes, ticks=[0, 0.5, 1], aspect=7 * size[1]).set_label("share of cluster")
    most = found.shares.max(axis=1)
    where = ", ".join(f"{cluster} {found.shares.loc[cluster].idxmax()} {most[cluster]:.0%}" for cluster in most.index)
    alt = f"Heat map of {counts.sum()} clips by cluster and {found.column}; the largest share of each cluster: {where}."
    return Drawing(name, figure, alt, title=f"by {found.column}")


def scatter(found: Map, categories: Values, *, by: str, name: str) -> Drawing:
    """Draws one point per clip; colour and marker show its category, or grey if it is not one of the largest."""
    sizes = categories.value_counts()
    largest = sizes[sizes > 0].nlargest(CATEGORIES).index
    shown = [value for value in categories.categories if value in largest]
    rest = ~categories.isin(shown)
    pixels = len(found.points) > MANY
    with rc_context(STYLE):
        figure = Figure(figsize=(SIZE[0], max(SIZE[1], 0.9 + 0.21 * len(shown))), layout="constrained")
        axes = figure.add_subplot()
        handles = []
        if rest.any():
            handles += axes.plot(*found.points[rest].T, ".", ms=3, color=GREY, label="others", rasterized=pixels)
        for number, value in enumerate(shown):
            marker, colour = MARKERS[number % len(MARKERS)], COLOURS[number % len(COLOURS)]
            points = found.points[categories == value]
            axes.plot(*points.T, ls="", marker=marker, ms=4, mew=0, color=colour, alpha=0.7, rasterized=pixels)
            handles.append(Line2D([], [], ls="", marker=marker, color=colour, label=_name(value)))
        shares = [f" ({share:.0%} of variance)" for share in found.shares] or ["", ""]
        axes.set_xlabel(f"{found.method} 1{shares[0]}")
        axes.set_ylabel(f"{found.method} 2{shares[1]}")
        figure.legend(handles=handles, title=by, loc="outside right upper", handletextpad=0.1, borderpad=0)
    explained = f", which explain {sum(found.shares):.0%} of its variance" if found.shares else ""
    kinds = f"marked by {by}, {len(shown)} kinds"
    alt = f"{len(found.points)} clips on two {found.method} axes of {found.space}{explained}, {kinds}."
    return Drawing(name, figure, alt, title=f"{found.method} of {found.space}, by {by}")


def picture(found: Picture, *, low: float, high: float, name: str) -> Drawing:
    """Draws the mean features on the left, if the cluster has any clips, and the prototype on the right."""
    facts = ", ".join(filter(None, [f"n = {found.n}" if found.n else "empty", found.most]))
    with rc_context(STYLE):
        figure = Figure(figsize=SMALL, layout="constrained")
        panels = {"mean": found.mean, "prototype": found.prototype}
        for axes, (title, values) in zip(figure.subplots(1, 2, sharey=True), panels.items(), strict=True):
            if values is None:
                axes.set_axis_off()
                axes.text(0.5, 0.5, "no clips", transform=axes.transAxes, ha="center")
                continue
            axes.imshow(values.T, origin="lower", aspect="auto", cmap=PICTURE, vmin=low, vmax=high)
            axes.grid(False)
            axes.set_title(title, fontsize=11)
            axes.set_xlabel("frame")
            if values is found.mean or found.mean is None:
                axes.set_ylabel("band")
                axes.tick_params(labelleft=True)
    title = f"cluster {found.cluster} ({facts})"
    seen = "mean of its clips, and its prototype" if found.n else "its prototype"
    return Drawing(name, figure, f"Spectrograms of {title}: {seen}.", title=title)


def _name(text: object) -> str:
    """Prepares a name for matplotlib: not a formula, not hidden from legends, not too long."""
    word = str(text)
    word = word if len(word) <= LETTERS else f"{word[: LETTERS - 1]}…"
    return (f" {word}" if word.startswith("_") else word).replace("$", r"\$")
