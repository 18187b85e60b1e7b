"""How do the outcomes lie over the temperatures? Pictures of the trials as they are, nothing held.

What the temperature does is estimated in `analysis.questions.effects`: from a marginal picture it cannot be read, since
the other settings move too, and a smooth curve through it bends where nothing is.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis.columns import Metric, metric
from analysis.questions.effects import temperatures
from analysis.trials import DESIGNED, Study, reads_temperature, undecided, values
from catuvac.evaluation.metrics import FLOORS

SHOWN = tuple(
    metric(column) for column in ("val/ami", "objective", "val/clusters_used", "val/silhouette_x", "val/silhouette_p")
)


@dataclass(frozen=True)
class Response:
    """One small picture.

    Attributes:
        temperature: "tau_start" or "tau_ratio".
        metric: the response, one of `SHOWN`.
        points: a row per complete trial that samples y at a temperature and has both values: study, trial_id, arm,
            row, independent, decided, tau, value, clusters_used.
        n_clusters: K.
    """

    temperature: str
    metric: Metric
    points: pd.DataFrame
    n_clusters: int


def defined(trials: pd.DataFrame, metric: Metric) -> pd.Series[float]:
    """A metric's values, NaN where the score is undefined, because it carries its floor."""
    found = values(trials, metric.column)
    floor = FLOORS.get(metric.name.rpartition("_")[0])
    return found if floor is None else found.mask(found == floor)


def responses(panel: Study) -> tuple[Response, ...]:
    """Both temperatures against every outcome of a panel, those without a value left out."""
    trials = panel.complete[reads_temperature(panel.complete)]
    found = []
    for temperature, tau in temperatures(trials).items():
        for each in SHOWN:
            points = pd.DataFrame(
                {
                    **{column: trials[column] for column in ("study", "trial_id", "arm")},
                    "row": trials.index,
                    "independent": trials["arm"].isin(DESIGNED).to_numpy(dtype=bool),
                    "decided": ~undecided(trials),
                    "tau": tau,
                    "value": defined(trials, each),
                    "clusters_used": values(trials, "val/clusters_used"),
                }
            ).dropna(subset=["tau", "value"])
            if len(points):
                k = int(trials["n_clusters"].iloc[0])
                found.append(Response(temperature, each, points.reset_index(drop=True), k))
    return tuple(found)
