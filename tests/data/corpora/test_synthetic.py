from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from catuvac.config import PRESETS, CorpusConfig
from catuvac.data import store
from catuvac.data.corpora import CORPORA, index, synthetic


def test_a_clip_follows_from_its_arguments_alone() -> None:
    clip = synthetic.synthesise(seed=3, label=1, number=4, overlap=0.3)
    assert clip.shape == (16000,)
    assert clip.dtype == np.float32
    assert np.array_equal(clip, synthetic.synthesise(seed=3, label=1, number=4, overlap=0.3))
    others = [(4, 1, 4, 0.3), (3, 2, 4, 0.3), (3, 1, 5, 0.3), (3, 1, 4, 0.4)]
    for seed, label, number, overlap in others:
        assert not np.array_equal(clip, synthetic.synthesise(seed=seed, label=label, number=number, overlap=overlap))


def test_twenty_classes_are_finite_distinct_and_at_their_level() -> None:
    names, digests = set(), set()
    for label in range(20):
        for number, level in ((0, 0.08), (1, 0.1)):
            clip = synthetic.synthesise(seed=0, label=label, number=number, overlap=0.0)
            assert np.isfinite(clip).all()
            assert np.sqrt(np.mean(clip**2)) == pytest.approx(level, rel=0.01)
            digests.add(hashlib.sha256(clip.tobytes()).hexdigest())
        names.add(synthetic.class_name(label))
    assert len(names) == 20
    assert len(digests) == 40


def test_overlap_mixes_by_energy() -> None:
    scene, background, mixed = (
        synthetic.synthesise(seed=0, label=1, number=0, overlap=overlap).astype(np.float64) for overlap in (0, 1, 0.36)
    )
    # A hum and a noise are uncorrelated, so that each one's projection is its share.
    assert np.dot(mixed, scene) / np.dot(scene, scene) == pytest.approx(0.8, abs=0.03)
    assert np.dot(mixed, background) / np.dot(background, background) == pytest.approx(0.6, abs=0.03)


def test_index_has_a_level_that_is_independent_of_the_label() -> None:
    table = index(CorpusConfig(n_classes=3, clips_per_class=10, overlap=0.2), None)
    assert table.note == "30 generated clips of 3 scenes, overlap 0.2"
    assert table.clips["path"][12] == "hum/0002"
    assert (table.clips.groupby(["label", "level"]).size() == 5).all()
    assert CORPORA["synthetic"].nuisances == ("level",)


def test_reading_resamples() -> None:
    config = CorpusConfig(n_classes=2)
    full, half = (CORPORA["synthetic"].read(config, "hum/0007", rate) for rate in (16000, 8000))
    assert len(full) == 16000
    assert len(half) == 8000
    assert np.array_equal(full.numpy(), synthetic.synthesise(seed=0, label=1, number=7, overlap=0.0))


def test_overlap_is_a_dial_of_difficulty(tmp_path: Path) -> None:
    scores = []
    for overlap in (0.0, 0.8, 1.0):
        config = PRESETS["synthetic"].with_settings({"overlap": overlap, "clips_per_class": 40})
        prepared = store.prepare(config, data_root=None, cache_dir=tmp_path, workers=1, progress=False)
        x = prepared.x.reshape(len(prepared.x), -1)
        found = KMeans(5, n_init=5, random_state=0).fit_predict(x)
        scores.append(adjusted_rand_score(prepared.labels(np.arange(len(x))), found))
    assert scores[0] > 0.95
    assert 0.2 < scores[1] < 0.9
    assert abs(scores[2]) < 0.05
