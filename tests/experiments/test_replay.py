from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from catuvac import results
from catuvac.cli import main
from catuvac.config import Config
from catuvac.data.store import FeatureSet
from catuvac.evaluation.objectives import OBJECTIVES, scored
from catuvac.experiments.base import columns
from catuvac.training.run import TrainingRun

CONFIGS: dict[int, dict[str, Any]] = {
    0: {"seed": 3},
    1: {"seed": 4, "epochs": 3},
    2: {"lr_start": 1e30, "lr_end": 1e30},
    3: {},
    4: {"method": "uvac"},
    5: {},
}


@pytest.fixture(scope="module")
def recorded(tiny_config: Config, tiny_features: FeatureSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study: 0 complete, 1 stopped after two of three epochs, 2 diverged, 3 an error, 4 of UVAC, 5 of k-means."""
    folder = tmp_path_factory.mktemp("results") / "a"
    for number, settings in CONFIGS.items():
        config = tiny_config.with_settings(settings)
        report: dict[str, Any] = {}
        for report in TrainingRun(config, tiny_features):
            if number == 1 and report["epoch"] == 2:
                break
        report |= scored(report, n_clusters=config.model.n_clusters)
        status = {1: "stopped", 2: "diverged", 3: "error"}.get(number, "complete")
        row = {
            **columns(config),
            **{"study": "a", "trial_id": f"id{number}", "number": number, "arm": "tpe", "status": status},
            "method": "kmeans" if number == 5 else config.model.method,
            "started_at": "2026-01-01T00:00:00+00:00",
            "revision": "abc",
            "threads": 1,  # as its driver gave it; that which resumed the study, two
        }
        if status == "error":
            row["failure"] = "out of memory"
        else:
            row |= {name: value for name, value in report.items() if name.startswith(("val/", "loss/"))}
            row |= {"epochs": report["epoch"], "test/acc": 0.5}
        results.append_trial(folder, row)
    study = {"design": {}, "features": str(tiny_features.path), "cpus_per_trial": 2.0, "gpus_per_trial": 0.0}
    (folder / "study.json").write_text(json.dumps(study))
    return folder


@pytest.fixture
def study(recorded: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(recorded, tmp_path / "a"))


def change(study: Path, number: int, **values: Any) -> None:
    """Alters a trial's row."""
    table = pd.read_parquet(study / "trials.parquet")
    for name, value in values.items():
        table.loc[table["number"] == number, name] = value
    table.to_parquet(study / "trials.parquet", index=False)


def replay(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int | str | None, str, str]:
    """Exit code, or the line that stands for 1, output and errors."""
    code: int | str | None
    try:
        code = main(["replay", *map(str, arguments)])
    except SystemExit as error:
        code = error.code
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.mark.parametrize("trial", ["0", "id0", "1", "2", "4"])
def test_a_trial_gives_the_same_again(recorded: Path, trial: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.get_num_threads()
    code, out, _ = replay(capsys, recorded, trial)
    assert code == 0
    number = int(trial[-1])
    row = pd.read_parquet(recorded / "trials.parquet").set_index("number").loc[number]
    metrics = [name for name in row.index if name.startswith(("val/", "loss/")) and pd.notna(row[name])]
    assert len([name for name in metrics if name.startswith("val/objective_")]) == len(OBJECTIVES)
    assert out == f"trial {trial}: all {len(metrics)} metrics equal\n"
    assert torch.get_num_threads() == before == 1


def test_a_difference_is_shown_and_is_exit_code_1(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elbo = pd.read_parquet(study / "trials.parquet")["val/elbo"][0]
    change(study, 0, **{"val/elbo": elbo * (1 + 1e-6), "val/objective_silhouette_x": 0.75})
    code, out, _ = replay(capsys, study, "0")
    assert isinstance(code, str)  # what Python prints on stderr before it exits with 1
    assert code.startswith("trial 0: 2 of ")
    assert "recorded with revision abc" in code
    assert "\n" not in code
    assert "val/elbo" in out
    assert "val/objective_silhouette_x" in out
    assert "val/acc" not in out
    assert "1.0e-06" in out

    code, out, _ = replay(capsys, study, "0", "--tolerance", "1e-5")
    assert str(code).startswith("trial 0: 1 of ")
    assert "val/elbo" not in out


def test_an_end_that_is_another(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(study, 0, status="diverged")
    code, out, _ = replay(capsys, study, "0")
    assert str(code).startswith("trial 0: 1 of ")
    assert "diverged" in out
    assert "complete" in out


def test_features_that_are_gone_are_prepared_again(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (study / "study.json").read_text()
    (study / "study.json").write_text(json.dumps(json.loads(text) | {"features": str(tmp_path / "gone")}))
    code, out, _ = replay(capsys, study, "0", "--cache-dir", tmp_path / "cache")
    assert (code, "metrics equal" in out) == (0, True)
    assert list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize(
    ("trial", "flags", "words"),
    [
        ("7", [], "has no trial 7; it has 6, with numbers from 0 to 5"),
        ("3", [], "trial 3 ended in an error (out of memory): it has no metrics to compare"),
        ("5", [], "trial 5 is kmeans; only uvac, cat_uvac_paper, cat_uvac can be replayed"),
        ("0", ["--tolerance", "-1"], "--tolerance must not be negative"),
        ("0", ["--device", "tpu"], "'tpu' cannot be used"),
    ],
)
def test_what_cannot_be_replayed(
    recorded: Path, trial: str, flags: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, errors = replay(capsys, recorded, trial, *flags)
    assert code == 2
    assert errors.strip().splitlines()[-1].startswith("error: ")
    assert words in errors


def test_a_study_of_another_version(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(study, 0, **{"config/n_classes": 4})
    code, _, errors = replay(capsys, study, "0")
    assert code == 2
    assert "it is from another version of catuvac; replay it with revision abc" in errors
    change(study, 1, **{"config/temperature": 1.0})
    assert "unknown setting 'temperature'" in replay(capsys, study, "1")[2]
    (study / "study.json").write_text("{}")
    assert "no valid entry 'cpus_per_trial'" in replay(capsys, study, "2")[2]
    (study / "study.json").unlink()
    assert "cannot read" in replay(capsys, study, "2")[2]
