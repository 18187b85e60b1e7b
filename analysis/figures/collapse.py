"""Draws where in the search space trials collapse or diverge."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.columns import title
from analysis.figures.style import BLUE, MANY, ORANGE, PINK, SMALL, canvas, link, log_axis
from analysis.section import Drawing

MARKS = {"healthy": ("o", BLUE), "collapsed": ("s", ORANGE), "diverged": ("X", PINK)}  # shape and colour of an outcome


def plane(name: str, points: pd.DataFrame, x: str, y: str) -> Drawing:
    """Draws every trial over two settings, marked by outcome.

    Args:
        points: outcome, adaptive, and the two settings.
    """
    counts = points["outcome"].value_counts()
    with canvas() as (figure, axes):
        for outcome, (marker, colour) in MARKS.items():
            for adaptive in (True, False):
                group = points[(points["outcome"] == outcome) & (points["adaptive"] == adaptive)]
                dots = axes.scatter(
                    group[x],
                    group[y],
                    s=34 if len(points) <= 300 else 9,
                    marker=marker,
                    facecolors="none" if adaptive else colour,
                    edgecolors=colour,
                    linewidths=1.0,
                    alpha=0.8,
                    rasterized=len(points) > MANY,
                )
                link(dots, group["row"])
            if outcome in counts:
                axes.plot([], [], linestyle="", marker=marker, color=colour, label=f"{outcome} ({counts[outcome]})")
        log_axis(axes, "x")
        log_axis(axes, "y")
        axes.set_xlabel(title(x))
        axes.set_ylabel(title(y))
        figure.legend(loc="outside upper left", ncols=2, handletextpad=0.4, columnspacing=1.2)
    alt = f"Trials over {title(x)} and {title(y)}: " + ", ".join(f"{n} {outcome}" for outcome, n in counts.items())
    return Drawing(name, figure, alt + ".")


def rates(name: str, bins: pd.DataFrame, setting: str) -> Drawing:
    """Draws the share of collapsed and of diverged trials in each bin of a setting."""
    words = not pd.api.types.is_number(bins["at"].iloc[0])
    with canvas(SMALL) as (figure, axes):
        for side, (outcome, group) in enumerate(bins.groupby("outcome")):
            marker, colour = MARKS[str(outcome)]
            rate = group["rate"].to_numpy(dtype=float)
            # Side by side, so that two intervals at one place can be distinguished.
            shift = 0.08 * (side - 0.5)
            at = np.arange(len(group)) + shift if words else group["at"].to_numpy(dtype=float) * np.exp(shift)
            below, above = rate - group["low"].to_numpy(dtype=float), group["high"].to_numpy(dtype=float) - rate
            # Rounding may put a bound slightly beyond the rate.
            reach = np.maximum(0.0, np.stack([below, above]))
            axes.errorbar(
                at,
                rate,
                yerr=reach,
                color=colour,
                marker=marker,
                markersize=6,
                linestyle="",
                capsize=2,
                label=str(outcome),
            )
        if words:
            axes.set_xticks(range(len(group)), list(group["at"]))
            axes.set_xlim(-0.5, len(group) - 0.5)
        else:
            log_axis(axes, "x")
        axes.set_ylim(-0.04, 1.04)
        axes.set_yticks([0, 0.5, 1], ["0%", "50%", "100%"])
        axes.set_xlabel(title(setting))
        axes.set_ylabel("share of trials")
        figure.legend(loc="outside upper left", ncols=2, handletextpad=0.4, columnspacing=1.0)
    listed = [
        f"{outcome} " + ", ".join(_bin(row["at"], row["rate"]) for row in group.to_dict("records"))
        for outcome, group in bins.groupby("outcome")
    ]
    return Drawing(name, figure, f"By {title(setting)}: {'; '.join(listed)}.", title=f"by {title(setting)}")


def _bin(at: object, rate: float) -> str:
    return f"{rate:.0%} at {at:.2g}" if isinstance(at, float) else f"{rate:.0%} at {at}"
