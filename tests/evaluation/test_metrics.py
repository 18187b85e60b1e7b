"""Metrics against scikit-learn and against cases whose answer is known by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from catuvac.errors import CatuvacError
from catuvac.evaluation import metrics


def blobs(n: int = 120, k: int = 4, d: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    clusters = rng.permutation(np.arange(n) % k)
    return rng.normal(size=(k, d))[clusters] * 3 + rng.normal(size=(n, d)), clusters


def one_hot(clusters: np.ndarray, k: int) -> np.ndarray:
    return np.eye(k)[clusters]


def test_label_scores_ignore_the_names_of_clusters() -> None:
    labels = np.repeat([0, 1, 2], 5)
    permuted = np.array([2, 0, 1])[labels]
    assert metrics.label_scores(permuted, labels) == pytest.approx({"acc": 1.0, "nmi": 1.0, "ami": 1.0, "ari": 1.0})
    assert metrics.label_scores(labels, np.array(list("cab"))[labels])["acc"] == 1.0


def test_label_scores_match_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    clusters, labels = rng.integers(0, 7, 200), rng.integers(0, 4, 200)
    scores = metrics.label_scores(clusters, labels)
    assert scores["nmi"] == pytest.approx(sklearn_metrics.normalized_mutual_info_score(labels, clusters))
    assert scores["ami"] == pytest.approx(sklearn_metrics.adjusted_mutual_info_score(labels, clusters))
    assert scores["ari"] == pytest.approx(sklearn_metrics.adjusted_rand_score(labels, clusters))


def test_accuracy_matches_one_to_one() -> None:
    # Two clusters share label 0: only the larger may keep it, so 6 + 4 of 14 clips count.
    clusters = np.array([0] * 6 + [1] * 4 + [2] * 4)
    labels = np.array([0] * 10 + [1] * 4)
    assert metrics.label_scores(clusters, labels)["acc"] == pytest.approx(10 / 14)


def test_one_cluster_scores_the_largest_label() -> None:
    scores = metrics.label_scores(np.zeros(10, int), np.array([0] * 6 + [1] * 4))
    assert scores == pytest.approx({"acc": 0.6, "nmi": 0.0, "ami": 0.0, "ari": 0.0})


def test_a_label_per_clip_gives_no_warning() -> None:
    assert metrics.label_scores(np.arange(50) % 3, np.arange(50))["acc"] == pytest.approx(3 / 50)


@pytest.mark.parametrize(("clusters", "labels"), [([], []), ([0, 1], [0]), ([[0], [1]], [0, 1])])
def test_label_scores_refuse_bad_shapes(clusters: list[int], labels: list[int]) -> None:
    with pytest.raises(CatuvacError):
        metrics.label_scores(clusters, labels)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e150])
def test_cluster_scores_match_scikit_learn_at_any_scale(scale: float) -> None:
    x, clusters = blobs()
    scores = metrics.cluster_scores(x * scale, clusters)
    assert scores["silhouette"] == pytest.approx(sklearn_metrics.silhouette_score(x, clusters))
    assert scores["dbi"] == pytest.approx(sklearn_metrics.davies_bouldin_score(x, clusters))
    assert scores["chi"] == pytest.approx(sklearn_metrics.calinski_harabasz_score(x, clusters))
    assert scores["dispersion"] == pytest.approx(scores["chi"] * 3 / 116)
    assert scores["degenerate"] is False


def test_cluster_numbers_may_have_gaps() -> None:
    x, clusters = blobs()
    assert metrics.cluster_scores(x, clusters * 7 + 2) == metrics.cluster_scores(x, clusters)


def test_dispersion_by_hand() -> None:
    # Centres at 0 and 4, the mean at 2: BCSS = 4 points × 2² = 16, WCSS = 4 points × 1² = 4.
    scores = metrics.cluster_scores([[-1.0], [1.0], [3.0], [5.0]], [0, 0, 1, 1])
    assert scores["dispersion"] == pytest.approx(4.0)
    assert scores["chi"] == pytest.approx(4.0 * (4 - 2) / (2 - 1))


@pytest.mark.parametrize(
    ("x", "clusters"),
    [
        pytest.param(np.random.default_rng(0).normal(size=(9, 2)), np.zeros(9, int), id="one cluster"),
        pytest.param(np.random.default_rng(0).normal(size=(4, 2)), np.arange(4), id="n equals k"),
        pytest.param(np.full((9, 2), 0.1), np.arange(9) % 3, id="constant"),
        pytest.param(np.array([[0.0, math.nan]] * 9), np.arange(9) % 3, id="NaN"),
        pytest.param(np.zeros((0, 2)), np.zeros(0, int), id="no points"),
        pytest.param(np.zeros((1, 2)), np.zeros(1, int), id="one point"),
    ],
)
def test_undefined_scores_carry_their_floors(x: np.ndarray, clusters: np.ndarray) -> None:
    assert metrics.cluster_scores(x, clusters) == {**metrics.FLOORS, "degenerate": True}


def test_points_that_coincide_within_clusters_score_best_and_are_marked() -> None:
    x = np.repeat([[0.1, 0.2], [0.7, 0.1], [0.3, 0.9]], 4, axis=0)
    scores = metrics.cluster_scores(x, np.repeat([0, 1, 2], 4))
    assert scores["silhouette"] == pytest.approx(1.0, abs=1e-8)  # a product may round
    assert scores["dbi"] == 0.0
    assert scores["dispersion"] == metrics.DISPERSION_CEILING
    assert scores["chi"] == pytest.approx(metrics.DISPERSION_CEILING * 9 / 2)
    assert scores["degenerate"] is True


def test_coinciding_centres_score_worst_dbi() -> None:
    # scikit-learn returns 0, its best value, here.
    scores = metrics.cluster_scores([[-1.0], [1.0], [-1.0], [1.0]], [0, 0, 1, 1])
    assert scores["dbi"] == metrics.FLOORS["dbi"]
    assert scores["dispersion"] == 0.0
    assert scores["degenerate"] is True


def test_assignment_scores_by_hand() -> None:
    certain = metrics.assignment_scores(one_hot(np.array([0, 0, 0, 1]), 4))
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert certain == pytest.approx(
        {
            "clusters_used": 2.0,
            "effective_clusters": math.exp(entropy),
            "largest_share": 0.75,
            "entropy_y": 0.0,
            "confidence": 1.0,
            "mutual_information": entropy,
            "y_decided": False,  # 0.56 of 1.39 nats
        }
    )
    undecided = metrics.assignment_scores(np.full((6, 4), 0.25))
    assert undecided["effective_clusters"] == pytest.approx(4.0)
    assert undecided["entropy_y"] == pytest.approx(math.log(4))
    assert undecided["confidence"] == pytest.approx(0.25)
    assert undecided["mutual_information"] == pytest.approx(0.0)
    assert undecided["clusters_used"] == 1.0


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.ones(3), [[2.0, -1.0]], [[1.0, 1.0]], [[math.nan, 0.5]]])
def test_assignment_scores_refuse_what_is_no_probability(bad: np.ndarray) -> None:
    with pytest.raises(CatuvacError):
        metrics.assignment_scores(bad)


def test_active_units_count_the_units_that_vary() -> None:
    z = np.random.default_rng(0).normal(size=(500, 4)) * [1.0, 0.2, 0.05, 0.0]  # variances 1, 0.04, 0.0025, 0
    assert metrics.active_units(z) == 2
    assert metrics.active_units(np.full((5, 3), np.nan)) == 0


def test_evaluate_names_every_score_and_agrees_with_its_parts() -> None:
    x, clusters = blobs()
    q = 0.9 * one_hot(clusters, 6) + 0.1 / 6
    scores = metrics.evaluate(
        probabilities=q.astype(np.float32),
        x=x.reshape(120, 5, 1),
        z=x[:, :2],
        labels=clusters,
        nuisances={"speaker": np.arange(120) % 2},
        views=(q, q),
    )
    assert scores["acc"] == scores["nmi"] == scores["ami"] == 1.0
    assert scores["invariant_information"] == metrics.invariant_information(q, q)
    assert scores["nmi_speaker"] < 0.2
    assert scores["silhouette_x"] == metrics.cluster_scores(x, clusters)["silhouette"]
    assert scores["dbi_z"] == metrics.cluster_scores(x[:, :2], clusters)["dbi"]
    assert scores["clusters_used"] == 4.0
    floors = metrics.floors(n_clusters=6, with_labels=True, with_views=True, nuisances=("speaker",))
    assert set(scores) == set(floors)


def test_evaluate_leaves_out_what_does_not_exist() -> None:
    x, clusters = blobs()
    names = set(metrics.evaluate(probabilities=one_hot(clusters, 4), x=x))
    assert names == set(metrics.floors(n_clusters=4, with_z=False))
    assert not names & {"acc", "nmi", "ami", "ari", "silhouette_z", "invariant_information"}


def test_more_clusters_than_clips() -> None:
    scores = metrics.evaluate(probabilities=one_hot(np.array([0, 1, 2]), 8), x=np.eye(3), labels=np.arange(3))
    assert all(math.isfinite(value) for value in scores.values())
    assert scores["degenerate"] is True


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_diverged_run_gets_floors(bad: float) -> None:
    q = np.full((20, 4), 0.25)
    q[3, 1] = bad
    scores = metrics.evaluate(probabilities=q, x=np.eye(20), z=np.eye(20), labels=np.arange(20) % 4)
    assert scores == metrics.floors(n_clusters=4, with_labels=True)
    assert all(math.isfinite(value) for value in scores.values())


def test_a_diverged_z_leaves_the_other_spaces_alone() -> None:
    x, clusters = blobs()
    scores = metrics.evaluate(probabilities=0.9 * one_hot(clusters, 4) + 0.025, x=x, z=np.full((120, 2), np.nan))
    assert scores["silhouette_z"] == -1.0
    assert scores["silhouette_x"] > 0
    assert scores["degenerate"] is True


def test_invariant_information_of_agreement_collapse_and_indecision() -> None:
    one_hot = np.eye(4)[np.arange(200) % 4]
    assert metrics.invariant_information(one_hot, one_hot) == pytest.approx(1.0)
    assert metrics.invariant_information(np.full((200, 4), 0.25), np.full((200, 4), 0.25)) == pytest.approx(
        0.0, abs=1e-9
    )
    collapsed = np.eye(4)[np.zeros(200, dtype=int)]
    assert metrics.invariant_information(collapsed, collapsed) == pytest.approx(0.0, abs=1e-9)
    assert metrics.invariant_information(np.full((2, 4), np.nan), np.full((2, 4), np.nan)) == 0.0


def test_invariant_information_falls_as_views_change_clusters() -> None:
    """Where a view moves a clip to a random cluster with probability e, the joint is known."""
    rng = np.random.default_rng(0)
    clusters = np.arange(40_000) % 4
    for e in (0.1, 0.5):
        moved = np.where(rng.random(len(clusters)) < e, rng.integers(4, size=len(clusters)), clusters)
        same = 1 - e + e / 4
        joint = np.array([same, *[e / 4] * 3]) / 4
        expected = (2 * np.log(4) + 4 * (joint * np.log(joint)).sum()) / np.log(4)
        assert metrics.invariant_information(np.eye(4)[clusters], np.eye(4)[moved]) == pytest.approx(expected, abs=0.01)


def test_invariant_information_refuses_two_shapes() -> None:
    with pytest.raises(CatuvacError, match="the same shape"):
        metrics.invariant_information(np.full((3, 2), 0.5), np.full((3, 4), 0.25))


@pytest.mark.parametrize(("peak", "decided"), [(0.99, True), (0.3, False)])
def test_y_is_decided_above_half_of_the_largest_information(peak: float, decided: bool) -> None:
    q = np.full((100, 4), (1 - peak) / 3)
    q[np.arange(100), np.arange(100) % 4] = peak
    assert metrics.assignment_scores(q)["y_decided"] is decided
