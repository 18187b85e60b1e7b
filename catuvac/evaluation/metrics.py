"""Scores of a clustering: label scores, internal scores in three spaces, collapse diagnostics (design, section 4).

Every function returns finite numbers for every finite or non-finite input of the right shape. An undefined score takes
its value in `FLOORS` and `degenerate` is true, because NaN would leave a trial of the search running forever.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.special import entr
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from catuvac.errors import CatuvacError

if TYPE_CHECKING:
    import torch

FLOORS: dict[str, float] = {
    "silhouette": -1.0,  # the lowest value the score can take
    "dbi": 1e3,  # lower is better and there is no upper limit; random labels of 24 000 clips give about 70
    "chi": 0.0,  # no dispersion between the clusters
    "dispersion": 0.0,  # the same
}
DISPERSION_CEILING = 1e6  # BCSS/WCSS has no upper limit, and WCSS is 0 where all points of each cluster coincide
LABEL_SCORES = ("acc", "nmi", "ami", "ari")
INTERNAL_SCORES = tuple(FLOORS)
SPACES = ("x", "z", "p")  # features, posterior mean, assignment probabilities
DECIDED = 0.5  # share of log K that I(x; y) must exceed for y to be decided
COINCIDE = 1e-8  # centres closer than this, with the data scaled to unit deviation, are one point


def label_scores(clusters: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Compares clusters with labels; both may have any names, and their numbers may differ.

    Args:
        clusters: `[N]` integers.
        labels: `[N]` integers or strings.

    Returns:
        acc: share of clips whose label is the one matched to their cluster (Hungarian, one to one), in [0, 1].
        nmi: mutual information over the arithmetic mean of the entropies, in [0, 1].
        ami: mutual information adjusted for chance, 0 by chance, 1 at best: the primary measure of agreement.
        ari: adjusted Rand index, 0 by chance, 1 at best.

    Raises:
        CatuvacError: no clips, or lengths that differ.
    """
    a, b = _codes(clusters), _codes(labels)
    _require(len(a) == len(b), f"{len(a)} clusters and {len(b)} labels do not match; give one of each per clip")
    _require(len(a) > 0, "no clips to score; give at least one")
    counts = contingency_matrix(a, b)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    with _many_classes_allowed():
        return {
            "acc": float(counts[rows, columns].sum() / len(a)),
            "nmi": float(normalized_mutual_info_score(a, b, average_method="arithmetic")),
            "ami": float(adjusted_mutual_info_score(a, b, average_method="arithmetic")),
            "ari": float(adjusted_rand_score(a, b)),
        }


def cluster_scores(x: ArrayLike, clusters: ArrayLike, *, device: torch.device | str = "cpu") -> dict[str, float]:
    """Scores the clusters by distance alone, in any representation, in float64.

    All four are invariant to shift and scale of `x`, so `x` is scaled first: the tolerance for coincidence is absolute.

    Args:
        x: `[N, D]` points, or `[N, …]`, flattened.
        clusters: `[N]` integers.
        device: where to compute.

    Returns:
        silhouette: in [-1, 1], higher is better.
        dbi: Davies-Bouldin index, 0 at best, capped at its floor.
        chi: Calinski-Harabasz index, higher is better.
        dispersion: BCSS / WCSS = chi (k - 1) / (n - k), capped; its size matches the paper's CHI (design, section 4).
        degenerate: true where any of them is a stated bound: fewer than two clusters, no more points than clusters,
            constant or non-finite points, coinciding centres, or no spread within the clusters.

    Raises:
        CatuvacError: lengths that differ.
    """
    import torch  # here: the analysis of tables does not need torch

    from catuvac.evaluation.silhouette import silhouette

    points = torch.as_tensor(np.asarray(x)).to(device, torch.float64, copy=True)
    points = points.reshape(len(points), math.prod(points.shape[1:]))
    codes = torch.from_numpy(_codes(clusters)).to(device)
    _require(
        len(points) == len(codes),
        f"{len(points)} points and {len(codes)} clusters do not match; give one of each per clip",
    )
    n, k = len(codes), int(codes.max()) + 1 if len(codes) else 0
    if not 2 <= k < n or not points.isfinite().all() or (points == points[0]).all():
        return {**FLOORS, "degenerate": True}

    points /= points.abs().max()
    points -= points.mean(dim=0)
    points /= points.square().sum(dim=1).mean().sqrt()
    sizes = torch.bincount(codes)
    centres = points.new_zeros(k, points.shape[1]).index_add_(0, codes, points) / sizes[:, None]
    from_centre = (points - centres[codes]).square().sum(dim=1)  # [N]
    within = float(from_centre.sum())
    between = float((sizes * centres.square().sum(dim=1)).sum())
    # scikit-learn's CHI is 1 where WCSS is 0, which would rank the most compact clusters lowest.
    capped = between >= DISPERSION_CEILING * within
    dispersion = DISPERSION_CEILING if capped else between / within
    radius = points.new_zeros(k).index_add_(0, codes, from_centre.sqrt()) / sizes
    apart = torch.cdist(centres, centres, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
    # scikit-learn's DBI leaves pairs of coinciding centres out and is then 0, the best value.
    coincide = float(apart.min()) < COINCIDE
    dbi = FLOORS["dbi"] if coincide else float(((radius[:, None] + radius) / apart).amax(dim=1).mean())
    return {
        "silhouette": silhouette(points, codes),
        "dbi": min(dbi, FLOORS["dbi"]),
        "chi": dispersion * (n - k) / (k - 1),
        "dispersion": dispersion,
        "degenerate": capped or coincide,
    }


def assignment_scores(probabilities: ArrayLike) -> dict[str, float]:
    """Computes collapse diagnostics of `q(y|x)`; entropies in nats.

    Args:
        probabilities: `[N, K]`, rows that sum to one.

    Returns:
        clusters_used: clusters that are the most probable one of at least one clip, in [1, K].
        effective_clusters: exp H(mean of q), in [1, K].
        largest_share: share of the clips in the largest cluster.
        entropy_y: mean H(q), in [0, log K].
        confidence: mean probability of the most probable cluster, in [1/K, 1].
        mutual_information: I(x; y) = H(mean of q) - mean H(q), in [0, log K].
        y_decided: I(x; y) > ½ log K; if it is false, the most probable cluster of a clip is a near-tie, and scores
            of the clusters are mostly noise.

    Raises:
        CatuvacError: not a table of finite probabilities.
    """
    q = _probabilities(probabilities)
    _require(bool(np.isfinite(q).all()), "probabilities contain NaN or infinity; evaluate() reports floors instead")
    total = q.sum(axis=1, keepdims=True)
    _require(
        bool((q >= 0).all() and np.allclose(total, 1.0, atol=1e-2)),
        "rows of probabilities must not be negative and must sum to 1; apply softmax to logits first",
    )
    q = q / total
    sizes = np.bincount(q.argmax(axis=1), minlength=q.shape[1])
    entropy_of_mean = float(entr(q.mean(axis=0)).sum())
    mean_entropy = float(entr(q).sum(axis=1).mean())
    mutual_information = max(0.0, entropy_of_mean - mean_entropy)
    return {
        "clusters_used": float((sizes > 0).sum()),
        "effective_clusters": float(np.exp(entropy_of_mean)),
        "largest_share": float(sizes.max() / sizes.sum()),
        "entropy_y": mean_entropy,
        "confidence": float(q.max(axis=1).mean()),
        "mutual_information": mutual_information,
        "y_decided": mutual_information > DECIDED * math.log(q.shape[1]),
    }


def invariant_information(one: ArrayLike, other: ArrayLike) -> float:
    """Computes I(y(v); y(v')) / log K of two views of the same clips, in [0, 1] (Ji et al. 2019, as a score).

    Collapse gives 0, because the clusters then do not distinguish any clips, and so does indecision; clusters that
    depend on the view are in between. Labels are not used.

    Args:
        one, other: `[N, K]` probabilities of each clip's first and second view.

    Raises:
        CatuvacError: the inputs are not tables of the same shape.
    """
    p, q = _probabilities(one), _probabilities(other)
    _require(p.shape == q.shape, f"two views of the same clips must have the same shape, got {p.shape} and {q.shape}")
    if not (np.isfinite(p).all() and np.isfinite(q).all()):
        return 0.0
    joint = p.T @ q / len(p)
    joint = (joint + joint.T) / (2 * joint.sum())
    marginal = joint.sum(axis=1)
    information = 2 * entr(marginal).sum() - entr(joint).sum()
    return float(np.clip(information / math.log(p.shape[1]), 0.0, 1.0))


def active_units(mean: ArrayLike) -> int:
    """Counts units of z whose posterior mean `[N, d]` has a variance above 0.01 (Burda et al. 2015).

    A diverged mean counts as inactive.
    """
    z = np.asarray(mean, dtype=np.float64)
    usable = z[:, np.isfinite(z).all(axis=0)]
    return int((usable.var(axis=0) > 0.01).sum()) if len(z) else 0


def evaluate(
    *,
    x: ArrayLike,
    clusters: ArrayLike | None = None,
    probabilities: ArrayLike | None = None,
    z: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    nuisances: Mapping[str, ArrayLike] | None = None,
    views: tuple[ArrayLike, ArrayLike] | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Computes all scores of the design's section 4 for one model on one split, under names without the `val/` prefix.

    Scores by space are `silhouette_x`, `dbi_p` and so on; nuisances give `nmi_speaker` and so on. Scores whose input
    does not exist (labels, z, or, for hard clusters, probabilities) are absent.

    Args:
        x: `[N, …]` features.
        clusters: `[N]` integers; None takes each clip's most probable one.
        probabilities: `[N, K]`, None for a method that has none; non-finite ones (a diverged run) give `floors`.
        z: `[N, d]` posterior means.
        labels: `[N]`.
        nuisances: columns of `[N]`, such as the speaker.
        views: probabilities `[N, K]` of two views of each clip, for `invariant_information`.
        device: where distances are computed.

    Raises:
        CatuvacError: neither clusters nor probabilities, lengths that differ, no clips, or rows that are not
            probabilities.
    """
    nuisances = nuisances or {}
    if probabilities is None:
        _require(clusters is not None, "nothing to score: give clusters or probabilities")
        q, clusters = None, _codes(clusters)  # type: ignore[arg-type]
        sizes = np.bincount(clusters)
        assignment = {"clusters_used": float(len(sizes)), "largest_share": float(sizes.max() / sizes.sum())}
    else:
        q = _probabilities(probabilities)
        if not np.isfinite(q).all():
            return floors(
                n_clusters=q.shape[1],
                with_z=z is not None,
                with_labels=labels is not None,
                with_views=views is not None,
                nuisances=tuple(nuisances),
            )
        assignment = assignment_scores(q)
        clusters = q.argmax(axis=1) if clusters is None else _codes(clusters)
        assignment["clusters_used"] = float(len(np.unique(clusters)))
    scores: dict[str, float] = {}
    if labels is not None:
        scores.update(label_scores(clusters, labels))
    for name, column in nuisances.items():
        agreement = label_scores(clusters, column)
        scores.update({f"nmi_{name}": agreement["nmi"], f"ami_{name}": agreement["ami"]})
    if views is not None:
        scores["invariant_information"] = invariant_information(*views)
    degenerate = False
    for space, points in zip(SPACES, (x, z, q), strict=True):
        if points is not None:
            internal = cluster_scores(points, clusters, device=device)
            degenerate = bool(internal.pop("degenerate")) or degenerate
            scores.update({f"{name}_{space}": value for name, value in internal.items()})
    return {**scores, **assignment, "degenerate": degenerate}


def floors(
    *,
    n_clusters: int,
    with_z: bool = True,
    with_labels: bool = False,
    with_views: bool = False,
    nuisances: tuple[str, ...] = (),
) -> dict[str, float]:
    """Returns the keys of `evaluate` with the worst value of each, which a diverged run reports."""
    scores: dict[str, float] = dict.fromkeys(LABEL_SCORES if with_labels else (), 0.0)
    scores.update({f"{score}_{name}": 0.0 for name in nuisances for score in ("nmi", "ami")})
    scores.update({"invariant_information": 0.0} if with_views else {})
    spaces = [space for space in SPACES if with_z or space != "z"]
    scores.update({f"{name}_{space}": floor for space in spaces for name, floor in FLOORS.items()})
    scores.update(
        clusters_used=1.0,
        effective_clusters=1.0,
        largest_share=1.0,
        entropy_y=float(np.log(n_clusters)),  # nothing decided
        confidence=1.0 / n_clusters,
        mutual_information=0.0,
        y_decided=False,
        degenerate=True,
    )
    return scores


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise CatuvacError(message)


def _codes(values: ArrayLike) -> NDArray[np.int64]:
    """Numbers arbitrary labels from 0, without gaps."""
    array = np.asarray(values)
    _require(array.ndim == 1, f"clusters and labels must be [N], got shape {array.shape}")
    return np.unique(array, return_inverse=True)[1].astype(np.int64)


def _probabilities(values: ArrayLike) -> NDArray[np.float64]:
    q = np.asarray(values, dtype=np.float64)
    _require(q.ndim == 2 and q.size > 0, f"probabilities must be [N, K] with N, K >= 1, got shape {q.shape}")
    return q


@contextmanager
def _many_classes_allowed() -> Iterator[None]:
    """Silences scikit-learn's warning about few clips with many labels: a nuisance such as the recording has them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The number of unique classes is greater")
        yield
