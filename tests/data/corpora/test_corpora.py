from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from catuvac.config import CorpusConfig
from catuvac.data.corpora import COMMON, CORPORA, index
from catuvac.errors import CatuvacError

FSDD = CorpusConfig(corpus="fsdd")
URBAN = CorpusConfig(corpus="urbansound8k")
FOLDER = CorpusConfig(corpus="folder")


def test_fsdd_whole(shared_data: Path) -> None:
    table = index(FSDD, shared_data)
    clips = table.clips
    assert table.note == "3000 of 3000 clips (6 of 6 speakers)"
    assert clips["split"].value_counts().to_dict() == {"train": 2700, "test": 300}
    assert clips["label"].nunique() == 10
    assert set(clips.columns) - set(COMMON) == set(CORPORA["fsdd"].nuisances)
    assert clips["duration"].between(0.1, 3).all()
    for root in (shared_data / "fsdd", shared_data / "fsdd" / "recordings"):
        pd.testing.assert_frame_equal(index(FSDD, root).clips, clips)


def test_fsdd_partial_tree_states_its_count(shared_data: Path, tmp_path: Path) -> None:
    for name in ("0_jackson_3.wav", "7_theo_12.wav", "9_jackson_5.wav"):
        shutil.copy(shared_data / "fsdd" / "recordings" / name, tmp_path)
    (tmp_path / "notes.wav").touch()  # not a recording's name
    table = index(FSDD, tmp_path)
    assert table.note == "3 of 3000 clips (2 of 6 speakers)"
    assert table.clips["label"].tolist() == ["0", "7", "9"]
    assert table.clips["split"].tolist() == ["test", "train", "train"]
    assert table.clips["speaker"].tolist() == ["jackson", "theo", "jackson"]


def test_urbansound8k_first_fold(shared_data: Path) -> None:
    table = index(URBAN, shared_data)
    clips = table.clips
    assert table.note == "873 of 8732 clips (fold 1 of 10)"
    assert clips["label"].nunique() == 10
    assert set(clips.columns) - set(COMMON) == set(CORPORA["urbansound8k"].nuisances)
    assert clips["duration"].min() < 0.3  # the slice's own length, although every file here is padded to 4 s
    assert clips["duration"].max() == pytest.approx(4.0)
    pd.testing.assert_frame_equal(index(URBAN, shared_data / "UrbanSound8K").clips, clips)


@pytest.fixture
def urban(tmp_path: Path) -> Path:
    """An UrbanSound8K of two rows, one clip present."""
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "UrbanSound8K.csv").write_text(
        "slice_file_name,fsID,start,end,salience,fold,classID,class\n"
        "1-3-0-0.wav,1,0.5,1.0,1,2,3,dog_bark\n"
        "2-5-0-0.wav,2,0.0,4.0,2,7,5,engine_idling\n"
    )
    (tmp_path / "audio" / "fold2").mkdir(parents=True)
    soundfile.write(tmp_path / "audio" / "fold2" / "1-3-0-0.wav", np.zeros(8000), 8000)
    return tmp_path


def test_urbansound8k_row(urban: Path) -> None:
    table = index(URBAN, urban)
    assert table.note == "1 of 2 clips (fold 2 of 10)"
    assert table.clips.iloc[0].to_dict() == {
        "path": str(urban.resolve() / "audio" / "fold2" / "1-3-0-0.wav"),
        "label": "dog_bark",
        "duration": 0.5,
        "fold": 2,
        "fs_id": 1,
        "salience": 1,
    }


def test_urbansound8k_without_a_column(urban: Path) -> None:
    csv = urban / "metadata" / "UrbanSound8K.csv"
    csv.write_text(csv.read_text().replace("salience", "loudness").replace("fsID", "id"))
    with pytest.raises(CatuvacError, match=r"lacks the column fsID, salience; it has .*loudness.*: restore"):
        index(URBAN, urban)


def test_urbansound8k_without_folds_or_with_an_empty_table(urban: Path) -> None:
    (urban / "audio" / "fold2").rename(urban / "audio" / "second")
    with pytest.raises(CatuvacError, match="put the folds there"):
        index(URBAN, urban)
    (urban / "metadata" / "UrbanSound8K.csv").write_text("")
    with pytest.raises(CatuvacError, match="is not the corpus's CSV"):
        index(URBAN, urban)


def test_folder_finds_every_format_in_order(tmp_path: Path) -> None:
    for name in ("b/x.WAV", "a/y.flac", "a/deep/z.ogg", "top.mp3"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.zeros(8000), 8000, format=path.suffix[1:].upper())
    (tmp_path / "a" / "notes.txt").touch()
    table = index(FOLDER, tmp_path)
    names = [Path(path).relative_to(tmp_path.resolve()).as_posix() for path in table.clips["path"]]
    assert names == ["a/deep/z.ogg", "a/y.flac", "b/x.WAV", "top.mp3"]
    assert "label" not in table.clips
    assert table.note == "4 files"
    with pytest.raises(CatuvacError, match=r"top\.mp3 has no label.*1 such file"):
        index(CorpusConfig(corpus="folder", folder_labels=True), tmp_path)
    (tmp_path / "top.mp3").unlink()
    labelled = index(CorpusConfig(corpus="folder", folder_labels=True), tmp_path)
    assert labelled.clips["label"].tolist() == ["a", "a", "b"]
    assert labelled.note == "3 files in 2 labelled sub-folders"


@pytest.mark.parametrize(
    ("corpus", "message"),
    [("fsdd", "no FSDD recordings"), ("urbansound8k", r"no metadata.UrbanSound8K\.csv"), ("folder", "no .wav, .flac")],
)
def test_wrong_roots(corpus: str, message: str, tmp_path: Path) -> None:
    config = CorpusConfig(corpus=corpus)
    with pytest.raises(CatuvacError, match=message):
        index(config, tmp_path)
    with pytest.raises(CatuvacError, match="gone is not a folder"):
        index(config, tmp_path / "gone")
    with pytest.raises(CatuvacError, match="give --data-root DIR"):
        index(config, None)


def test_unknown_corpus() -> None:
    with pytest.raises(CatuvacError, match="unknown corpus 'esc50'; known: synthetic, fsdd, urbansound8k, folder"):
        index(CorpusConfig(corpus="esc50"), None)
