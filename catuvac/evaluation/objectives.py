"""The objectives that a search maximises: label-free and guarded against collapse (design, sections 4 and 5).

The Silhouette trap: with 2 of 10 clusters used, saturated probabilities reach a Silhouette of 0.99 in p, above every
honest partition. A Silhouette s therefore enters as (1 + s) / 2, in [0, 1], times the guard

    (exp I(x; y) - 1) / (K - 1),

the effective number of clusters that distinguish clips, scaled to [0, 1]. I(x; y) = H(mean q) - mean H(q) is low
if few clusters are used (at most log 2 with two) and also if every clip is spread over all of them, so neither empty
clusters nor undecided assignments pass. In the trap the objective is at most 0.995 / 9 = 0.11.

The default is `invariant_information`, I(y(v); y(v')) / log K between two views of held-out clips, which is 0 for
collapse and indecision without a guard. Over nine cold-started FSDD trainings its rank correlation with AMI was +0.63
(Spearman), that of the guarded Silhouette in x +0.62, of I(x; y) +0.50 and of the ELBO +0.32; over twelve arms of an
ablation on generated scenes the ELBO preferred the undecided ones (-0.64) and the others did not
(studies/cold-start.md). The Silhouette in feature space prefers k-means on spoken digits, whose clusters are compact
and wrong.

`macs` rewards small networks, times the guard: a second objective, to find the sizes that are worth their cost.

Adding an objective is one line in `OBJECTIVES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from catuvac.errors import CatuvacError
from catuvac.evaluation.metrics import LABEL_SCORES

DEFAULT_OBJECTIVE = "invariant_information"
MACS = 1e6  # per clip, at which the objective of small networks is 1/2
OBJECTIVE_FLOOR = 0.0  # every objective lies in [0, 1]


def guard(scores: Mapping[str, float], n_clusters: int) -> float:
    """Returns the effective number of clusters beyond the first, as a share of K - 1, in [0, 1]; 0 is collapse."""
    return (math.exp(scores["mutual_information"]) - 1.0) / (n_clusters - 1)


OBJECTIVES: dict[str, Callable[[Mapping[str, float], int], float]] = {
    "invariant_information": lambda scores, k: scores["invariant_information"],  # noqa: ARG005
    "silhouette_x": lambda scores, k: (1.0 + scores["silhouette_x"]) / 2.0 * guard(scores, k),
    "silhouette_z": lambda scores, k: (1.0 + scores["silhouette_z"]) / 2.0 * guard(scores, k),
    "silhouette_p": lambda scores, k: (1.0 + scores["silhouette_p"]) / 2.0 * guard(scores, k),
    "mutual_information": lambda scores, k: scores["mutual_information"] / math.log(k),  # the guard's own quantity
    "macs": lambda scores, k: MACS / (MACS + scores["macs"]) * guard(scores, k),
}


def reads_labels(score: str) -> bool:
    """Returns whether a score is computed from labels or nuisance columns."""
    return score in LABEL_SCORES or score.startswith(("nmi_", "ami_"))


def objective(scores: Mapping[str, float], *, name: str, n_clusters: int) -> float:
    """Returns the objective, finite, in [0, 1], higher is better; a diverged or collapsed run scores 0.

    Args:
        scores: what `catuvac.evaluation.metrics.evaluate` returns; label scores among them are never read.
        name: a key of `OBJECTIVES`.
        n_clusters: K, at least 2.

    Raises:
        CatuvacError: a name that is unknown or reads labels, or a score that is absent.
    """
    if reads_labels(name):
        raise CatuvacError(
            f"objective {name!r} reads labels, which may not select a model; use one of {', '.join(OBJECTIVES)}"
        )
    if name not in OBJECTIVES:
        raise CatuvacError(f"unknown objective {name!r}; use one of {', '.join(OBJECTIVES)}")
    if n_clusters < 2:
        raise CatuvacError(f"an objective needs n_clusters of at least 2, got {n_clusters}")
    label_free = {key: value for key, value in scores.items() if not reads_labels(key)}
    try:
        value = OBJECTIVES[name](label_free, n_clusters)
    except KeyError as error:
        raise CatuvacError(f"objective {name!r} needs the score {error}; evaluate the model first") from None
    return min(1.0, max(OBJECTIVE_FLOOR, value)) if math.isfinite(value) else OBJECTIVE_FLOOR


def scored(report: Mapping[str, Any], *, n_clusters: int) -> dict[str, float]:
    """Returns every objective of a variational method's report, `val/objective_NAME`, from its scores under `val/`.

    Raises:
        CatuvacError: a score is absent, as from a method that gives no probabilities.
    """
    scores = {name.removeprefix("val/"): value for name, value in report.items() if name.startswith("val/")}
    return {f"val/objective_{name}": objective(scores, name=name, n_clusters=n_clusters) for name in OBJECTIVES}
