from __future__ import annotations

import numpy as np
import pytest
import torch

from catuvac.metrics import label_scores
from catuvac.models.networks import ConvRecurrentEncoder
from catuvac.models.shallow import kmeans_clusters, start_from_clusters


def blobs(k: int, *, size: int, n: int = 30) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(k), n)
    return (rng.normal(size=(k, size))[labels] * 4 + rng.normal(size=(k * n, size))).astype(np.float32), labels


def test_kmeans_finds_blobs_and_repeats_itself() -> None:
    x, labels = blobs(4, size=6)
    first = kmeans_clusters(x[::2], x[1::2].reshape(-1, 2, 3), n_clusters=4, seed=0)
    assert label_scores(first, labels[1::2])["acc"] == 1.0
    assert (first == kmeans_clusters(x[::2], x[1::2], n_clusters=4, seed=0)).all()


@pytest.mark.parametrize("k", [2, 3, 5])
def test_the_head_tells_the_given_clusters_apart(k: int) -> None:
    encoder = ConvRecurrentEncoder(in_channels=1, n_frames=16, n_bands=16, out_features=k)
    summary, clusters = blobs(k, size=128)
    start_from_clusters(encoder, torch.from_numpy(summary), clusters)
    assert (encoder.head(torch.from_numpy(summary)).argmax(-1).numpy() == clusters).all()


def test_clusters_without_clips_leave_their_row_of_the_head_alone() -> None:
    encoder = ConvRecurrentEncoder(in_channels=1, n_frames=16, n_bands=16, out_features=4)
    before = encoder.head.weight.detach().clone()
    summary, clusters = blobs(3, size=128)
    start_from_clusters(encoder, torch.from_numpy(summary), np.array([0, 1, 3])[clusters])
    assert torch.equal(encoder.head.weight[2], before[2])
