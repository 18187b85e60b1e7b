from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from catuvac.config import Config, CorpusConfig
from catuvac.data import store
from catuvac.data.corpora import COMMON, CORPORA, index
from catuvac.errors import CatuvacError
from catuvac.training.run import TrainingRun

CONFIG = CorpusConfig(corpus="tau2019")
PARTIAL = CorpusConfig(corpus="tau2019", partial=True)


def test_development_clips(tau2019: Path) -> None:
    table = index(CONFIG, tau2019)
    clips = table.clips
    assert table.note == "32 of 14400 clips (16 locations in 4 cities)"
    assert set(clips.columns) - set(COMMON) == set(CORPORA["tau2019"].nuisances)
    assert clips.iloc[4].to_dict() == {
        "path": str(tau2019.resolve() / "audio" / "airport-helsinki-2-4-a.wav"),
        "label": "airport",
        "duration": pytest.approx(0.1),
        "city": "helsinki",
        "location": "helsinki-2",
        "device": "a",
    }
    assert clips["label"].value_counts().to_dict() == {"airport": 16, "street_traffic": 16}


def test_every_accepted_root(tau2019: Path, tmp_path: Path) -> None:
    note = index(CONFIG, tau2019).note
    assert index(CONFIG, tmp_path).note == note
    (tmp_path / "tau2019").mkdir()
    moved = tau2019.rename(tmp_path / "tau2019" / tau2019.name)
    assert index(CONFIG, tmp_path).note == note
    moved.rename(tmp_path / "moved")
    (tmp_path / "tau2019").rmdir()
    (tmp_path / "moved").rename(tmp_path / "tau2019")
    assert index(CONFIG, tmp_path).note == note


def test_a_missing_column(tau2019: Path) -> None:
    meta = tau2019 / "meta.csv"
    meta.write_text(meta.read_text().replace("scene_label", "scene"))
    with pytest.raises(CatuvacError, match=r"meta\.csv lacks the column scene_label; it has filename, scene, ident"):
        index(CONFIG, tau2019)


def test_an_unknown_scene(tau2019: Path) -> None:
    meta = tau2019 / "meta.csv"
    meta.write_text(meta.read_text().replace("a.wav\tstreet_traffic", "a.wav\tstreet_trafic"))
    with pytest.raises(
        CatuvacError, match=r"meta\.csv line 18: unknown scene_label 'street_trafic'; did you mean 'str"
    ):
        index(CONFIG, tau2019)


def test_listed_clips_that_are_absent(tau2019: Path) -> None:
    absent = [tau2019 / "audio" / f"airport-barcelona-0-{segment}-a.wav" for segment in range(2)]
    for path in absent:
        path.unlink()
    with pytest.raises(
        CatuvacError, match=r"2 of 32 listed files are absent, the first .*airport-barcelona-0-0-a\.wav"
    ):
        index(CONFIG, tau2019)
    table = index(PARTIAL, tau2019)
    assert table.note == "30 of 14400 clips (15 locations in 4 cities); 2 listed but absent"
    assert table.clips.index.tolist() == list(range(30))
    (tau2019 / "audio").rename(tau2019 / "sound")
    with pytest.raises(CatuvacError, match=r"none of the 32 listed files is there, the first: .*: put them there"):
        index(PARTIAL, tau2019)


def test_clips_without_labels(tau2019_leaderboard: Path) -> None:
    table = index(CONFIG, tau2019_leaderboard)
    assert table.note == "40 clips, no labels"
    assert set(table.clips.columns) == {"path", "duration"}
    (tau2019_leaderboard / "audio" / "7.wav").unlink()
    with pytest.raises(CatuvacError, match=r"1 of 40 listed files are absent, the first .*7\.wav"):
        index(CONFIG, tau2019_leaderboard)
    assert index(PARTIAL, tau2019_leaderboard).note == "39 clips, no labels; 1 listed but absent"

    (tau2019_leaderboard / "evaluation_setup" / "test.csv").unlink()
    bare = index(CONFIG, tau2019_leaderboard)
    assert bare.note == "39 clips, no labels"
    pd.testing.assert_frame_equal(bare.clips.iloc[:2], table.clips.iloc[:2])
    with pytest.raises(CatuvacError, match="stratify needs labels, and these clips of tau2019 have none"):
        index(CorpusConfig(corpus="tau2019", limit=10, stratify=True), tau2019_leaderboard)


def test_training_without_labels_reports_no_label_score(tau2019_leaderboard: Path, tmp_path: Path) -> None:
    config = Config.from_dict(
        {
            "corpus": {"corpus": "tau2019"},
            "features": {"sample_rate": 8000, "clip_seconds": 0.1, "window": 128, "hop": 64, "n_bands": 16},
            "split": {"val_fraction": 0.2, "test_fraction": 0.2},
            "model": {"n_clusters": 3, "latent_dim": 2},
            "training": {"epochs": 1, "batch_size": 8},
        }
    )
    prepared = store.prepare(
        config, data_root=tau2019_leaderboard, cache_dir=tmp_path / "cache", workers=1, progress=False
    )
    assert prepared.labels(prepared.splits["train"]) is None
    run = TrainingRun(config, prepared)
    reports = [*run, run.evaluate("test")]
    names = {key.removeprefix("val/") for report in reports for key in report}
    assert {"silhouette_p", "clusters_used"} <= names
    assert not [name for name in names if name.startswith(("acc", "nmi", "ari"))]
