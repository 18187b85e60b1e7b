"""Trials in trackers that are really there: an MLflow database, and W&B's files."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import track

from catuvac import results

SCRIPT = Path(__file__).parents[2] / "studies" / "track.py"


def add(folder: Path, number: int, **changes: Any) -> None:
    """A trial with two evaluations."""
    row = {"study": "a-b", "trial_id": f"t{number}", "number": number, "corpus": "fsdd", "method": "cat_uvac"}
    row |= {"n_clusters": 10, "seed": 0, "arm": "qmc", "status": "complete", "objective": 0.5, "epochs": 2}
    row |= {"wall_seconds": 1.5, "config_hash": "abc", "started_at": "2026-01-01T00:00:00+00:00", "revision": "1a2b"}
    row |= {"config/beta": 0.1, "config/views": "scene", "config/beta_marginal": None, "val/ami": 0.4, "test/ami": 0.3}
    results.append_trial(folder, row | changes)
    for epoch in (1, 2):
        evaluation = {"study": "a-b", "trial_id": f"t{number}", "epoch": epoch, "tau": 1.0, "lr": 1e-3}
        results.append_history(folder, [evaluation | {"val/ami": 0.2 * epoch, "val/churn": None}])


def run(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(folder), *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.filterwarnings("ignore:.*noload:DeprecationWarning")  # MLflow's own, of SQLAlchemy
def test_mlflow_has_each_trial_once_below_its_study(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    at = f"sqlite:///{tmp_path}/mlruns.db"
    for number in (0, 1):  # the second time, the first one is there
        add(tmp_path / "a", number)
        done = run(tmp_path / "a", "--at", at)
        assert done.returncode == 0, done.stderr
        assert f"1 of {number + 1} trials" in done.stdout
    client = mlflow.MlflowClient(tracking_uri=at)
    runs = client.search_runs([client.get_experiment_by_name("catuvac").experiment_id])
    (parent,) = (each for each in runs if each.data.tags["catuvac.trial"] == "")
    children = {each.data.tags["catuvac.trial"]: each for each in runs if each is not parent}
    assert set(children) == {"t0", "t1"}
    assert {each.data.tags["mlflow.parentRunId"] for each in children.values()} == {parent.info.run_id}
    trial = children["t0"]
    assert trial.data.params == {"arm": "qmc", "status": "complete", "beta": "0.1", "views": "scene"}
    assert trial.data.metrics["test/ami"] == 0.3
    steps = [(each.step, each.value) for each in client.get_metric_history(trial.info.run_id, "val/ami")]
    assert steps == [(1, 0.2), (2, 0.4)]
    assert trial.info.end_time - trial.info.start_time == 1500


def test_wandb_has_a_run_for_each_trial_once(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    add(tmp_path / "a", 0)
    for new in (1, 0, 1):
        done = run(tmp_path / "a", "--to", "wandb", "--at", str(tmp_path / "w"))
        assert done.returncode == 0, done.stderr
        assert f"{new} of 1 trials" in done.stdout
        (folder,) = (tmp_path / "w" / "wandb").glob("offline-run-*")
        if new == 0:
            (folder / track.EXPORTED).unlink()  # as if the export had been interrupted
    assert folder.name.endswith("-a-b.t0")
    assert b"val/ami" in next(folder.glob("*.wandb")).read_bytes()


@pytest.mark.filterwarnings("ignore:.*noload:DeprecationWarning")
def test_an_error_waits_for_its_repetition(tmp_path: Path, run_script: Callable[..., tuple[int, str, str]]) -> None:
    pytest.importorskip("mlflow")
    flags = [str(tmp_path / "a"), "--at", f"sqlite:///{tmp_path}/mlruns.db"]
    for status, new in (("error", 0), ("complete", 1)):
        add(tmp_path / "a", 0, status=status)
        assert f"{new} of 1 trials" in run_script(track.Track, flags)[1]


def test_a_server_that_does_not_answer_is_one_line(
    tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    add(tmp_path / "a", 0)
    assert "cannot export to mlflow: " in refused(track.Track, [str(tmp_path / "a"), "--at", "http://127.0.0.1:9"])


def test_what_is_no_study_is_one_line(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert len(refused(track.Track, [str(tmp_path / "absent")]).splitlines()) == 1


def test_deepcave_reads_what_varies_and_every_score(
    tmp_path: Path, run_script: Callable[..., tuple[int, str, str]]
) -> None:
    """DeepCAVE 1.4.1 needs Python below 3.11; this is the format that its loader `DataFrameRun` accepts."""
    add(tmp_path / "a", 0, arm="paper")
    for number, (beta, views, status) in enumerate(
        [(0.1, "scene", "complete"), (1.0, "speech", "complete"), (1.0, "scene", "diverged")], 1
    ):
        settings = {"config/beta": beta, "config/views": views, "config/seed": number}
        if number > 1:
            settings["config/channels"] = 8  # the first has the default, which tables omit
        add(tmp_path / "a", number, status=status, **settings)
    code, out, errors = run_script(
        track.Track, [str(tmp_path / "a"), "--to", "deepcave", "--at", str(tmp_path / "out")]
    )
    assert code == 0, errors
    assert "3 of 4 trials" in out
    space = pd.read_csv(tmp_path / "out" / "a-b" / "configspace.csv").set_index("name")
    assert set(space.index) == {"beta", "views", "channels"}  # neither the seed, nor what is the same in all
    assert space.loc["beta", ["type", "lower", "upper", "log"]].tolist() == ["float", 0.1, 1.0, True]
    assert space.loc["views", ["type", "item_0", "item_1"]].tolist() == ["categorical", "scene", "speech"]
    trials = pd.read_csv(tmp_path / "out" / "a-b" / "trials.csv")
    assert trials["config_id"].tolist() == [1, 2, 3]
    assert trials["channels"].tolist() == [16, 8, 8]
    assert trials["status"].tolist() == ["success", "success", "crashed"]
    assert (trials["end_time"] - trials["start_time"]).tolist() == [1.5] * 3
    metrics = [name for name in trials if name.startswith("metric:")]
    assert all(re.fullmatch(r"metric:\w+ \[-inf; \+inf\] \(maximize\)", name) for name in metrics)
    assert trials["metric:ami [-inf; +inf] (maximize)"].tolist() == [0.4] * 3


def test_a_study_whose_name_leads_elsewhere_is_not_exported(tmp_path: Path, refused: Callable[..., str]) -> None:
    add(tmp_path / "a", 0, study="../b")
    errors = refused(track.Track, [str(tmp_path / "a"), "--to", "deepcave", "--at", str(tmp_path / "out")])
    assert "is not a folder name" in errors
    assert not (tmp_path / "b").exists()


def test_a_setting_has_the_type_of_its_values_even_if_all_levels_are_whole() -> None:
    assert track._dimension(pd.Series([1.0, 2.0, 4.0], name="tau_start"))["type"] == "float"
    assert track._dimension(pd.Series([1, 16], name="latent_dim"))["type"] == "integer"
