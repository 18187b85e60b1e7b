"""Draws the results of `analysis.questions.selection`."""

from __future__ import annotations

import numpy as np

from analysis.figures.style import BLUE, ORANGE, SIZE, canvas, link
from analysis.questions.selection import Regrets
from analysis.section import Drawing


def draw(found: Regrets, complete: Regrets | None, *, name: str) -> Drawing:
    """Draws one dot per criterion at its regret, the lowest on top; hollow dots include the trials of TPE."""
    criteria = found.criteria
    rows = np.arange(len(criteria))
    regret = criteria["ami_regret"].to_numpy(dtype=float)
    blind = float(found.blind["ami_regret"])
    with canvas((SIZE[0], 1.1 + 0.27 * len(rows))) as (figure, axes):
        axes.axvline(blind, color=ORANGE, linewidth=1.4, zorder=1, label="random pick")
        if found.inference:
            axes.axvspan(*found.blind[["ami_low", "ami_high"]], color=ORANGE, alpha=0.15, linewidth=0, zorder=0)
            ends = criteria[["ami_low", "ami_high"]].to_numpy(dtype=float).T
            axes.hlines(rows, *ends, color=BLUE, linewidth=1.6, zorder=2)
        placed = complete is found
        dots = axes.scatter(
            regret,
            rows,
            s=36,
            color="none" if placed else BLUE,
            edgecolors=BLUE,
            zorder=3,
            label="all trials" if placed else "designed trials",
        )
        link(dots, criteria["row"])
        if complete is not None and not placed:
            with_tpe = complete.table["ami_regret"].reindex(criteria.index)
            dots = axes.scatter(
                with_tpe,
                rows,
                s=36,
                facecolors="none",
                edgecolors=BLUE,
                zorder=3,
                label="all trials",
            )
            link(dots, complete.table["row"].reindex(criteria.index))
        axes.set_yticks(rows, list(criteria["label"]))
        axes.set_ylim(len(rows) - 0.4, -1.4)
        axes.set_xlim(left=0)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("AMI lost relative to the best trial")
        # Clusters used are in a separate column on the right, in brackets for the hollow pick.
        right = axes.get_yaxis_transform()
        hollow = None if complete is None or placed else complete.table["clusters"].reindex(criteria.index)
        for row, used in enumerate(criteria["clusters"]):
            words = _count(used) if hollow is None else f"{_count(used)} ({_count(hollow.iloc[row])})"
            axes.text(1.04, row, words, transform=right, va="center", ha="left")
        axes.text(1.04, -1.0, "clusters", transform=right, va="center", ha="left")
        figure.legend(loc="outside lower center", ncols=3, columnspacing=1.2, handletextpad=0.3, handlelength=1.4)
    return Drawing(name, figure, _alt(found, blind))


def _count(clusters: float) -> str:
    return f"{clusters:.0f}" if np.isfinite(clusters) else "?"


def _alt(found: Regrets, blind: float) -> str:
    words = "; ".join(
        f"{row['label']} {row['ami_regret']:.3f}"
        + (f" with {row['clusters']:.0f} clusters" if np.isfinite(row["clusters"]) else "")
        for _, row in found.criteria.iterrows()
    )
    return f"AMI lost by each criterion among {found.n} trials: {words}. A random pick loses {blind:.3f}."
