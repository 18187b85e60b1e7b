"""Draws the effect of τ_end by the point in the training at which the branches start."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.columns import title
from analysis.figures.forest import COLOURS, MARKERS
from analysis.figures.style import BLUE, INK, STYLE
from analysis.questions.branches import Panel, Share
from analysis.section import Drawing, slug

COLUMN, HEIGHT = 2.1, 2.9  # inches
LABEL = "share of the ELBO phase before the branch point"


def draw(panel: Panel) -> Drawing:
    """Draws the effect of τ_end over the share, one column per outcome; the last shows how similar siblings end."""
    outcomes = list(dict.fromkeys(effect.outcome for share in panel.shares for effect in share.effects))
    compared = [share for share in panel.shares if share.siblings]
    places = [share.share for share in panel.shares]
    columns = len(outcomes) + bool(compared)
    with rc_context(STYLE):
        figure = Figure(figsize=(0.4 + COLUMN * columns, HEIGHT), layout="constrained")
        cells = figure.subplots(1, columns, squeeze=False)[0]
        for axes, outcome in zip(cells, outcomes, strict=False):
            _effects(axes, panel, outcome)
        if compared:
            _siblings(cells[-1], compared)
        for axes in cells:
            axes.set_xticks(places, [f"{place:g}" for place in places])
            axes.set_xlim(min(places) - 0.1, max(places) + 0.1)
            axes.yaxis.set_major_locator(MaxNLocator(5))
        for verdict, marker in MARKERS.items():
            cells[0].plot([], [], linestyle="", marker=marker, color=COLOURS[verdict], label=verdict)
        figure.legend(loc="outside upper left", ncols=3, handletextpad=0.2, columnspacing=1.0)
        figure.supxlabel(LABEL, fontsize=11)
    return Drawing(f"branches-{slug(panel.name)}", figure, _alt(panel))


def _effects(axes: Axes, panel: Panel, outcome: str) -> None:
    """Draws the effect of the highest tau_end relative to the lowest, with intervals and the margin shaded."""
    margin = panel.plan.margin * (panel.k if outcome == "val/clusters_used" else 1)
    axes.axhspan(-margin, margin, color=BLUE, alpha=0.15, linewidth=0)
    axes.axhline(0, color=INK, linewidth=0.8)
    for share in panel.shares:
        effect = share.effect(outcome)
        if effect is None:
            continue
        if effect.contrast is None:
            axes.plot(share.share, effect.means[-1] - effect.means[0], marker="x", color=INK)
            continue
        axes.errorbar(
            share.share,
            effect.contrast.value,
            yerr=effect.contrast.half,
            fmt=MARKERS[effect.contrast.verdict],
            color=COLOURS[effect.contrast.verdict],
            capsize=3,
            markersize=7 if outcome == panel.outcome else 5,
        )
    axes.set_title(_wrapped(f"change of {title(outcome)}"), fontsize=11)


def _siblings(axes: Axes, shares: Sequence[Share]) -> None:
    """Draws one line per seed, and the mean with its interval."""
    for seed in sorted({seed for share in shares for seed in share.seeds}):
        points = [(s.share, s.siblings[s.seeds.index(seed)]) for s in shares if seed in s.seeds]
        axes.plot(*zip(*points, strict=True), color=INK, alpha=0.35, linewidth=0.9, marker=".", zorder=1)
    for share in shares:
        if share.agreement is not None:
            mean, low, high = share.agreement
            axes.errorbar(share.share, mean, yerr=[[mean - low], [high - mean]], fmt="o", color=BLUE, capsize=3)
    axes.set_title("AMI between\nsiblings", fontsize=11)


def _alt(panel: Panel) -> str:
    words = [
        f"{title(effect.outcome)} at share {share.share:g}: {effect.contrast.value:+.3f} "
        f"({effect.contrast.low:+.3f} to {effect.contrast.high:+.3f}), {effect.contrast.verdict}"
        for share in panel.shares
        for effect in share.effects
        if effect.contrast
    ]
    words += [
        f"AMI between siblings at share {s.share:g}: {np.mean(s.siblings):.3f}" for s in panel.shares if s.siblings
    ]
    return f"Effects of τ_end: {'; '.join(words)}." if words else "No effect has an interval."


def _wrapped(words: str) -> str:
    """Wraps a long title into two lines, because columns are narrow."""
    if len(words) < 24:
        return words
    middle = min((i for i, letter in enumerate(words) if letter == " "), key=lambda i: abs(i - len(words) / 2))
    return f"{words[:middle]}\n{words[middle + 1 :]}"
