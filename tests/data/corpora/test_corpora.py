from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from catuvac.config import CorpusConfig, SplitConfig
from catuvac.data.corpora import COMMON, CORPORA, index
from catuvac.data.splits import split
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


def test_arabic_digits_are_those_of_the_tables_and_keep_their_splits(arabic_digits: Path) -> None:
    table = index(CorpusConfig(corpus="arabic_digits"), arabic_digits.parent)
    assert table.clips["label"].value_counts().to_dict() == {"zero": 12, "nine": 12}
    assert table.note == "24 of 3000 clips (6 of 30 speakers)"
    parts = split(table.clips, SplitConfig(split="official"))
    speakers = {name: set(table.clips["speaker"][rows]) for name, rows in parts.items()}
    assert speakers == {
        "train": {"00000001", "00000003", "00000030"},
        "val": {"00000002", "00000007"},
        "test": {"00000014"},
    }


def test_arabic_digits_whole(shared_data: Path) -> None:
    clips = index(CorpusConfig(corpus="arabic_digits"), shared_data).clips
    assert len(clips) == 3000
    assert set(clips["label"].value_counts()) == {300}
    assert clips.groupby("split")["speaker"].nunique().to_dict() == {"test": 6, "train": 18, "val": 6}
    assert set(clips.columns) - set(COMMON) == set(CORPORA["arabic_digits"].nuisances)


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


def test_urbansound8k_with_folds_missing(urbansound8k: Path) -> None:
    table = index(URBAN, urbansound8k)
    assert table.note == "24 of 8732 clips (folds 1, 2, 3, 5 of 10)"
    assert table.clips.iloc[7].to_dict() == {
        "path": str(urbansound8k.resolve() / "audio" / "fold2" / "200-3-0-1.wav"),
        "label": "dog_bark",
        "duration": pytest.approx(0.05),
        "fold": 2,
        "fs_id": 200,
        "salience": 2,
    }


def test_urbansound8k_with_clips_missing_from_a_fold(urbansound8k: Path) -> None:
    (urbansound8k / "audio" / "fold2" / "200-3-0-1.wav").unlink()
    with pytest.raises(CatuvacError, match=r"1 of 24 listed files are absent, the first .*200-3-0-1\.wav.*--partial"):
        index(URBAN, urbansound8k)
    table = index(CorpusConfig(corpus="urbansound8k", partial=True), urbansound8k)
    assert table.note == "23 of 8732 clips (folds 1, 2, 3, 5 of 10); 1 listed but absent"
    assert not table.clips["path"].str.contains("200-3-0-1").any()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("salience", "loudness", r"lacks the column salience; it has .*loudness.*: restore"),
        (",8,siren", ",8,sirene", r"csv line 4: unknown class 'sirene'; did you mean 'siren'\?"),
        ("2,1,3,dog", "3,1,3,dog", r"csv line 3: unknown salience '3'; known: 1, 2"),
        ("0,0.05,1,1,3,dog", "0,0.05,1,99,3,dog", r"csv line 2: unknown fold '99'; did you mean '9'"),
        ("0,0.05,1,1,3,dog", "0.06,0.05,1,1,3,dog", r"csv line 2: not 0 <= start < end"),
        ("0,0.05,1,1,3,dog", "soon,0.05,1,1,3,dog", r"csv line 2: not 0 <= start < end"),
        ("0,0.05,1,1,3,dog", "0,inf,1,1,3,dog", r"csv line 2: not 0 <= start < end"),
        ("0,0.05,1,1,3,dog", ",0.05,1,1,3,dog", r"csv line 2: no start"),
        ("101-8-0-0.wav,101,", "101-8-0-0.wav,,", r"csv line 4: no fsID"),
        ("100-3-0-1.wav", "100-3-0-0.wav", r"100-3-0-0\.wav is listed twice: remove one of the rows"),
        ("100-3-0-1.wav", "./100-3-0-0.wav", r"100-3-0-0\.wav is listed twice: remove one of the rows"),
    ],
)
def test_urbansound8k_with_a_table_that_is_not_its_own(old: str, new: str, message: str, urbansound8k: Path) -> None:
    csv = urbansound8k / "metadata" / "UrbanSound8K.csv"
    text = csv.read_text()
    assert old in text
    csv.write_text(text.replace(old, new, 1) if old != "salience" else text.replace(old, new))
    with pytest.raises(CatuvacError, match=message):
        index(URBAN, urbansound8k)


def test_urbansound8k_without_folds_or_with_an_empty_table(urbansound8k: Path) -> None:
    (urbansound8k / "audio").rename(urbansound8k / "sound")
    with pytest.raises(CatuvacError, match=r"none of the 30 listed files is there, the first: .*: put them there"):
        index(URBAN, urbansound8k)
    csv = urbansound8k / "metadata" / "UrbanSound8K.csv"
    csv.write_text(csv.read_text().splitlines()[0])
    with pytest.raises(CatuvacError, match="lists no clip"):
        index(URBAN, urbansound8k)
    csv.write_text("")
    with pytest.raises(CatuvacError, match="is not the corpus's table"):
        index(URBAN, urbansound8k)


@pytest.mark.parametrize(
    ("corpus", "group"),
    [
        ("fsdd", "speaker"),
        ("arabic_digits", "speaker"),
        ("speech_commands", "speaker"),
        ("audiomnist", "speaker"),
        ("tau2019", "location"),
        ("tau2019", "city"),
        ("urbansound8k", "fs_id"),
        ("urbansound8k", "fold"),
    ],
)
def test_no_group_lies_on_two_sides(corpus: str, group: str, request: pytest.FixtureRequest) -> None:
    clips = index(CorpusConfig(corpus=corpus), request.getfixturevalue(corpus)).clips
    parts = split(clips, SplitConfig(split="grouped", group=group))
    sides = [set(clips[group][rows]) for rows in parts.values()]
    assert all(sides)
    assert sum(map(len, sides)) == clips[group].nunique() == len(set.union(*sides))
    assert sum(map(len, parts.values())) == len(clips)


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


def test_a_row_that_two_tables_hold_is_refused(arabic_digits: Path) -> None:
    row = (arabic_digits / "train.csv").read_text().splitlines()[1]
    with (arabic_digits / "test.csv").open("a") as test:
        test.write(row + "\n")
    with pytest.raises(CatuvacError, match=r"00000001_NO_01\.wav is listed twice"):
        index(CorpusConfig(corpus="arabic_digits"), arabic_digits)


def test_folder_passes_nothing_over_but_what_macos_adds(tmp_path: Path) -> None:
    kinds = {"a.aiff": None, "a.aif": "AIFF", "a.caf": None, "a.au": None, "a.w64": None, "a.rf64": None}
    for name, kind in {**kinds, "a.opus": "OGG", "a.oga": "OGG"}.items():
        soundfile.write(tmp_path / name, np.zeros(8000), 8000, format=kind, subtype="OPUS" if "opus" in name else None)
    for name in ("._a.aiff", "notes.txt", "b.m4a"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.wav")
    clips = index(FOLDER, tmp_path).clips
    seconds = {Path(path).name: duration for path, duration in zip(clips["path"], clips["duration"], strict=True)}
    unreadable = {"b.m4a", "gone.wav"}  # extraction reports these, with the reason
    assert set(seconds) == {*kinds, "a.opus", "a.oga", *unreadable}
    assert {name for name, duration in seconds.items() if math.isnan(duration)} == unreadable
    assert all(seconds[name] == pytest.approx(1) for name in set(seconds) - unreadable)


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ("fsdd", "no FSDD recordings"),
        ("arabic_digits", r"no train\.csv, val\.csv and test\.csv"),
        ("speech_commands", r"no validation_list\.txt and testing_list\.txt"),
        ("audiomnist", "no AudioMNIST recordings"),
        ("tau2019", r"no meta\.csv, evaluation_setup.test\.csv or audio"),
        ("urbansound8k", r"no metadata.UrbanSound8K\.csv"),
        ("folder", "no .wav, .flac"),
    ],
)
def test_wrong_roots(corpus: str, message: str, tmp_path: Path) -> None:
    config = CorpusConfig(corpus=corpus)
    with pytest.raises(CatuvacError, match=message):
        index(config, tmp_path)
    with pytest.raises(CatuvacError, match="gone is not a folder: give the one with the recordings"):
        index(config, tmp_path / "gone")
    with pytest.raises(CatuvacError, match="give --data-root DIR"):
        index(config, None)


def test_unknown_corpus() -> None:
    with pytest.raises(CatuvacError, match="unknown corpus 'esc50'; known: synthetic, fsdd, arabic_digits, speech"):
        index(CorpusConfig(corpus="esc50"), None)
    with pytest.raises(CatuvacError, match="unknown corpus 'audiomist'; did you mean 'audiomnist'"):
        index(CorpusConfig(corpus="audiomist"), None)
