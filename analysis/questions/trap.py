"""Does a high Silhouette_p mean more than saturation? The Silhouette trap of the design, section 4."""

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
from analysis.trials import DESIGNED, Study, undecided, units, values, within_seeds
from catuvac.evaluation.metrics import assignment_scores, cluster_scores, label_scores

if TYPE_CHECKING:
    from catuvac.trained import Trained

SHARPENING = (4.0, 3.0, 2.0, 1.5, 1.0, 0.7, 0.5, 0.35, 0.25, 0.17, 0.1, 0.07, 0.05)
MAX_CLIPS = 2000  # Silhouette compares all pairs of clips
MIN_UNITS = 12  # fewer trials cannot support a quadratic in three variables
FOLDS = 10
MOSTLY = 0.5  # "mostly saturation": the interval of R² is above this …
LITTLE = 0.05  # … and the interval of AMI's gain is below this


@dataclass(frozen=True)
class Explained:
    """How much of the variance of Silhouette_p between trials can be predicted, as cross-validated R².

    Attributes:
        alone: from saturation (`Trap.measure`) and clusters used; None if undefined, for `reason`.
        with_ami: from both and AMI; None without labels.
        gain: the difference of the two.
        n: number of trials, all independent.
    """

    alone: Estimate | None
    with_ami: Estimate | None
    gain: Estimate | None
    n: int
    reason: str = ""

    @property
    def verdict(self) -> str:
        """One of saturated, more than saturation, neither, undecided; "" if there is no estimate."""
        if self.alone is None or self.gain is None:
            return ""
        if self.gain.low > LITTLE:
            return "more than saturation"
        if self.alone.low > MOSTLY and self.gain.high < LITTLE:
            return "saturated"
        return "neither" if self.with_ami is not None and self.with_ami.high < MOSTLY else "undecided"


@dataclass(frozen=True)
class Trap:
    """Silhouette_p of one corpus and K in relation to saturation.

    Attributes:
        points: one row per complete trial with a defined score: trial_id, silhouette, saturation, clusters_used, ami,
            adaptive (not from a designed arm, or y undecided: not used for inference).
        measure: the column behind `saturation`: "val/confidence", or "val/entropy_y" in older tables.
        undefined: number of complete trials left out because they use one cluster or a column is null.
        explained: computed on the trials that are used for inference, within seeds where settings share seeds.
    """

    points: pd.DataFrame
    measure: str
    undefined: int
    explained: Explained


@dataclass(frozen=True)
class Sharpened:
    """The null: one trained model's logits at other temperatures, softmax(logits / T), without retraining.

    Attributes:
        curve: by decreasing temperature: temperature, silhouette, dbi (both in p), confidence, entropy_y (nats). T = 1
            is the model as trained. No rows if fewer than two clusters are used.
        clusters_used: the same at every temperature, because the argmax does not change.
        clips: number of scored clips.
        corpus: "" if unknown; then all panels of the same K show it.
        acc, ami: of the partition, the same at every temperature; None without labels.
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
        logits: `[n, K]`; of more than `MAX_CLIPS` clips, a seeded random subset is scored. Clips with non-finite
            logits, from a diverged model, are left out.
        labels: `[n]`; None or null if missing.
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
    """Computes the null of a model that `catuvac.trained` opened."""
    labels = list(model.clips["label"]) if "label" in model.clips else None
    return sharpen(model.name, model.logits, labels, corpus=model.config.corpus.corpus)


def trap(study: Study) -> Trap:
    """Relates Silhouette_p of the complete trials to confidence (older tables: H(y|x)) and clusters used."""
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
    independent = points[~points["adaptive"]]
    unit = independent["unit"].to_numpy(dtype=np.int64)
    columns = ("val/silhouette_p", measure, "val/clusters_used", "val/ami")
    score, *predictors = within_seeds(trials.loc[independent["row"]], *columns)
    return Trap(
        points=points.drop(columns="unit"),
        measure=measure,
        undefined=int((~defined).sum()),
        explained=_explained(np.column_stack(predictors), score, unit),
    )


def _space_p(q: NDArray[np.float64], clusters: NDArray[np.int64]) -> dict[str, float]:
    scores, assignment = cluster_scores(q, clusters), assignment_scores(q)
    return {name: scores[name] for name in ("silhouette", "dbi")} | {
        name: assignment[name] for name in ("confidence", "entropy_y")
    }


def _explained(x: Floats, y: Floats, unit: NDArray[np.int64]) -> Explained:
    """Compares out-of-fold predictions, with each unit in one fold only.

    Args:
        x: `[n, 3]`: saturation, clusters used, AMI (NaN without labels).
        y: `[n]` Silhouette_p.
        unit: `[n]`.
    """
    count = len(np.unique(unit))
    if count < MIN_UNITS:
        return Explained(
            None, None, None, len(y), f"{MIN_UNITS} independent decided settings are needed, but there are {count}"
        )
    if np.ptp(y) == 0:
        return Explained(None, None, None, len(y), "Silhouette (p) is the same in every trial")
    draws = [np.arange(len(y)), *resampled(unit, rng=np.random.default_rng(0))]
    alone = r_squared(_errors(x[:, :2], y, unit), y, draws)
    if np.isnan(x[:, 2]).any():
        return Explained(estimate(alone), None, None, len(y))
    both = r_squared(_errors(x, y, unit), y, draws)
    return Explained(estimate(alone), estimate(both), estimate(both - alone), len(y))


def _errors(x: Floats, y: Floats, unit: NDArray[np.int64]) -> Floats:
    """Returns squared errors `[n]` of predictions for held-out trials."""
    model = make_pipeline(
        StandardScaler(), PolynomialFeatures(2, include_bias=False), StandardScaler(), RidgeCV(np.logspace(-4, 2, 7))
    )
    folds = GroupKFold(min(FOLDS, len(np.unique(unit))), shuffle=True, random_state=0)
    return np.asarray((y - cross_val_predict(model, x, y, groups=unit, cv=folds)) ** 2, dtype=np.float64)
