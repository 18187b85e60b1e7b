"""Drawings of `analysis.seeds`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from analysis.figures.style import BLUE, INK, SEQUENTIAL, SMALL, canvas, cluster_bar, cluster_norm
from analysis.section import Drawing

if TYPE_CHECKING:
    from analysis.seeds import Response

OFFSET = 0.25  # of the mean from its dots


def draw(response: Response, *, k: int, name: str) -> Drawing:
    """A dot per seed by setting, joined by seed; a score in p is coloured by the clusters used."""
    scores = response.scores
    places = np.arange(scores.shape[1])
    coloured = response.column.endswith("_p")
    with canvas((SMALL[0] + 0.7, SMALL[1]) if coloured else SMALL) as (figure, axes):
        for row in scores.to_numpy(dtype=float):
            known = np.isfinite(row)
            axes.plot(places[known], row[known], color=INK, alpha=0.25, linewidth=0.8, zorder=1)
        flat, x = scores.to_numpy(dtype=float).ravel(), np.tile(places, len(scores))
        if coloured:
            used = response.clusters.to_numpy(dtype=float).ravel()
            axes.scatter(x, flat, c=used, cmap=SEQUENTIAL, norm=cluster_norm(k), s=22, zorder=2, linewidths=0)
            cluster_bar(figure, axes, k)
        else:
            axes.scatter(x, flat, color=BLUE, s=22, zorder=2, linewidths=0)
        for place, setting in enumerate(scores):
            mean, reach = _mean(scores[setting])
            axes.errorbar(
                place + OFFSET,
                mean,
                yerr=reach,
                color=INK,
                marker="_",
                markersize=9,
                capsize=3,
                linewidth=1.4,
                zorder=3,
            )
        axes.set_xticks(places, [str(setting) for setting in scores])
        if len(places) > 4:
            axes.tick_params(axis="x", rotation=40)
            for label in axes.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
        axes.set_xlim(-0.4, len(places) - 0.4)
        axes.grid(axis="x", visible=False)
        if response.column.endswith("clusters_used"):
            axes.set_ylim(0, k + 0.5)
        axes.set_ylabel(response.label)
    return Drawing(name, figure, _alt(response), title=response.label)


def _mean(scores: pd.Series[float]) -> tuple[float, float]:
    """The mean and the reach of its 95 % t-interval; NaN for what does not exist, which is not drawn."""
    known = scores.dropna().to_numpy(dtype=float)
    if len(known) < 2:
        return float(known.mean()) if len(known) else np.nan, np.nan
    return float(known.mean()), float(stats.t.ppf(0.975, len(known) - 1) * stats.sem(known))


def _alt(response: Response) -> str:
    means = {
        setting: (response.scores[setting].mean(), response.scores[setting].min(), response.scores[setting].max())
        for setting in response.scores
        if response.scores[setting].notna().any()
    }
    words = "; ".join(f"{name} {mean:.3g} ({low:.3g} to {high:.3g})" for name, (mean, low, high) in means.items())
    used = response.clusters.to_numpy(dtype=float)
    clusters = f" Clusters used: {np.nanmin(used):.0f} to {np.nanmax(used):.0f}." if np.isfinite(used).any() else ""
    return f"{response.label} by setting, mean and range over {len(response.scores)} seeds: {words}.{clusters}"
