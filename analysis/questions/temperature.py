"""How do the outcomes vary with the temperatures? Plots of the trials as they are, with nothing held fixed.

The effect of the temperature is estimated in `analysis.questions.effects`. A marginal plot does not show it, because
the other settings vary too, and a smooth curve through the points would show bends that do not exist.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis.columns import Metric
from analysis.questions.effects import temperatures
from analysis.trials import DESIGNED, Study, reads_temperature, undecided, values
from catuvac.evaluation.metrics import FLOORS

SHOWN = tuple(map(Metric, ("val/ami", "objective", "val/clusters_used", "val/silhouette_x", "val/silhouette_p")))


@dataclass(frozen=True)
class Response:
    """The data of one small plot.

    Attributes:
        temperature: "tau_start" or "tau_ratio".
        metric: the response, one of `SHOWN`.
        points: one row per complete trial that samples y at a temperature and has both values: study, trial_id, arm,
            row, independent, decided, tau, value, clusters_used.
        n_clusters: K.
    """

    temperature: str
    metric: Metric
    points: pd.DataFrame
    n_clusters: int


def defined(trials: pd.DataFrame, metric: Metric) -> pd.Series[float]:
    """Returns a metric's values, NaN if the score is at its floor, which marks it as undefined."""
    scores = values(trials, metric.column)
    floor = FLOORS.get(metric.name.rpartition("_")[0])
    return scores if floor is None else scores.mask(scores == floor)


def responses(panel: Study) -> tuple[Response, ...]:
    """Returns both temperatures against every outcome of a panel; outcomes without values are left out."""
    trials = panel.complete[reads_temperature(panel.complete)]
    plots = []
    for temperature, tau in temperatures(trials).items():
        for outcome in SHOWN:
            points = pd.DataFrame(
                {
                    **{column: trials[column] for column in ("study", "trial_id", "arm")},
                    "row": trials.index,
                    "independent": trials["arm"].isin(DESIGNED).to_numpy(dtype=bool),
                    "decided": ~undecided(trials),
                    "tau": tau,
                    "value": defined(trials, outcome),
                    "clusters_used": values(trials, "val/clusters_used"),
                }
            ).dropna(subset=["tau", "value"])
            if len(points):
                k = int(trials["n_clusters"].iloc[0])
                plots.append(Response(temperature, outcome, points.reset_index(drop=True), k))
    return tuple(plots)
