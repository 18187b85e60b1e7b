from __future__ import annotations

import math
import os
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from catuvac.config import Config, CorpusConfig, SplitConfig
from catuvac.data import audio, store
from catuvac.data.corpora import COMMON, index
from catuvac.data.corpora.folder import READ, recordings
from catuvac.data.splits import split
from catuvac.errors import CatuvacError

PATTERN = r"(?P<label>[^/]+)/(?P<speaker>\d+)_(?P<site>[a-z]+)?"


def tree(root: Path, *names: str) -> Path:
    """A second of noise under every name."""
    rng = np.random.default_rng(0)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / name, 0.1 * rng.normal(size=8000), 8000)
    return root


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """Two species, six recorders of which 5 names no site, two takes."""
    sites = ("pond", "pond", "wood", "wood", "wood", "")
    names = (
        f"{name}/{number}_{site}{take}.wav"
        for name, (number, site), take in product(("owl", "wren"), enumerate(sites), (1, 2))
    )
    return tree(tmp_path / "birds", *names)


def test_what_libsndfile_writes_is_listed_and_what_is_hidden_is_not(tmp_path: Path) -> None:
    suffixes = {"IRCAM": "sf", "NIST": "sph", "WAVEX": "wav", "MPC2K": "mpc"}
    rates = {"XI": 44100, "HTK": 16000}
    wanted = set()
    for kind in set(soundfile.available_formats()) - {"RAW", "MAT4", "MAT5"}:
        path = tmp_path / f"{kind}.{suffixes.get(kind, kind.lower())}"
        soundfile.write(path, np.zeros(8000), rates.get(kind, 8000), format=kind)
        assert not math.isnan(audio.duration(path)), kind
        wanted.add(path)
    for name in ("._x.wav", ".x.flac", ".git/x.wav", "inside/.Trash-1000/x.wav"):
        tree(tmp_path, name)
    assert set(recordings(tmp_path)) == wanted
    assert len(READ) == len(set(READ))
    hidden_root = tree(tmp_path / ".mine", "x.wav")
    assert list(recordings(hidden_root)) == [hidden_root / "x.wav"]


def test_links_to_folders_are_followed_and_every_folder_is_read_once(tmp_path: Path) -> None:
    root, elsewhere = tree(tmp_path / "root", "z/x.wav", "z/deep/x.wav"), tree(tmp_path / "elsewhere", "sub/x.wav")
    (root / "a").symlink_to(root / "z")  # a folder that is found under its own path
    (root / "b").symlink_to(elsewhere)
    (root / "c").symlink_to(elsewhere)
    (root / "z" / "deep" / "loop").symlink_to(root)
    (elsewhere / "sub" / "loop").symlink_to(elsewhere)
    found = list(recordings(root))
    assert [path.relative_to(root).as_posix() for path in found] == ["z/x.wav", "z/deep/x.wav", "b/sub/x.wav"]


def test_named_groups_become_columns(birds: Path) -> None:
    table = index(CorpusConfig(corpus="folder", pattern=PATTERN), birds)
    clips = table.clips
    assert table.note == "24 files (label: 2, speaker: 6, site: 3)"
    assert set(clips.columns) - set(COMMON) == {"speaker", "site"}
    row = clips.iloc[0].to_dict()
    assert row == {
        "path": str(birds.resolve() / "owl" / "0_pond1.wav"),
        "label": "owl",
        "speaker": "0",
        "site": "pond",
        "duration": pytest.approx(1.0),
    }
    assert set(clips["site"][clips["speaker"] == "5"]) == {"unknown"}
    for group in ("speaker", "site"):
        parts = split(clips, SplitConfig(split="grouped", group=group))
        sides = [set(clips[group][rows]) for rows in parts.values()]
        assert all(sides)
        assert sum(map(len, sides)) == clips[group].nunique()


def test_files_that_do_not_match_are_counted_or_left_out(birds: Path) -> None:
    tree(birds, "owl/x_pond1.wav", "top.wav")
    with pytest.raises(CatuvacError, match=r"does not match 2 of 26 files, the first owl/x_pond1\.wav: .*--partial"):
        index(CorpusConfig(corpus="folder", pattern=PATTERN), birds)
    table = index(CorpusConfig(corpus="folder", pattern=PATTERN, partial=True), birds)
    assert len(table.clips) == 24
    assert table.note.endswith("; 2 that do not match left out")
    with pytest.raises(CatuvacError, match="does not match 26 of 26 files"):
        index(CorpusConfig(corpus="folder", pattern=r"(?P<label>\d\d\d)", partial=True), birds)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"(?P<label>owl)?", r"gives 12 of 24 clips no label, the first .*wren.0_pond1\.wav: give every clip"),
        (r"(?P<start>[a-z]+)", "has a column 'start', which is a reserved name: rename it"),
        (r"(?P<Label>[a-z]+)", "has a column 'Label': did you mean 'label'?"),
        (r"(?P<split>[a-z]+)", r"0_pond1\.wav: unknown split 'owl'; known: train, val, test"),
    ],
)
def test_a_pattern_whose_columns_cannot_be_used(pattern: str, message: str, birds: Path) -> None:
    with pytest.raises(CatuvacError, match=message):
        index(CorpusConfig(corpus="folder", pattern=pattern), birds)


def test_a_split_in_the_path_is_the_official_one(tmp_path: Path) -> None:
    tree(tmp_path, *(f"{part}/{number}.wav" for part in ("train", "val", "test") for number in range(2)))
    clips = index(CorpusConfig(corpus="folder", pattern="(?P<split>[^/]+)/"), tmp_path).clips
    parts = split(clips, SplitConfig(split="official"))
    assert all(set(clips["split"][rows]) == {name} for name, rows in parts.items())
    assert "label" not in clips


TABLE = """path,label,start,end,speaker,date
a.wav,owl,0,0.5,007,
a.wav,wren,0.5,1,007,may
sub/ü b.wav,owl,,,12,june
sub/ü b.wav,wren,0.25,9,12,june
"""


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    root = tree(tmp_path / "listed", "a.wav", "sub/ü b.wav", "not listed.wav")
    (root / "clips.csv").write_text(TABLE, encoding="utf-8")
    return root


LISTED = CorpusConfig(corpus="folder", table="clips.csv")


def test_a_table_gives_labels_columns_and_parts_of_recordings(listed: Path) -> None:
    table = index(LISTED, listed)
    clips = table.clips
    assert table.note == "4 clips of 2 files (label: 2, speaker: 2, date: 3)"
    assert set(clips.columns) - set(COMMON) == {"speaker", "date"}
    assert clips["path"].tolist() == [str(listed.resolve() / name) for name in ["a.wav"] * 2 + ["sub/ü b.wav"] * 2]
    assert clips["label"].tolist() == ["owl", "wren"] * 2
    assert clips["start"].tolist() == [0, 0.5, 0, 0.25]
    assert clips["duration"].tolist() == pytest.approx([0.5, 0.5, 1.0, 0.75])  # no end lies after the recording's
    assert clips["speaker"].tolist() == ["007", "007", "12", "12"]
    assert clips["date"].tolist() == ["unknown", "may", "june", "june"]


def test_a_table_may_lie_elsewhere_have_tabs_a_mark_and_only_paths(listed: Path, tmp_path: Path) -> None:
    table = tmp_path / "clips.tsv"
    table.write_text("path\tlabel\nsub/ü b.wav\t\na.wav\t\n", encoding="utf-8-sig")  # as Excel marks UTF-8
    clips = index(CorpusConfig(corpus="folder", table=str(table)), listed).clips
    assert [Path(path).name for path in clips["path"]] == ["ü b.wav", "a.wav"]
    assert set(clips.columns) == {"path", "duration"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("path,", "file,", r"clips\.csv lacks the column path; it has file, label.*: correct it"),
        ("a.wav,owl", "gone/a.wav,owl", r"1 of 4 listed files are absent, the first .*gone/a\.wav: .*--partial"),
        ("a.wav,wren,0.5,1", "./a.wav,owl,0.0,0.50", r"line 3: the same clip as in an earlier line; remove one"),
        ("0.5,1,", "1,0.5,", r"line 3: not 0 <= start < end, in s; correct it"),
        ("0.5,1,", "0.5,0.5,", r"line 3: not 0 <= start < end"),
        ("0.5,1,", "-1,1,", r"line 3: not 0 <= start < end"),
        ("0.5,1,", "soon,1,", r"line 3: not 0 <= start < end"),
        ("0.5,1,", "nan,1,", r"line 3: not 0 <= start < end"),
        ("wav,wren,0.5", "wav,,0.5", r"clips\.csv gives 1 of 4 clips no label, the first line 3: give every clip"),
        ("a.wav,owl", ",owl", r"line 2: no path; correct it"),
        ("ü", "\udcff", r"clips\.csv is not UTF-8: .*correct it"),
        ("speaker", "duration", "a column 'duration', which is a reserved name"),
        ("start", "Start", "a column 'Start': did you mean 'start'?"),
        ("end", " end", "a column ' end': did you mean 'end'?"),
        ("label", "LABEL ", "a column 'LABEL ': did you mean 'label'?"),
        ("date", "split", r"clips\.csv gives 1 of 4 clips no split"),
        ("007,may", "007,may,4", r"clips\.csv is not the corpus's table: .*line 3.*; correct it"),
        (TABLE[TABLE.index("\n") :], "\n", "lists no clip"),
        (TABLE, "", "is not the corpus's table: No columns"),
    ],
)
def test_a_table_with_a_mistake(old: str, new: str, message: str, listed: Path) -> None:
    assert old in TABLE
    (listed / "clips.csv").write_text(TABLE.replace(old, new, 1), encoding="utf-8", errors="surrogateescape")
    with pytest.raises(CatuvacError, match=message) as caught:
        index(LISTED, listed)
    assert "\n" not in str(caught.value)


def test_a_table_or_all_of_its_files_absent(listed: Path) -> None:
    partial = CorpusConfig(corpus="folder", table="clips.csv", partial=True)
    os.remove(listed / "a.wav")
    table = index(partial, listed)
    assert table.note == "2 clips of 1 files (label: 2, speaker: 1, date: 1); 2 listed but absent"
    os.remove(listed / "sub" / "ü b.wav")
    with pytest.raises(CatuvacError, match="none of the 4 files"):
        index(partial, listed)
    with pytest.raises(CatuvacError, match=r"no table .*gone\.csv: give --table its path relative to --data-root"):
        index(CorpusConfig(corpus="folder", table="gone.csv"), listed)


def test_a_part_of_a_recording_has_the_features_of_a_file_of_it(tmp_path: Path) -> None:
    """Twelve windows of one recording, by a table; the same samples as files of their own."""
    rng = np.random.default_rng(0)
    samples = (3000 * rng.normal(size=12 * 4000)).astype(np.int16)
    whole, apart = tmp_path / "whole", tmp_path / "apart"
    apart.mkdir()
    whole.mkdir()
    soundfile.write(whole / "night.wav", samples, 8000)
    lines = ["path,start,end", *(f"night.wav,{number / 2},{number / 2 + 0.5}" for number in range(12))]
    (whole / "clips.csv").write_text("\n".join([*lines, "night.wav,9,10"]))
    for number, window in enumerate(samples.reshape(12, 4000)):
        soundfile.write(apart / f"{number:02}.wav", window, 8000)
    settings = {"sample_rate": 8000, "window": 256, "hop": 128, "n_bands": 16, "n_clusters": 2}
    base = Config().with_settings({**settings, "val_fraction": 0.2, "test_fraction": 0.2, "corpus": "folder"})
    prepared = [
        store.prepare(config, data_root=root, cache_dir=tmp_path / "cache", workers=1, progress=False)
        for config, root in ((base.with_settings({"table": "clips.csv"}), whole), (base, apart))
    ]
    assert np.array_equal(prepared[0].x, prepared[1].x)
    assert np.array_equal(prepared[0].mask, prepared[1].mask)
    assert prepared[0].mask.sum(axis=1).min() > 25  # half a second, of one
    assert prepared[0].nuisances(np.arange(12)) == {}
    assert prepared[0].skipped["reason"].tolist() == ["ends at 6 s, before the clip's start at 9 s"]


def test_loading_starts_where_it_should(tmp_path: Path) -> None:
    ramp = np.arange(8000, dtype=np.int16)
    for name in ("ramp.wav", "ramp.flac"):
        soundfile.write(tmp_path / name, ramp, 8000)
        part = audio.load(tmp_path / name, sample_rate=8000, start=0.25, seconds=0.5)
        assert torch.equal(part * 2**15, torch.arange(2000, 6000).float())
        assert audio.load(tmp_path / name, sample_rate=8000, start=0.9).shape == (800,)


def test_settings_of_the_folder_make_entries_of_their_own(birds: Path, tmp_path: Path) -> None:
    base = Config().with_settings({"corpus": "folder", "n_bands": 16, "n_clusters": 2, "val_fraction": 0.2})
    entries = [
        store.prepare(base.with_settings(more), data_root=birds, cache_dir=tmp_path / "c", progress=False)
        for more in ({}, {"pattern": PATTERN}, {"pattern": PATTERN.replace("site", "place")}, {"pattern": PATTERN})
    ]
    assert len({entry.path for entry in entries}) == 3
    assert entries[1].path == entries[3].path
    assert [set(entry.nuisances(entry.splits["val"])) for entry in entries[:2]] == [set(), {"speaker", "site"}]
