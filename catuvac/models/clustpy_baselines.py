"""Deep clustering methods of others as baselines: ClustPy's DCN, IDEC, DEC and VaDE behind one function.

They receive the same features as our models, flattened, and keep ClustPy's defaults: a fully connected network
T·F-500-500-2000-10, Adam at 1e-3 for pretraining (reconstruction) and at 1e-4 for clustering.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import random
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from catuvac.errors import CatuvacError
from catuvac.models.shallow import Assign, Assignment

Peer = Literal["dcn", "idec", "dec", "vade"]

CLASSES: dict[Peer, str] = {"dcn": "DCN", "idec": "IDEC", "dec": "DEC", "vade": "VaDE"}


def peer(
    name: Peer,
    train: NDArray[np.float32],
    *,
    n_clusters: int,
    epochs: int,
    batch_size: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> Assign:
    """Fits one of ClustPy's methods.

    Args:
        name: dcn (Yang et al. 2017), idec (Guo et al. 2017), dec (Xie et al. 2016) or vade (Jiang et al. 2017).
        train: `[N, T, F]` features of the training split in [0, 1].
        n_clusters: K, at most N.
        epochs: of pretraining and clustering together, half each; an odd one goes to clustering.
        batch_size: clips.
        seed: of the weights, the batches and the initial clusters; the caller's random state is left unchanged.
        device: where to train and to assign.

    Returns:
        the fitted method: its clusters for at least two clips, the embedding as z `[n, 10]`, and the probabilities
        that ClustPy's `predict` uses after its final k-means (dec, idec: Student-t) or Gaussian mixture (vade:
        responsibilities); dcn has none.

    Raises:
        CatuvacError: ClustPy is not installed, or fewer than two epochs.
        ValueError: the training diverged, and scikit-learn rejects the embedding.
        AssertionError: vade's initial mixture left a cluster empty.
    """
    if epochs < 2:
        raise CatuvacError(f"{name} pretrains for half of its epochs, got {epochs}; use 2 or more")
    try:
        deep = importlib.import_module("clustpy.deep")  # takes seconds: only if a peer is used
    except ImportError as error:
        raise CatuvacError(f"{name} needs ClustPy ({error}); install catuvac[peers]") from error
    model = getattr(deep, CLASSES[name])(
        n_clusters=n_clusters,
        batch_size=batch_size,
        pretrain_epochs=epochs // 2,
        clustering_epochs=epochs - epochs // 2,
        device=torch.device(device),
        random_state=seed,
    )
    with _undisturbed():
        model.fit(train.reshape(len(train), -1))

    def assign(x: NDArray[np.float32]) -> Assignment:
        rows = x.reshape(len(x), -1)
        z = np.asarray(model.transform(rows), dtype=np.float64)
        clusters = np.asarray(model.predict(rows), dtype=np.int64)
        return Assignment(clusters, _probabilities(name, model, z), z)

    return assign


def _probabilities(name: Peer, model: Any, z: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Returns the soft assignment `[n, K]` of embedded clips, which ClustPy does not expose; None for dcn."""
    if name == "dcn":
        return None
    if name == "vade":
        mixture = GaussianMixture(len(model.weights_))
        mixture.weights_, mixture.means_ = model.weights_, model.cluster_centers_
        mixture.precisions_cholesky_ = np.linalg.cholesky(np.linalg.inv(model.covariances_))
        return np.asarray(mixture.predict_proba(z), dtype=np.float64)
    squares = ((z[:, None] - model.cluster_centers_) ** 2).sum(-1)
    kernel = (1 + squares / model.alpha) ** (-(model.alpha + 1) / 2)
    return np.asarray(kernel / kernel.sum(-1, keepdims=True), dtype=np.float64)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Restores the caller's random state, which ClustPy reseeds, and hides ClustPy's progress bars."""
    python, numpy = random.getstate(), np.random.get_state()
    silence = io.StringIO()
    with (
        torch.random.fork_rng(range(torch.cuda.device_count())),  # ClustPy seeds them all
        contextlib.redirect_stdout(silence),
        contextlib.redirect_stderr(silence),
        warnings.catch_warnings(),
    ):
        # VaDE's mixtures stop after 100 steps, converged or not; this is part of its defaults.
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
