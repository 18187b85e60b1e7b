"""The Silhouette against scikit-learn's, where it is easy to get wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import silhouette_score

from catuvac.evaluation import silhouette


def ours(points: np.ndarray, clusters: np.ndarray) -> float:
    return silhouette.silhouette(torch.from_numpy(points), torch.from_numpy(clusters))


@pytest.mark.parametrize("tile", [1, 7, 64, 512])
def test_no_tile_changes_it(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silhouette, "CPU_TILE", tile)
    rng = np.random.default_rng(0)
    clusters = rng.integers(0, 5, 200)
    points = rng.normal(size=(5, 3))[clusters] + rng.normal(size=(200, 3))
    assert ours(points, clusters) == pytest.approx(silhouette_score(points, clusters), abs=1e-12)


def test_saturated_probabilities_far_from_the_origin() -> None:
    rng = np.random.default_rng(0)
    clusters = rng.integers(0, 4, 300)
    logits = 30 * np.eye(4)[clusters] + rng.normal(size=(300, 4))
    points = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert ours(points, clusters) == pytest.approx(silhouette_score(points, clusters), abs=1e-7)
    assert ours(points + 10, clusters) == pytest.approx(1.0, abs=1e-5)


def test_clusters_of_one_point_and_points_that_coincide() -> None:
    points = np.array([[0.0], [1.0], [1.0], [5.0], [5.0], [5.0]])
    clusters = np.array([0, 1, 1, 2, 2, 2])
    assert ours(points, clusters) == pytest.approx(silhouette_score(points, clusters), abs=1e-12)
    same = np.array([[2.0], [2.0], [2.0], [2.0]])
    assert ours(same, np.array([0, 0, 1, 1])) == 0.0
