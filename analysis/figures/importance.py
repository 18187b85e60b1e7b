"""Draws importances."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from analysis.figures.style import BLUE, INK, ORANGE, canvas

Floats = NDArray[np.float64]
WIDER = (3.6, 2.8)  # inches: a small multiple with long names


def bars(table: pd.DataFrame, *, pale: bool) -> Figure:
    """Draws fANOVA shares as bars and PED-ANOVA shares as dots, with their intervals, the most important on top.

    Args:
        table: of `analysis.questions.importance.Importances`.
        pale: whether the shares are not meaningful.
    """
    alpha = 0.5 if pale else 1.0
    with canvas(WIDER) as (figure, axes):
        at = np.arange(len(table), dtype=float)
        axes.barh(at - 0.18, table["fanova"], height=0.36, color=BLUE, alpha=0.75 * alpha, label="fANOVA")
        axes.hlines(at - 0.18, table["fanova_low"], table["fanova_high"], color=INK, linewidth=1.2, alpha=alpha)
        if table["ped"].notna().all():
            axes.plot(table["ped"], at + 0.2, "o", color=ORANGE, markersize=5, alpha=alpha, label="PED-ANOVA")
            axes.hlines(at + 0.2, table["ped_low"], table["ped_high"], color=ORANGE, linewidth=1.2, alpha=alpha)
        axes.set_yticks(at, table["label"])
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(axis="y", visible=False)
        figure.legend(loc="outside lower center", ncols=2, handlelength=1.2)
    return figure
