from __future__ import annotations

import random
import sys
from typing import get_args

import numpy as np
import pytest
import torch

from catuvac.errors import CatuvacError
from catuvac.evaluation.metrics import label_scores
from catuvac.models.clustpy_baselines import Peer, peer
from catuvac.models.shallow import Assignment

K = 3


def features(n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """K patches of light at different places, in [0, 1], with noise: `[K·n, 4, 4]`."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(K), n)
    x = 0.8 * np.eye(16)[labels * 5] + 0.1 * rng.random((K * n, 16))
    return x.reshape(-1, 4, 4).astype(np.float32), labels


def fit(name: Peer) -> Assignment:
    x, _ = features()
    return peer(name, x[::2], n_clusters=K, epochs=4, batch_size=16, seed=0)(x[1::2])


@pytest.mark.parametrize("name", get_args(Peer))
def test_blobs_are_found_the_same_way_twice(name: Peer) -> None:
    first = fit(name)
    np.random.random()  # a seed that did not reach ClustPy would start from the global state
    second = fit(name)
    assert label_scores(first.clusters, features()[1][1::2])["acc"] == 1.0
    assert first.z is not None
    assert first.z.shape == (60, 10)
    assert (first.clusters == second.clusters).all()
    assert np.array_equal(first.z, second.z)
    if name == "dcn":
        assert first.probabilities is None
    else:
        assert first.probabilities is not None
        assert first.probabilities.sum(-1) == pytest.approx(1)
        assert (first.probabilities.argmax(-1) == first.clusters).all()  # those that ClustPy's predict weighs


def test_the_callers_random_numbers_and_screen_are_left_alone(capfd: pytest.CaptureFixture[str]) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.random()), float(torch.rand(()))

    def seed() -> None:
        random.seed(1), np.random.seed(1), torch.manual_seed(1)

    seed()
    expected = draw()
    seed()
    fit("vade")
    assert draw() == expected
    assert capfd.readouterr() == ("", "")


def test_clustpy_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "clustpy.deep", None)
    with pytest.raises(CatuvacError, match=r"dcn needs ClustPy .*clustpy\.deep.*install catuvac\[peers\]"):
        fit("dcn")


def test_one_epoch_is_too_few() -> None:
    with pytest.raises(CatuvacError, match="got 1; use 2"):
        peer("dcn", features()[0], n_clusters=K, epochs=1, batch_size=16, seed=0)
