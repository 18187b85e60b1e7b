from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from catuvac import artifacts, io, results
from catuvac.cli import main
from catuvac.config import Config
from catuvac.errors import guarded
from catuvac.training import checkpoint, run_dir

TINY = [
    *("--n-classes", "3", "--clips-per-class", "16", "--n-bands", "16", "--n-clusters", "3", "--latent-dim", "2"),
    *("--batch-size", "8", "--eval-every", "1", "--val-fraction", "0.25", "--test-fraction", "0.25"),
]


@pytest.fixture
def train(cache_dir: Path) -> list[str]:
    return ["train", "--threads", "1", "--workers", "1", "--cache-dir", str(cache_dir), *TINY]


def test_help_is_fast_and_imports_no_torch() -> None:
    code = "import sys, catuvac.cli as c\ntry: c.main(['--help'])\nfinally: print([m for m in sys.modules if m in B])"
    heavy = "B = ('ray', 'torch', 'pandas', 'sklearn', 'matplotlib', 'onnx', 'onnxruntime')\n"
    done = subprocess.run([sys.executable, "-c", heavy + code], capture_output=True, text=True, check=False)
    assert "prepare" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_states_units_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "--preset", "fsdd", "--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Hz; recordings are resampled to this rate (default: 8000)" in text
    assert "--tau-start" in text


def test_datasets_lists_every_corpus(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["datasets"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("synthetic", "fsdd", "urbansound8k", "folder"))


@pytest.mark.parametrize(("columns", "command"), [("1", "--help"), ("1", "datasets"), ("20", "datasets")])
def test_a_narrow_terminal_shows_every_word(columns: str, command: str) -> None:
    code = "import sys; from catuvac.cli import main; sys.exit(main())"
    environment = os.environ | {"COLUMNS": columns}
    done = subprocess.run(
        [sys.executable, "-c", code, command], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    words = ("prepare", "replay") if command == "--help" else ("synthetic", "fsdd", "folder")
    assert all(word in done.stdout for word in words)
    assert "…" not in done.stdout


def test_train_then_evaluate(train: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a"
    assert main([*train, "--epochs", "2", "--out", str(out)]) == 0
    assert run_dir.config(out).training.epochs == 2
    assert results.read_history(out)["epoch"].tolist() == [1, 2]
    assert json.loads((out / "metrics.json").read_text())["status"] == "complete"
    capsys.readouterr()

    assert main(["evaluate", str(out), "--split", "test", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert set(scores) == {"Cat. UVAC", "k-means"}
    assert 0 <= scores["Cat. UVAC"]["acc"] <= 1
    assert scores["k-means"]["silhouette_x"] > 0
    assert scores["k-means"]["silhouette_p"] is None
    assert main(["evaluate", str(out)]) == 0
    assert "silhouette_p" in capsys.readouterr().out

    for again, words in (([], "already contains a run"), (["--resume", "--beta", "0.5"], "beta")):
        assert main([*train, "--epochs", "2", "--out", str(out), *again]) == 2
        assert words in capsys.readouterr().err
    assert main([*train, "--epochs", "2", "--out", str(out), "--resume"]) == 0  # nothing left to do


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_same_weights(train: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; from catuvac.cli import main; sys.exit(main())", *train]
    command += ["--epochs", "12"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*command, "--out", str(whole)], check=True, capture_output=True)

    epoch = int(np.random.default_rng().integers(1, 10))  # any epoch must do, so each run tries another
    process = subprocess.Popen([*command, "--out", str(killed)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (killed / "history.parquet").exists() or len(results.read_history(killed)) < epoch:
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "weights.pt").exists()
    subprocess.run([*command, "--out", str(killed), "--resume"], check=True, capture_output=True)

    first, second = (checkpoint.load(folder / "weights.pt") for folder in (whole, killed))
    assert all(torch.equal(first[name], second[name]) for name in first), f"killed after epoch {epoch}"
    histories = [results.read_history(folder).drop(columns="study") for folder in (whole, killed)]
    assert histories[0].equals(histories[1].sort_values("epoch", ignore_index=True))


@pytest.fixture(scope="module")
def trained_run(cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `catuvac train` has left."""
    out = tmp_path_factory.mktemp("runs") / "run"
    flags = ["--threads", "1", "--workers", "1", "--cache-dir", str(cache_dir), *TINY, "--epochs", "2"]
    assert main(["train", *flags, "--out", str(out)]) == 0
    return out


def changed(path: Path, change: dict[str, object]) -> None:
    checkpoint.save(path, {**checkpoint.load(path), **change})


STATES = {  # of a checkpoint that cannot be gone on from
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "no state": lambda path: torch.save([1], path),
    "another version": lambda path: changed(path, {"format": 99}),
    "other settings": lambda path: changed(path, {"config_hash": "x"}),
    "another model": lambda path: changed(path, {"model": {}}),
    "half a state": lambda path: torch.save({k: v for k, v in checkpoint.load(path).items() if k != "order"}, path),
}


@pytest.mark.parametrize("state", STATES)
def test_a_checkpoint_that_is_no_good_is_one_line(
    state: str, train: list[str], trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained_run, folder)
    STATES[state](folder / "checkpoint.pt")
    assert main([*train, "--epochs", "2", "--out", str(folder), "--resume"]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "checkpoint.pt" in last
    assert "delete it to train from the start" in last
    (folder / "checkpoint.pt").unlink()
    assert main([*train, "--epochs", "2", "--out", str(folder), "--resume"]) == 0  # what the line says to do


@pytest.mark.parametrize(
    ("name", "words"), [("config.yaml", "UTF-8"), ("run.json", "prepared again"), ("weights.pt", "write it again")]
)
def test_a_damaged_file_of_a_run_is_one_line(
    name: str, words: str, trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained_run, folder)
    (folder / name).write_bytes(b"\xff{")
    assert main(["evaluate", str(folder)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert str(folder / name) in line
    assert words in line


def test_a_run_without_its_record_is_scored_on_features_prepared_again(
    trained_run: Path, cache_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "[/b] {x} :x:"
    shutil.copytree(trained_run, folder)
    (folder / "run.json").unlink()
    assert main(["evaluate", str(folder), "--cache-dir", str(cache_dir)]) == 0


def test_one_training_at_a_time_in_a_folder(
    train: list[str], trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained_run, folder)
    (folder / ".checkpoint.pt.99999999").write_bytes(b"of a killed training")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with io.exclusive(folder / artifacts.LOCK, busy="?"):
        assert main([*train, "--epochs", "2", "--out", str(folder), "--resume"]) == 2
    assert "another process is training in" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert main([*train, "--epochs", "2", "--out", str(folder), "--resume"]) == 0
    assert not (folder / ".checkpoint.pt.99999999").exists()


@pytest.mark.slow
def test_of_two_trainings_into_one_folder_one_is_refused(train: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; from catuvac.cli import main; sys.exit(main())", *train]
    out = tmp_path / "run"
    both = [
        subprocess.Popen([*command, "--epochs", "12", "--seed", seed, "--out", str(out)], stderr=subprocess.PIPE)
        for seed in ("1", "2")
    ]
    codes = []
    for process in both:
        process.communicate()
        codes.append(process.returncode)
    assert sorted(codes) == [0, 2]
    seed = str(codes.index(0) + 1)
    assert str(run_dir.config(out).training.seed) == seed
    assert checkpoint.load(out / "checkpoint.pt")["config_hash"] == run_dir.config(out).hash()


def test_a_full_disk_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fill() -> None:
        Path("/dev/full").write_text("more than fits")

    assert guarded(fill) == 2
    assert "No space left on device; free some space" in capsys.readouterr().err


def test_messages_move_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "a\x1b[2Jb\nc\udcff"]) == 2
    assert capsys.readouterr().err == (
        "error: no folder a\\x1b[2Jb\\nc\\udcff; give the results folder of a study, such as results/NAME\n"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--preset", "fsd"], "did you mean 'fsdd'"),
        (["train", "--preset", "fsdd"], "give --data-root"),
        (["train", "--preset", "fsdd", "--data-root", "absent"], "absent"),
        (["train", "--preset", "folder", "--data-root", ".", "--pattern", "(a)"], "has no named group"),
        (["train", "--preset", "folder", "--data-root", ".", "--table", "absent.csv"], "absent.csv: give --table its"),
        (["train", "--preset", "speech_commands", "--data-root", ".", "--words", "yess"], "did you mean 'yes'"),
        (["train", "--config", "absent.yaml"], "cannot read absent.yaml"),
        (["train", "--tau-start", "-1"], "tau_start must be positive"),
        (["train", "--n-clusters", "500", *TINY[:4]], "500"),
        (["train", "--device", "tpu", *TINY], "'tpu' cannot be used"),
        (["evaluate", "absent"], "contains no run"),
        (["report", "absent"], "absent"),
        (["report"], "no folder given"),
        (["watch", "absent"], "absent contains no study"),
        (["name", "absent", "²=rain"], "must have the form CLUSTER=NAME"),
        (["replay", "absent", "0"], "absent"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], words: str, cache_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if arguments[0] == "train":
        arguments = [*arguments, "--out", str(tmp_path / "run"), "--cache-dir", str(cache_dir), "--workers", "1"]
    assert main(arguments) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert words in last
    assert not (tmp_path / "run").exists()


def train_on_recordings(tmp_path: Path) -> list[str]:
    """Writes tones and one broken file to a folder, and returns the command that trains on them in `tmp_path/run`."""
    rng = np.random.default_rng(0)
    for number in range(24):
        tone = np.sin(2 * np.pi * (300 + 1500 * (number % 2)) * np.arange(8000) / 8000)
        noisy = 0.3 * tone + 0.01 * rng.normal(size=8000)
        soundfile.write(tmp_path / f"{number:02}.wav", noisy.astype(np.float32), 8000)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    arguments = ["train", "--preset", "folder", "--data-root", str(tmp_path), "--out", str(tmp_path / "run")]
    arguments += ["--cache-dir", str(tmp_path / "cache"), "--threads", "1", "--workers", "1"]
    arguments += ["--clip-seconds", "1", "--val-fraction", "0.25", "--test-fraction", "0.25"]
    return [*arguments, "--n-clusters", "2", "--batch-size", "4", "--epochs", "1"]


def test_a_run_keeps_its_recordings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, out = train_on_recordings(tmp_path), tmp_path / "run"
    evaluate = ["evaluate", str(out), "--data-root", str(tmp_path), "--cache-dir", str(tmp_path / "cache")]
    assert main(arguments) == 0
    entries = set((tmp_path / "cache").iterdir())
    shutil.copy(tmp_path / "00.wav", tmp_path / "new.wav")
    assert main([*arguments, "--resume"]) == 0
    assert main(evaluate) == 0
    assert set((tmp_path / "cache").iterdir()) == entries  # the recorded features are in it

    shutil.rmtree(tmp_path / "cache")
    for command in ([*arguments, "--resume"], evaluate):
        capsys.readouterr()
        assert main(command) == 2
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert last.startswith("error: the recordings, or how their features are extracted, have changed since")
    (tmp_path / "new.wav").unlink()
    assert main([*arguments, "--resume"]) == 0
    assert main(evaluate) == 0


def test_a_folder_of_recordings_without_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(train_on_recordings(tmp_path)) == 0
    assert "broken.wav" in capsys.readouterr().err
    scores = json.loads((out / "metrics.json").read_text())
    assert "val/acc" not in scores
    assert scores["val/clusters_used"] >= 1
    assert run_dir.config(out) != Config()
