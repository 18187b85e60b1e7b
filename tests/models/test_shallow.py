from __future__ import annotations

import numpy as np
import pytest

from catuvac.evaluation.metrics import label_scores
from catuvac.models.shallow import kmeans, pca_gmm


def blobs(k: int, *, size: int, n: int = 30) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(k), n)
    return (rng.normal(size=(k, size))[labels] * 4 + rng.normal(size=(k * n, size))).astype(np.float32), labels


def test_kmeans_finds_blobs_and_repeats_itself() -> None:
    x, labels = blobs(4, size=6)
    x = x.reshape(-1, 2, 3)
    found = kmeans(x[::2], n_clusters=4, seed=0)(x[1::2])
    assert label_scores(found.clusters, labels[1::2])["acc"] == 1.0
    assert (found.clusters == kmeans(x[::2], n_clusters=4, seed=0)(x[1::2]).clusters).all()
    assert found.probabilities is None
    assert found.z is None


def test_pca_gmm_tells_crossed_sheets_apart_where_kmeans_cannot() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 200)
    wide = np.array([[3.0, 0.1], [0.1, 3.0]])[labels]  # two clusters with one mean, which differ in shape
    x = (rng.normal(size=(400, 2)) * wide @ rng.normal(size=(2, 6))).astype(np.float32).reshape(-1, 2, 3)
    found = pca_gmm(x[::2], n_clusters=2, seed=0)(x[1::2])
    assert label_scores(found.clusters, labels[1::2])["acc"] > 0.9
    assert label_scores(kmeans(x[::2], n_clusters=2, seed=0)(x[1::2]).clusters, labels[1::2])["acc"] < 0.8
    assert found.probabilities is not None
    assert found.probabilities.sum(-1) == pytest.approx(1)
    assert (found.probabilities.argmax(-1) == found.clusters).all()
    again = pca_gmm(x[::2], n_clusters=2, seed=0)(x[1::2])
    assert np.array_equal(found.probabilities, again.probabilities)


@pytest.mark.parametrize(("n", "size", "components"), [(400, 64, 30), (400, 6, 6), (12, 64, 12)])
def test_pca_gmm_keeps_as_many_components_as_there_are(n: int, size: int, components: int) -> None:
    x = np.random.default_rng(0).random((n, 2, size // 2), dtype=np.float32)
    z = pca_gmm(x, n_clusters=3, seed=0)(x).z
    assert z is not None
    assert z.shape == (n, components)
    spread = z.std(0)
    assert (np.diff(spread) <= 1e-6).all()  # the scores of principal components, largest first
