"""Clustering without a network: k-means on the features, as a baseline and as a start for q(y | x)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from catuvac.models.networks import ConvRecurrentEncoder

N_INIT = 10  # restarts; the one with the least inertia is kept


def kmeans_clusters(
    train: NDArray[np.float32], test: NDArray[np.float32], *, n_clusters: int, seed: int
) -> NDArray[np.int64]:
    """Fits k-means on one split and assigns another.

    Args:
        train: `[N, …]` features of the training split, flattened here.
        test: `[n, …]` features to assign.
        n_clusters: K, at most N.
        seed: of the restarts.

    Returns:
        `[n]` cluster numbers in [0, K).
    """
    model = KMeans(n_clusters, n_init=N_INIT, random_state=seed).fit(train.reshape(len(train), -1))
    return np.asarray(model.predict(test.reshape(len(test), -1)), dtype=np.int64)


def start_from_clusters(encoder: ConvRecurrentEncoder, summary: Tensor, clusters: NDArray[np.int64]) -> None:
    """Sets the head of q(y | x) so that its logits tell given clusters apart, by logistic regression.

    A head drawn at random assigns every clip alike, and training then merges clusters that lie apart; the other
    layers keep their random weights.

    Args:
        encoder: whose head is replaced.
        summary: `[N, 128]` of `encoder.summary`.
        clusters: `[N]` in [0, K), such as k-means gives; two of them at least.
    """
    fit = LogisticRegression(max_iter=1000).fit(summary.cpu().numpy(), clusters)
    weight, bias = torch.from_numpy(fit.coef_), torch.from_numpy(fit.intercept_)
    if len(fit.classes_) == 2:  # scikit-learn then holds one row, of the second class against the first
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    with torch.no_grad():
        encoder.head.weight[fit.classes_] = weight.to(encoder.head.weight)
        encoder.head.bias[fit.classes_] = bias.to(encoder.head.bias)
