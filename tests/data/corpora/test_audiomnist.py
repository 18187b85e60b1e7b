from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from catuvac.config import PRESETS, CorpusConfig
from catuvac.data.corpora import COMMON, CORPORA, index
from catuvac.data.splits import split
from catuvac.errors import CatuvacError

CONFIG = CorpusConfig(corpus="audiomnist")


def test_clips_with_their_speakers_metadata(audiomnist: Path) -> None:
    table = index(CONFIG, audiomnist)
    clips = table.clips
    assert table.note == "90 of 30000 clips (6 of 60 speakers)"
    assert clips["label"].value_counts().to_dict() == {"0": 30, "4": 30, "9": 30}
    assert clips["duration"].tolist() == pytest.approx([0.1] * 90)
    assert set(clips.columns) - set(COMMON) == set(CORPORA["audiomnist"].nuisances)
    speakers = clips.drop_duplicates("speaker").set_index("speaker")
    assert speakers.loc["01", ["accent", "age", "gender", "native_speaker", "origin", "recording_room"]].tolist() == [
        "german",
        "30",
        "male",
        "no",
        "europe, germany, wuerzburg",
        "kino",
    ]
    assert speakers["accent"].to_dict() == {
        "01": "german",
        "02": "german",
        "17": "unknown",
        "45": "german",
        "52": "french",
        "60": "unknown",
    }
    assert speakers["recording_room"].tolist() == ["kino", "vr-room", "unknown", "vr-room", "vr-room", "unknown"]
    assert speakers["age"].tolist() == ["30", "25", "unknown", "unknown", "34", "unknown"]


def test_every_accepted_root(audiomnist: Path, tmp_path: Path) -> None:
    clips = index(CONFIG, audiomnist).clips
    for root in (tmp_path, audiomnist / "data"):
        pd.testing.assert_frame_equal(index(CONFIG, root).clips, clips)
    audiomnist.rename(tmp_path / "audiomnist")
    assert index(CONFIG, tmp_path).note == "90 of 30000 clips (6 of 60 speakers)"


def test_a_partial_tree_without_metadata(audiomnist: Path) -> None:
    data = audiomnist / "data"
    for speaker in ("01", "17", "45", "52"):
        shutil.rmtree(data / speaker)
    (data / "audioMNIST_meta.txt").unlink()
    for stray in ("02/0_60_1.wav", "02/0_02_50.wav", "02/copy of 0_02_0.wav"):  # not names of the corpus
        (data / stray).touch()
    table = index(CONFIG, audiomnist)
    assert table.note == "30 of 30000 clips (2 of 60 speakers)"
    assert table.clips["speaker"].unique().tolist() == ["02", "60"]
    assert set(table.clips.columns) == {"path", "label", "duration", "speaker"}


@pytest.mark.parametrize("text", ['{"01": {"accent": "german",', json.dumps(["01"]), json.dumps({"01": "german"})])
def test_malformed_metadata(text: str, audiomnist: Path) -> None:
    (audiomnist / "data" / "audioMNIST_meta.txt").write_text(text)
    with pytest.raises(CatuvacError, match=r"audioMNIST_meta\.txt is not the corpus's JSON of speakers .*restore"):
        index(CONFIG, audiomnist)


def test_the_papers_split(audiomnist: Path) -> None:
    parts = split(index(CONFIG, audiomnist).clips, PRESETS["audiomnist"].split)
    assert {name: len(rows) for name, rows in parts.items()} == {"train": 72, "val": 9, "test": 9}
    speakers = [f"{number:02d}" for number in range(1, 61)]
    clips = pd.DataFrame({"label": list("0123456789") * 3000, "speaker": speakers * 500})
    parts = split(clips, PRESETS["audiomnist"].split)
    assert {name: len(rows) for name, rows in parts.items()} == {"train": 24000, "val": 3000, "test": 3000}
    assert clips["label"][parts["test"]].value_counts().tolist() == [300] * 10
