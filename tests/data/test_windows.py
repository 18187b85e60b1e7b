"""Clips that are cut into windows: what is cut, what stays together, and how a clip is scored and assigned."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import softmax

from catuvac import inference
from catuvac.config import Config, ConfigError, FeatureConfig, SplitConfig
from catuvac.data import splits, store
from catuvac.data.corpora import CORPORA, ClipTable, windows
from catuvac.data.store import ByClip, FeatureSet
from catuvac.evaluation import metrics
from catuvac.experiments import comparison
from catuvac.training import run_dir
from catuvac.training.run import TrainingRun


def table(*durations: float, **columns: object) -> ClipTable:
    clips = {"path": [f"{n}.wav" for n in range(len(durations))], "duration": durations, **columns}
    return ClipTable(pd.DataFrame(clips), "clips")


def test_the_end_of_a_clip_is_a_window_if_it_is_half_as_long() -> None:
    cut = windows(table(4.0, 0.3, 1.6, 2.4, math.nan, 9.0), FeatureConfig(clip_seconds=4.0, context=1.0)).clips
    lengths = cut.groupby("clip")["duration"].apply(list).to_dict()
    assert lengths[0] == [1.0] * 4
    assert lengths[1] == [0.3]
    assert lengths[2] == pytest.approx([1.0, 0.6])
    assert lengths[3] == [1.0, 1.0]  # 0.4 s are left out
    assert len(lengths[4]) == 1
    assert lengths[5] == [1.0] * 4  # no longer than clip_seconds
    assert cut[cut["clip"] == 0]["start"].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_windows_of_a_part_of_a_recording_start_in_it() -> None:
    cut = windows(table(2.0, start=[5.0], label=["rain"]), FeatureConfig(clip_seconds=2.0, context=1.0)).clips
    assert cut["start"].tolist() == [5.0, 6.0]
    assert cut["label"].tolist() == ["rain", "rain"]


def test_without_a_context_the_clips_are_the_rows() -> None:
    clips = table(4.0, 1.0)
    assert windows(clips, FeatureConfig(clip_seconds=4.0)) is clips


def test_a_context_is_no_longer_than_a_clip() -> None:
    with pytest.raises(ConfigError, match=r"context must lie in \[0, clip_seconds=1.0\] s, got 2.0"):
        FeatureConfig(context=2.0)


@pytest.mark.parametrize("kind", ["random", "grouped"])
def test_windows_of_one_clip_are_in_one_split(kind: str) -> None:
    clips = table(*[2.0, 0.7, 1.0] * 20, label=list("ab") * 30, site=list("uvwxyz") * 10)
    cut = windows(clips, FeatureConfig(clip_seconds=2.0, context=0.5)).clips
    settings = SplitConfig(split=kind, group="site" if kind == "grouped" else "")  # type: ignore[arg-type]
    parts = splits.split(cut, settings)
    assert np.array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(len(cut)))
    whole = splits.split(clips.clips, settings)
    assert {name: set(cut["clip"][rows]) for name, rows in parts.items()} == {
        name: set(rows) for name, rows in whole.items()
    }


@pytest.fixture(scope="module")
def config(tiny_config: Config) -> Config:
    return tiny_config.with_settings({"context": 0.5, "precision": "float32"})  # clips have 1 s


@pytest.fixture(scope="module")
def cut(config: Config, cache_dir: Path) -> FeatureSet:
    return store.prepare(config, data_root=None, cache_dir=cache_dir, workers=1, progress=False)


def test_networks_see_windows_and_scores_are_of_clips(
    config: Config, cut: FeatureSet, tiny_features: FeatureSet
) -> None:
    assert len(cut.x) == 2 * len(tiny_features.x)
    assert cut.x.shape[1] == tiny_features.x.shape[1] // 2
    assert not np.array_equal(cut.x[0], cut.x[1])
    assert set(cut.nuisances(np.arange(4))) == set(tiny_features.nuisances(np.arange(4)))
    run = TrainingRun(config, cut)
    report = list(run)[-1]
    rows = cut.splits["val"]
    out = run.infer(rows)
    pairs = out["logits"].reshape(-1, 2, config.model.n_clusters)
    q = softmax(pairs.mean(axis=1), axis=1)
    labels = cut.labels(rows)
    assert labels is not None
    assert len(q) == len(tiny_features.splits["val"])
    assert comparison.test_facts(cut) == comparison.test_facts(tiny_features)
    expected = metrics.label_scores(q.argmax(axis=1), labels[::2])
    assert report["val/acc"] == pytest.approx(expected["acc"])
    assert report["val/confidence"] == pytest.approx(metrics.assignment_scores(q)["confidence"], abs=1e-5)
    assert report["val/recon"] == pytest.approx(2 * out["recon"].mean(), rel=1e-5)


def test_kmeans_takes_the_cluster_of_most_windows(config: Config, cut: FeatureSet) -> None:
    scores = run_dir.kmeans_scores(config, cut, split="test")
    assert 0 <= scores["acc"] <= 1
    rows = cut.splits["test"]
    clips = cut.by_clip(rows)
    assert clips is not None
    assert np.array_equal(clips.means(cut.x[rows]), cut.x[rows].reshape(-1, 2, *cut.x.shape[1:]).mean(axis=1))


def test_a_fitted_model_assigns_a_clip_as_the_training_does(config: Config, cut: FeatureSet, tmp_path: Path) -> None:
    run_dir.train(tmp_path / "run", config, cut, device="cpu", threads=1)
    model = inference.load(tmp_path / "run")
    rows = cut.splits["test"][::2]
    read = CORPORA["synthetic"].read
    rate = model.sample_rate
    clips = [read(config.corpus, path, rate) for path in cut.clips["path"].iloc[rows]]
    prediction = model.predict(clips)
    run = TrainingRun(config, cut)
    run_dir.load_weights(tmp_path / "run", run)
    logits = run.infer(cut.splits["test"])["logits"].reshape(-1, 2, config.model.n_clusters).mean(axis=1)
    np.testing.assert_allclose(prediction.probabilities, softmax(logits, axis=1), atol=1e-5)
    loud = torch.cat([clips[0][: model.window], torch.full((model.window,), 1e30)])
    assert [bool(reason) for reason in model.predict([clips[0], loud]).reasons] == [False, True]


def test_means_and_sums_of_clips_whose_windows_are_apart() -> None:
    clips = ByClip(rows=np.array([0, 1]), of=np.array([0, 1, 0, 0]))
    values = np.array([[1.0], [5.0], [2.0], [6.0]])
    assert clips.means(values).tolist() == [[3.0], [5.0]]
    assert clips.sums(values).tolist() == [[9.0], [5.0]]
