"""A trained model opened for a look, from a run's folder and from a study's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from catuvac import inference, results, trained
from catuvac.config import Config
from catuvac.data import store
from catuvac.data.store import FeatureSet
from catuvac.errors import CatuvacError
from catuvac.experiments.base import DESIGN, columns
from catuvac.training import checkpoint, run_dir
from catuvac.training.run import TrainingRun


@pytest.fixture
def study(tiny_config: Config, tiny_features: FeatureSet, tmp_path: Path) -> Path:
    """A study's folder with one finished trial and its checkpoint."""
    run = TrainingRun(tiny_config, tiny_features)
    report = list(run)[-1]
    checkpoint.save(tmp_path / "checkpoints" / "0003" / "last.pt", {"run": run.state(), "reports": [report]})
    facts = {"study": "s", "trial_id": "t", "number": 3, "method": "cat_uvac", "arm": "qmc", "status": "complete"}
    results.append_trial(tmp_path, {**facts, **columns(tiny_config), "started_at": "2025-01-01T00:00:00Z"})
    (tmp_path / DESIGN).write_text(json.dumps({"features": str(tiny_features.path)}))
    return tmp_path


def test_a_trial_finds_the_features_of_its_training(study: Path, tiny_features: FeatureSet) -> None:
    found = inference.training_features(inference.load(f"{study}:3"))
    assert found is not None
    assert found.path == tiny_features.path
    (study / DESIGN).write_text(json.dumps({"features": str(study / "gone")}))
    assert inference.training_features(inference.load(f"{study}:3")) is None


@pytest.mark.parametrize("method", ["cat_uvac", "uvac"])
def test_a_run_is_what_was_trained(method: str, tiny_config: Config, tiny_features: FeatureSet, tmp_path: Path) -> None:
    config = tiny_config.with_settings({"method": method})
    run_dir.train(tmp_path / "run", config, tiny_features, device="cpu", threads=0)
    opened = trained.open_run(tmp_path / "run", split="test")
    rows = tiny_features.splits["test"]
    k, (_, frames, bands) = config.model.n_clusters, tiny_features.x.shape
    again = TrainingRun(config, tiny_features)
    list(again)
    expected = again.infer(rows)
    assert np.array_equal(opened.logits, expected["logits"])
    assert np.array_equal(opened.clusters, expected["probabilities"].argmax(axis=1))
    assert opened.z.shape == (len(rows), config.model.latent_dim)
    assert opened.x.shape == (len(rows), frames, min(bands, tiny_features.n_bands))
    assert opened.prototypes.shape == (k, *opened.x.shape[1:])
    assert ((opened.prototypes > 0) & (opened.prototypes < 1)).all()
    assert list(opened.clips["path"]) == list(tiny_features.clips["path"].iloc[rows])


def test_a_studys_trial_comes_from_its_checkpoint(study: Path, tiny_config: Config, tiny_features: FeatureSet) -> None:
    assert trained.kept(study) == [3]
    opened = trained.open_trial(study, 3)
    again = TrainingRun(tiny_config, tiny_features)
    list(again)
    assert np.array_equal(opened.logits, again.infer(tiny_features.splits["val"])["logits"])
    sound = opened.audio(0)
    assert sound is not None
    samples, rate = sound
    assert rate == tiny_config.features.sample_rate
    assert samples.dtype == np.float32
    assert np.abs(samples).max() > 0.01


def test_a_part_of_a_recording_is_heard_alone(tiny_config: Config, tmp_path: Path) -> None:
    ramp = np.arange(12 * 8000, dtype=np.int16) % 20000
    soundfile.write(tmp_path / "night.wav", ramp, 8000)
    lines = ["path,start,end", *(f"night.wav,{number},{number + 0.5}" for number in range(12))]
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    config = tiny_config.with_settings({"corpus": "folder", "table": "clips.csv", "sample_rate": 8000})
    features = store.prepare(config, data_root=tmp_path, cache_dir=tmp_path / "cache", workers=1, progress=False)
    opened = trained.Trained("untrained", TrainingRun(config, features), "train")
    for clip, number in enumerate(opened.clips["start"].astype(int)):
        sound = opened.audio(clip)
        assert sound is not None
        assert np.array_equal(sound[0] * 2**15, ramp[number * 8000 : number * 8000 + 4000])


def test_what_is_missing_is_said(study: Path, tmp_path: Path) -> None:
    with pytest.raises(CatuvacError, match="no trial 4"):
        trained.open_trial(study, 4)
    (study / DESIGN).write_text(json.dumps({"features": str(tmp_path / "gone")}))
    with pytest.raises(CatuvacError, match="gone"):
        trained.open_trial(study, 3)
    (study / "checkpoints" / "0003" / "last.pt").unlink()
    with pytest.raises(CatuvacError, match="--keep-top"):
        trained.open_trial(study, 3)
    (study / DESIGN).write_text(json.dumps({"remote": "s3://bucket/results/fsdd-1"}))
    for opened in (lambda: trained.open_trial(study, 3), lambda: inference.load(study)):
        with pytest.raises(CatuvacError, match=r"copy s3://bucket/results/fsdd-1/checkpoints to .*/checkpoints"):
            opened()
    assert trained.kept(study) == []
    with pytest.raises(CatuvacError, match="no run"):
        trained.open_run(tmp_path / "nothing")
