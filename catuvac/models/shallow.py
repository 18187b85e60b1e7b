"""Baselines without a network: k-means on the features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

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
