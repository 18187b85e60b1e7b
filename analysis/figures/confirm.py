"""Draws the results of `analysis.questions.confirm`."""

from __future__ import annotations

import numpy as np
from scipy import stats

from analysis.columns import title
from analysis.figures.style import BLUE, INK, SMALL, canvas
from analysis.questions.confirm import Confirmed
from analysis.section import Drawing

OFFSET = 0.25  # between the mean and its dots
ROOM = 1.1  # inches per setting


def draw(run: Confirmed, *, name: str) -> Drawing:
    """Draws one dot per seed and setting; lines join the trials of a seed."""
    table = run.scores.to_numpy(dtype=np.float64)
    settings = [str(setting) for setting in run.scores]
    positions = np.arange(len(settings))
    with canvas((max(SMALL[0], ROOM * len(settings)), SMALL[1])) as (figure, axes):
        for row in table:
            known = np.isfinite(row)
            axes.plot(positions[known], row[known], color=INK, alpha=0.25, linewidth=0.8, zorder=1)
        axes.scatter(np.tile(positions, len(table)), table.ravel(), color=BLUE, s=22, zorder=2, linewidths=0)
        for position, column in zip(positions, table.T, strict=True):
            known = column[np.isfinite(column)]
            if not len(known):
                continue
            reach = stats.t.ppf(0.975, len(known) - 1) * stats.sem(known) if len(known) > 1 else np.nan
            axes.errorbar(
                position + OFFSET, known.mean(), yerr=reach, color=INK, marker="_", markersize=9, capsize=3, zorder=3
            )
        axes.set_xticks(positions, settings)
        axes.set_xlim(-0.4, len(settings) - 0.4)
        axes.grid(axis="x", visible=False)
        axes.set_ylabel(title(run.outcome))
    return Drawing(name, figure, _alt(run))


def _alt(run: Confirmed) -> str:
    parts = [
        f"{setting} {scores.mean():.3g} ({scores.min():.3g} to {scores.max():.3g})"
        for setting, scores in run.scores.items()
        if scores.notna().any()
    ]
    return f"{title(run.outcome)} by setting, mean and range over {len(run.scores)} seeds: {'; '.join(parts)}."
