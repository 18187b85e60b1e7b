"""Draws the results of `analysis.questions.sizes`."""

from __future__ import annotations

from analysis.columns import title
from analysis.figures.style import BLUE, ORANGE, canvas, link, log_axis
from analysis.questions.sizes import Sizes
from analysis.section import Drawing


def draw(found: Sizes, *, name: str) -> Drawing:
    """Draws one dot per trial over the MACs per clip, and a line through the means of the sizes."""
    with canvas() as (figure, axes):
        dots = axes.scatter(found.trials["macs"] / 1e6, found.trials["outcome"], s=22, color=BLUE, alpha=0.8, zorder=3)
        link(dots, found.trials.index)
        macs, means = [size.macs / 1e6 for size in found.sizes], [size.mean for size in found.sizes]
        axes.plot(macs, means, color=ORANGE, linewidth=1.6, marker="_", markersize=12, zorder=2)
        log_axis(axes, "x")
        axes.set_xlabel("million MACs per clip")
        axes.set_ylabel(title(found.outcome))
    words = "; ".join(f"{size.macs / 1e6:.2g} million {size.mean:.3f}" for size in found.sizes)
    return Drawing(name, figure, f"Mean {title(found.outcome)} by the MACs per clip: {words}.")
