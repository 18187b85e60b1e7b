"""Is a high Silhouette_p more than saturation? The Silhouette trap of the design, section 4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from analysis.stats.bootstrap import Estimate, Floats, estimate, r_squared, resampled
from analysis.trials import DESIGNED, Study, undecided, units, values
from catuvac.evaluation.metrics import assignment_scores, cluster_scores, label_scores

if TYPE_CHECKING:
    from catuvac.trained import Trained

SHARPENING = (4.0, 3.0, 2.0, 1.5, 1.0, 0.7, 0.5, 0.35, 0.25, 0.17, 0.1, 0.07, 0.05)
MAX_CLIPS = 2000  # Silhouette compares every clip with every other
MIN_UNITS = 12  # fewer trials cannot carry a quadratic in three variables
FOLDS = 10
MOSTLY = 0.5  # "mostly saturation": surely more than half of the variance …
LITTLE = 0.05  # … and AMI surely adds less than this


@dataclass(frozen=True)
class Explained:
    """How much of the variance of Silhouette_p between trials can be predicted, as cross-validated R².

    Attributes:
        alone: from saturation (`Trap.measure`) and clusters used; None where it is undefined, and `reason` says why.
        with_ami: with AMI beside them; None without labels.
        gain: the difference of the two.
        n: trials, all independent.
    """

    alone: Estimate | None
    with_ami: Estimate | None
    gain: Estimate | None
    n: int
    reason: str = ""

    @property
    def verdict(self) -> str:
        """In words: saturated, more than saturation, neither, or undecided; "" where it cannot be said."""
        if self.alone is None or self.gain is None:
            return ""
        if self.gain.low > LITTLE:
            return "more than saturation"
        if self.alone.low > MOSTLY and self.gain.high < LITTLE:
            return "saturated"
        return "neither" if self.alone.high < MOSTLY and self.gain.high < MOSTLY else "undecided"


@dataclass(frozen=True)
class Trap:
    """Silhouette_p of one corpus and K against what saturation makes of it.

    Attributes:
        points: a row per complete trial with a defined score: trial_id, silhouette, saturation, clusters_used, ami,
            adaptive (of no designed arm, or y undecided: carries no inference).
        measure: the column behind `saturation`: "val/confidence", in older tables "val/entropy_y".
        undefined: complete trials left out, because one cluster alone has no Silhouette or a column is null.
        explained: over the trials that carry inference.
    """

    points: pd.DataFrame
    measure: str
    undefined: int
    explained: Explained


@dataclass(frozen=True)
class Sharpened:
    """The null: one trained model's logits at other temperatures, softmax(logits / T), with nothing retrained.

    Attributes:
        curve: by falling temperature: temperature, silhouette, dbi (both in p), confidence, entropy_y (nats). T = 1 is
            the model as trained. No rows where fewer than two clusters are used.
        clusters_used: at every temperature, because the argmax does not change.
        clips: scored.
        corpus: "" where it is not known; then the panels of the same K show it.
        acc, ami: of the partition, at every temperature; None without labels.
    """

    name: str
    curve: pd.DataFrame
    n_clusters: int
    clusters_used: int
    clips: int
    corpus: str = ""
    acc: float | None = None
    ami: float | None = None


def sharpen(
    name: str,
    logits: ArrayLike,
    labels: Sequence[str | None] | None = None,
    temperatures: Sequence[float] = SHARPENING,
    *,
    corpus: str = "",
) -> Sharpened:
    """Scores softmax(logits / T) for every T, and for T = 1.

    Args:
        name: such as "trial 7 of fsdd".
        logits: `[n, K]`; above `MAX_CLIPS` clips a seeded draw of them is scored. Clips of a diverged model, which are
            not finite, are left out.
        labels: `[n]`, None or null where there are none.
        temperatures: above 0.
        corpus: as in the trial table.
    """
    table = np.asarray(logits, dtype=np.float64)
    rows = np.flatnonzero(np.isfinite(table).all(axis=1))
    if len(rows) > MAX_CLIPS:
        rows = np.sort(np.random.default_rng(0).choice(rows, MAX_CLIPS, replace=False))
    table, clusters = table[rows], table[rows].argmax(axis=1)
    known = np.asarray(labels, dtype=object)[rows] if labels is not None and len(rows) else np.empty(0)
    scored = label_scores(clusters, known.astype(str)) if len(known) and pd.notna(known).all() else {}
    used = len(np.unique(clusters))
    curve = [
        {"temperature": t, **_space_p(softmax(table / t, axis=1), clusters)}
        for t in sorted({*temperatures, 1.0}, reverse=True)
        if used >= 2
    ]
    return Sharpened(
        name=name,
        curve=pd.DataFrame(curve, columns=["temperature", "silhouette", "dbi", "confidence", "entropy_y"]),
        n_clusters=table.shape[1],
        clusters_used=used,
        clips=len(rows),
        corpus=corpus,
        acc=scored.get("acc"),
        ami=scored.get("ami"),
    )


def of_trained(model: Trained) -> Sharpened:
    """The null of a model that `catuvac.trained` opened."""
    labels = list(model.clips["label"]) if "label" in model.clips else None
    return sharpen(model.name, model.logits, labels, corpus=model.config.corpus.corpus)


def trap(study: Study) -> Trap:
    """Sets Silhouette_p of the complete trials against confidence (older tables: H(y|x)) and clusters used."""
    trials = study.complete
    measure = "val/confidence" if values(trials, "val/confidence").notna().any() else "val/entropy_y"
    points = pd.DataFrame(
        {
            "trial_id": trials["trial_id"].astype(str),
            "row": trials.index,
            "silhouette": values(trials, "val/silhouette_p"),
            "saturation": values(trials, measure),
            "clusters_used": values(trials, "val/clusters_used"),
            "ami": values(trials, "val/ami"),
            "adaptive": ~trials["arm"].isin(DESIGNED).to_numpy(dtype=bool) | undecided(trials),
            "unit": units(trials),
        }
    )
    defined = points[["silhouette", "saturation", "clusters_used"]].notna().all(axis=1) & (points["clusters_used"] >= 2)
    points = points[defined].reset_index(drop=True)
    own = points[~points["adaptive"]]
    unit = own["unit"].to_numpy(dtype=np.int64)
    score = own["silhouette"].to_numpy(dtype=float)
    return Trap(
        points=points.drop(columns="unit"),
        measure=measure,
        undefined=int((~defined).sum()),
        explained=_explained(own[["saturation", "clusters_used", "ami"]].to_numpy(dtype=float), score, unit),
    )


def _space_p(q: NDArray[np.float64], clusters: NDArray[np.int64]) -> dict[str, float]:
    scores, assignment = cluster_scores(q, clusters), assignment_scores(q)
    return {name: scores[name] for name in ("silhouette", "dbi")} | {
        name: assignment[name] for name in ("confidence", "entropy_y")
    }


def _explained(x: Floats, y: Floats, unit: NDArray[np.int64]) -> Explained:
    """Compares out-of-fold predictions, with no unit in two folds.

    Args:
        x: `[n, 3]`: saturation, clusters used, AMI (NaN without labels).
        y: `[n]` Silhouette_p.
        unit: `[n]`.
    """
    count = len(np.unique(unit))
    if count < MIN_UNITS:
        return Explained(
            None, None, None, len(y), f"there are {count} independent settings that decided, and it takes {MIN_UNITS}"
        )
    if np.ptp(y) == 0:
        return Explained(None, None, None, len(y), "Silhouette_p is the same in all of them")
    draws = [np.arange(len(y)), *resampled(unit, rng=np.random.default_rng(0))]
    alone = r_squared(_errors(x[:, :2], y, unit), y, draws)
    if np.isnan(x[:, 2]).any():
        return Explained(estimate(alone), None, None, len(y))
    both = r_squared(_errors(x, y, unit), y, draws)
    return Explained(estimate(alone), estimate(both), estimate(both - alone), len(y))


def _errors(x: Floats, y: Floats, unit: NDArray[np.int64]) -> Floats:
    """Squared errors `[n]` of predictions for trials that the model has not seen."""
    model = make_pipeline(
        StandardScaler(), PolynomialFeatures(2, include_bias=False), StandardScaler(), RidgeCV(np.logspace(-4, 2, 7))
    )
    folds = GroupKFold(min(FOLDS, len(np.unique(unit))), shuffle=True, random_state=0)
    return np.asarray((y - cross_val_predict(model, x, y, groups=unit, cv=folds)) ** 2, dtype=np.float64)
