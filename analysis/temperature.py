"""Does the temperature at the start or at the end of training go with the objective, with collapse, with accuracy?"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis.trials import RankCorrelation, Study, rank_correlation, values

OUTCOMES = {"objective": "objective", "clusters_used": "val/clusters_used", "acc": "val/acc"}


@dataclass(frozen=True)
class TemperatureEffect:
    """One temperature setting against what came of it, over complete trials.

    Attributes:
        setting: `tau_start` or `tau_end`.
        points: a row per trial: trial_id, tau, objective, clusters_used, n_clusters, acc (NaN without labels).
        rho: rank correlation of the setting with each of `OUTCOMES`.
        adaptive: how many of the points a sampler placed where earlier ones did well (arm `tpe`); they are not
            independent.
    """

    setting: str
    points: pd.DataFrame
    rho: dict[str, RankCorrelation]
    adaptive: int


def effect(study: Study, setting: str) -> TemperatureEffect:
    """Sets `config/<setting>` against the outcomes."""
    trials = study.complete
    tau = values(trials, f"config/{setting}")
    outcomes = {name: values(trials, column) for name, column in OUTCOMES.items()}
    points = pd.DataFrame(
        {"trial_id": trials["trial_id"], "tau": tau, "n_clusters": values(trials, "n_clusters"), **outcomes}
    )
    return TemperatureEffect(
        setting=setting,
        points=points[tau.notna()].reset_index(drop=True),
        rho={name: rank_correlation(tau, outcome) for name, outcome in outcomes.items()},
        adaptive=int((trials["arm"] == "tpe")[tau.notna()].sum()),
    )
