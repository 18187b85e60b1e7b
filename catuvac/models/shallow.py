"""Clustering without a network: k-means on the features and a Gaussian mixture on their principal components."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

N_INIT = 10  # restarts; the one with the least inertia, or the highest likelihood, is kept
N_COMPONENTS = 30  # principal components


@dataclass(frozen=True)
class Assignment:
    """A fitted method's output for n clips.

    Attributes:
        clusters: `[n]` in [0, K).
        probabilities: `[n, K]`, each row summing to one; None if the method has hard clusters only.
        z: `[n, d]` the representation the method clusters in; None if that is x itself.
    """

    clusters: NDArray[np.int64]
    probabilities: NDArray[np.float64] | None
    z: NDArray[np.float64] | None


Assign = Callable[[NDArray[np.float32]], Assignment]
"""Maps features `[n, T, F]` to the fitted method's output for them."""


def kmeans(train: NDArray[np.float32], *, n_clusters: int, seed: int) -> Assign:
    """Fits k-means to the features.

    Args:
        train: `[N, T, F]` features of the training split.
        n_clusters: K, at most N.
        seed: of the restarts.

    Returns:
        the fitted model, with hard clusters in the space of x.
    """
    model = KMeans(n_clusters, n_init=N_INIT, random_state=seed).fit(_rows(train))

    def assign(x: NDArray[np.float32]) -> Assignment:
        clusters = np.asarray(model.predict(_rows(x)), dtype=np.int64)
        return Assignment(clusters, probabilities=None, z=None)

    return assign


def pca_gmm(train: NDArray[np.float32], *, n_clusters: int, seed: int) -> Assign:
    """Fits a Gaussian mixture with full covariances to the first principal components.

    Args:
        train: `[N, T, F]` features of the training split.
        n_clusters: K, at most N.
        seed: of the decomposition and the restarts.

    Returns:
        the fitted model; z contains the scores of 30 components (fewer for smaller data), in units of the features,
        and the probabilities are the responsibilities.
    """
    x = _rows(train)
    pca = PCA(min(N_COMPONENTS, *x.shape), random_state=seed).fit(x)

    def scores(x: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(pca.transform(_rows(x)), dtype=np.float64)

    mixture = GaussianMixture(n_clusters, n_init=N_INIT, random_state=seed).fit(scores(train))

    def assign(x: NDArray[np.float32]) -> Assignment:
        z = scores(x)
        probabilities = np.asarray(mixture.predict_proba(z), dtype=np.float64)
        return Assignment(probabilities.argmax(-1), probabilities, z)

    return assign


def _rows(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Reshapes `[n, T, F]` to `[n, T·F]`."""
    return x.reshape(len(x), -1)
