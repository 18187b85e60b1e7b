"""Clusters of recordings: those of the training, whatever the path, the format and the length."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from catuvac import assign, inference
from catuvac.cli import main
from catuvac.config import Config
from catuvac.data import audio, store
from catuvac.data.store import FeatureSet
from catuvac.errors import CatuvacError
from catuvac.inference import FittedModel
from catuvac.training import run_dir
from catuvac.training.run import TrainingRun

RATE = 16000


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty tones of three pitches, a second each, one name with a space, a line's end and a letter beyond ASCII."""
    folder, rng = tmp_path_factory.mktemp("tones"), np.random.default_rng(0)
    times = np.arange(RATE) / RATE
    for number in range(30):
        tone = np.sin(2 * math.pi * (300, 1200, 4000)[number % 3] * times) * rng.uniform(0.1, 0.5)
        name = "a b\nü.wav" if number == 7 else f"{number:02}.wav"
        soundfile.write(folder / name, tone + 0.01 * rng.normal(size=RATE), RATE, subtype="PCM_16")
    return folder


@pytest.fixture(scope="module")
def settings(tiny_config: Config) -> Config:
    return tiny_config.with_settings(
        {"corpus": "folder", "epochs": 3, "n_bands": 16, "corpus_norm": "mean_var", "val_fraction": 0.2}
    )


@pytest.fixture(scope="module")
def features(settings: Config, recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureSet:
    return store.prepare(settings, data_root=recordings, cache_dir=tmp_path_factory.mktemp("cache"), progress=False)


@pytest.fixture(scope="module")
def folder(settings: Config, features: FeatureSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    run_dir.train(path, settings, features, device="cpu", threads=1)
    return path


@pytest.fixture
def model(folder: Path) -> FittedModel:
    return inference.load(folder)


def rows(model: FittedModel, paths: list[Path], **options: float) -> list[assign.Row]:
    return list(assign.assign(model, paths, undecided_above=options.pop("undecided_above", 99.0), **options))


def test_clusters_are_those_of_the_training(
    model: FittedModel, folder: Path, settings: Config, features: FeatureSet, recordings: Path
) -> None:
    run = TrainingRun(settings, features)
    run.load_state(inference.checkpoint.load(folder / "checkpoint.pt"))
    clips = np.arange(len(features.x))
    expected = run.infer(clips)["probabilities"]
    found = rows(model, sorted(recordings.iterdir()))
    assert [row.cluster for row in found] == expected.argmax(axis=1).tolist()
    np.testing.assert_array_equal([row.probability for row in found], expected.max(axis=1))


def test_the_features_are_those_of_the_training_to_the_bit(
    model: FittedModel, features: FeatureSet, recordings: Path
) -> None:
    rate = model.config.features.sample_rate
    samples = [audio.load(path, sample_rate=rate) for path in sorted(recordings.iterdir())]
    x, mask = assign_features(model, samples)
    np.testing.assert_array_equal(x, features.x)
    np.testing.assert_array_equal(mask, features.mask)


def test_logits_alone_are_those_of_the_prediction(model: FittedModel, recordings: Path) -> None:
    clips = [audio.load(path, sample_rate=model.sample_rate) for path in sorted(recordings.iterdir())]
    probabilities = torch.softmax(torch.from_numpy(model.logits(clips)), dim=-1)
    np.testing.assert_array_equal(probabilities.numpy(), model.predict(clips).probabilities)


def assign_features(model: FittedModel, samples: list[object]) -> tuple[np.ndarray, np.ndarray]:
    from catuvac.data import features as front_end

    durations = [math.nan] * len(samples)
    x, mask = front_end.extract(samples, durations=durations, config=model.config.features)  # type: ignore[arg-type]
    return model.normaliser.apply(x.numpy(), mask.numpy()), mask.numpy()


def test_an_unreadable_file_has_a_row_with_its_reason(model: FittedModel, recordings: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    found = rows(model, [recordings / "00.wav", tmp_path / "empty.wav", tmp_path / "gone.wav", recordings / "01.wav"])
    assert [row.reason for row in found] == [
        "",
        "empty file (0 bytes)",
        "unreadable: No such file or directory",
        "",
    ]
    assert [row.cluster is None for row in found] == [False, True, True, False]


def test_what_is_too_loud_for_the_features_has_a_row_with_its_reason(
    model: FittedModel, recordings: Path, tmp_path: Path
) -> None:
    loud = np.zeros(RATE)
    loud[RATE // 2] = 1e30
    soundfile.write(tmp_path / "loud.wav", loud, RATE, subtype="FLOAT")
    found = rows(model, [tmp_path / "loud.wav", recordings / "00.wav"])
    assert ["too loud" in row.reason for row in found] == [True, False]
    assert (found[0].start, found[0].end, found[0].cluster, found[0].reconstruction_error) == (0.0, 1.0, None, None)
    (alone,) = rows(model, [recordings / "00.wav"])
    assert (found[1].cluster, found[1].probability) == (alone.cluster, pytest.approx(alone.probability))


def test_a_window_that_cannot_be_used_is_one_row(model: FittedModel, tmp_path: Path) -> None:
    samples = np.random.default_rng(0).normal(size=4 * RATE) * 0.1
    samples[RATE], samples[2 * RATE] = np.nan, 1e30
    soundfile.write(tmp_path / "x.wav", samples, RATE, subtype="FLOAT")
    found = rows(model, [tmp_path / "x.wav"], window=1.0)
    assert [(row.start, bool(row.reason), row.cluster is None) for row in found] == [
        (0.0, False, False),
        (1.0, True, True),
        (2.0, True, True),
        (3.0, False, False),
    ]
    assert found[1].problem == f"{tmp_path / 'x.wav'}, 1 to 2 s: contains NaN or infinite samples"


def test_long_clips_are_held_few_at_a_time() -> None:
    clips = [(Path(), 0.0, 1.0, samples) for samples in (torch.zeros(70), torch.zeros(30), torch.zeros(90), "gone")]
    assert [len(chunk) for chunk in assign._chunks(clips, most=100)] == [2, 2]
    short = [(Path(), 0.0, 1.0, torch.zeros(1))] * (assign.EVAL_BATCH + 1)
    assert [len(chunk) for chunk in assign._chunks(short, most=10**6)] == [assign.EVAL_BATCH, 1]


def test_undecided_is_a_matter_of_entropy(model: FittedModel, recordings: Path) -> None:
    paths = sorted(recordings.iterdir())[:5]
    found = rows(model, paths)
    entropy = [row.entropy for row in found]
    assert all(value is not None and 0 <= value <= math.log(3) + 1e-6 for value in entropy)
    assert [row.undecided for row in rows(model, paths, undecided_above=0.0)] == [True] * 5
    assert [row.undecided for row in found] == [False] * 5


def test_a_long_recording_is_cut_into_windows(model: FittedModel, recordings: Path, tmp_path: Path) -> None:
    tones = [soundfile.read(recordings / f"{number:02}.wav")[0] for number in range(5)]
    long = tmp_path / "long.wav"
    soundfile.write(long, np.concatenate([*tones, tones[0][: RATE // 4]]), RATE, subtype="PCM_16")
    found = rows(model, [long], window=1.0)
    assert [(row.start, row.end) for row in found] == [(float(n), n + 1.0) for n in range(5)]  # a quarter is too short
    apart = rows(model, [recordings / f"{number:02}.wav" for number in range(5)])
    assert [row.cluster for row in found] == [row.cluster for row in apart]
    assert [row.start for row in rows(model, [long], window=1.0, hop=0.5)] == [0.5 * n for n in range(10)]


def test_a_window_that_the_model_would_not_read_to_its_end_is_refused(model: FittedModel, recordings: Path) -> None:
    with pytest.raises(CatuvacError, match="give --window 1 or less"):
        rows(model, [recordings / "00.wav"], window=2.0)


def test_equal_names_are_numbered_in_time_proportional_to_their_number() -> None:
    taken: dict[Path, int] = {Path("a-2.wav"): 1}
    found = [assign._free(Path("a.wav"), taken=taken).name for _ in range(4)]
    assert found == ["a.wav", "a-3.wav", "a-4.wav", "a-5.wav"]
    assert assign._free(Path("a-2.wav"), taken=taken).name == "a-2-2.wav"


def test_a_training_that_diverged_has_no_clusters(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "run"))
    state = inference.checkpoint.load(copy / "checkpoint.pt")
    inference.checkpoint.save(copy / "checkpoint.pt", state | {"last_report": {"status": "diverged"}})
    with pytest.raises(CatuvacError, match="diverged, so that it has no clusters"):
        inference.load(copy)


class TestFormats:
    def test_csv_json_and_parquet_hold_the_same(self, model: FittedModel, recordings: Path, tmp_path: Path) -> None:
        paths = [recordings / "00.wav", recordings / "a b\nü.wav", recordings / "gone.wav"]
        for format in ("csv", "jsonl", "parquet"):
            assign.write(rows(model, paths), out=tmp_path / format, format=format)  # type: ignore[arg-type]
        with (tmp_path / "csv").open(newline="", encoding="utf-8") as file:
            table = list(csv.DictReader(file))
        lines = [json.loads(line) for line in (tmp_path / "jsonl").read_text(encoding="utf-8").splitlines()]
        stored = pd.read_parquet(tmp_path / "parquet")
        assert [row["path"] for row in table] == [str(path) for path in paths] == stored["path"].tolist()
        assert [row["probability"] for row in lines] == [
            None if math.isnan(value) else value for value in stored["probability"]
        ]
        assert [row["cluster"] for row in table][:2] == [str(line["cluster"]) for line in lines][:2]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["csv", "jsonl", "parquet"]

    def test_a_path_that_is_no_unicode_is_escaped_in_parquet(self, model: FittedModel, tmp_path: Path) -> None:
        assign.write(rows(model, [Path(os.fsdecode(b"\xff.wav"))]), out=tmp_path / "a", format="parquet")
        assert pd.read_parquet(tmp_path / "a")["path"].tolist() == ["\\udcff.wav"]

    def test_label_tracks_and_selection_tables(self, model: FittedModel, recordings: Path, tmp_path: Path) -> None:
        found = rows(model, [recordings / "00.wav"], window=0.5)
        assign.write(found, out=tmp_path / "one.txt", format="audacity")
        track = [line.split("\t") for line in (tmp_path / "one.txt").read_text().splitlines()]
        assert track == [[f"{row.start:.6f}", f"{row.end:.6f}", f"cluster {row.cluster}"] for row in found]
        assign.write(rows(model, [recordings / "00.wav", recordings / "01.wav"]), out=tmp_path / "many", format="raven")
        table = pd.read_csv(tmp_path / "many" / "01.txt", sep="\t")
        assert table[["Selection", "View", "Channel"]].values.tolist() == [[1, "Spectrogram 1", 1]]
        assert table[["Begin Time (s)", "End Time (s)"]].values.tolist() == [[0.0, 1.0]]

    def test_a_format_that_needs_a_file_says_so(self, model: FittedModel, recordings: Path) -> None:
        with pytest.raises(CatuvacError, match="format raven needs --out"):
            assign.write(rows(model, [recordings / "00.wav"]), out=None, format="raven")


def test_recordings_are_sorted_into_an_empty_folder_whatever_it_is_called_and_not_into_one_in_use(
    model: FittedModel, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = rows(model, sorted(recordings.iterdir()))
    monkeypatch.chdir(tmp_path)
    assign.sort_into(found, Path("."), link=False)
    assert len(list(tmp_path.rglob("*.wav"))) == len(found)
    assert not (tmp_path / assign.UNFINISHED).exists()
    (tmp_path / "other" / assign.UNFINISHED).mkdir(parents=True)  # of a process that is at it
    with pytest.raises(CatuvacError, match="not empty"):
        assign.sort_into(found, tmp_path / "other", link=False)
    assert [path.name for path in (tmp_path / "other").rglob("*")] == [assign.UNFINISHED]


@pytest.mark.parametrize("link", [False, True])
def test_recordings_are_sorted_into_folders_with_a_page(
    model: FittedModel, recordings: Path, tmp_path: Path, link: bool
) -> None:
    paths = [*sorted(recordings.iterdir()), recordings / "00.wav"]  # one name twice
    found = rows(model, paths)
    page = assign.sort_into(found, tmp_path / "sorted", link=link)
    files = list((tmp_path / "sorted").rglob("*.wav"))
    assert len(files) == len(paths)
    assert {path.is_symlink() for path in files} == {link}
    assert {path.parent.name for path in files} == {row.label for row in found}
    assert (tmp_path / "sorted" / found[0].label / "00-2.wav").read_bytes() == paths[0].read_bytes()
    assert page.read_text(encoding="utf-8").count("<audio") <= 3 * assign.SHOWN
    with pytest.raises(CatuvacError, match="is not empty"):
        assign.sort_into(found, tmp_path / "sorted", link=link)


def test_a_name_that_is_not_utf_8_is_sorted_too(model: FittedModel, recordings: Path, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff x.wav")
    shutil.copy(recordings / "00.wav", path)
    page = assign.sort_into(rows(model, [path]), tmp_path / "sorted", link=False)
    assert b"/%FF%20x.wav" in page.read_bytes()
    assert [file.name for file in (tmp_path / "sorted").rglob("*.wav")] == [path.name]


def test_names_stay_with_the_model_and_reach_every_row(model: FittedModel, folder: Path, recordings: Path) -> None:
    inference.rename(model, {0: "low", 1: "middle", 2: "high"})
    again = inference.load(folder)
    assert again.names == ("low", "middle", "high")
    (row,) = rows(again, [recordings / "00.wav"])
    assert row.cluster is not None
    assert row.label == again.names[row.cluster]
    assert inference.rename(again, {1: ""}).names == ("low", "", "high")
    with pytest.raises(CatuvacError, match="no cluster 3"):
        inference.rename(again, {3: "x"})
    with pytest.raises(CatuvacError, match="cannot be the name"):
        inference.rename(again, {0: ".."})
    inference.rename(again, {0: "", 1: "", 2: ""})


def test_paths_are_files_folders_and_lines_of_standard_input(tmp_path: Path) -> None:
    (tmp_path / "._x.wav").touch()
    (tmp_path / "x.wav").touch()
    assert assign.expand([str(tmp_path), "y.wav"], stdin=io.BytesIO()) == [tmp_path / "x.wav", Path("y.wav")]
    assert assign.expand(["-"], stdin=io.BytesIO(b"a\nb c\r\n")) == [Path("a"), Path("b c")]
    assert assign.expand(["-"], stdin=io.BytesIO(b"a\nb\0c\0")) == [Path("a\nb"), Path("c")]
    assert assign.expand(["-"], stdin=io.BytesIO(b"\xff.wav\n")) == [Path(os.fsdecode(b"\xff.wav"))]
    for empty in ([], ["-"]):
        with pytest.raises(CatuvacError, match="no recording given"):
            assign.expand(empty, stdin=io.BytesIO())


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("gone", "contains no model"),
        ("gone:²", "contains no model"),
        ("gone:3", "cannot read|no study|no trials|contains no"),
    ],
)
def test_what_is_no_model_is_one_line(spec: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(CatuvacError, match=words):
        inference.load(tmp_path / spec)


def test_the_command_from_another_folder(folder: Path, recordings: Path, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("catuvac")), "assign", str(folder), "-"]
    given = f"{recordings / '00.wav'}\n{tmp_path / 'gone.wav'}\n"
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, cwd=tmp_path)
    table = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [bool(row["reason"]) for row in table] == [False, True]
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == (
        "error: 1 of 2 recordings could not be used, or only in part; their rows state why"
    )


@pytest.mark.parametrize("format", ["audacity", "raven"])
def test_what_label_files_leave_out_is_printed(
    format: str, folder: Path, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone.wav"
    command = ["assign", str(folder), str(recordings / "00.wav"), str(gone), "--format", format]
    assert main([*command, "--out", str(tmp_path / "labels.txt")]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-2:] == [
        f"{gone}: unreadable: No such file or directory",
        "error: 1 of 2 recordings could not be used, or only in part; see above",
    ]


def test_a_folder_in_use_is_refused_before_anything_is_computed(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["assign", "no model", str(recordings), "--copy-to", str(recordings)]) == 2
    assert capsys.readouterr().err == f"error: {recordings} is not empty; give another folder\n"
    with pytest.raises(CatuvacError, match="is not empty"):
        assign.check_empty(recordings / "00.wav")
    assign.check_empty(tmp_path)
    assign.check_empty(tmp_path / "new")


@pytest.mark.parametrize("flags", [["--window", "inf"], ["--window", "1", "--hop", "inf"], ["--window", "-1"]])
def test_windows_have_a_finite_length(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["assign", "no model", "x.wav", *flags]) == 2
    assert f"{flags[-2]} must be finite and not negative" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_one_line(
    folder: Path, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["assign", str(folder), str(recordings / "00.wav"), "--out", str(tmp_path / "file" / "x.csv")]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith(f"error: {tmp_path / 'file'}: ")
