"""What is kept of a study: enough for its page, and nothing of the machine that it ran on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from record import Record, without_paths

from analysis import report
from catuvac import artifacts, results
from catuvac.experiments.base import DESIGN, PARTITIONS

COMMAND = "python studies/tau_sweep.py --name a --storage /home/me/results --data-root /data/fsdd --arms x=1/2"


def study(folder: Path) -> Path:
    """One trial, and a record of how it was started."""
    row = {"trial_id": "t", "number": 0, "corpus": "fsdd", "method": "cat_uvac", "n_clusters": 10, "seed": 0}
    row |= {"arm": "qmc", "status": "complete", "objective": 0.5, "epochs": 30, "wall_seconds": 1.5}
    row |= {"study": folder.name, "config_hash": "abc", "started_at": "2026-01-01T00:00:00Z", "val/ami": 0.4}
    results.append_trial(folder, row)
    design = {"arms": ["qmc:1"], "warm_start": "/home/me/results/older"}
    stages = [{"at": "2026-01-01", "arms": ["qmc:1"], "command": COMMAND}]
    places = {"features": "/home/me/cache/1", "features_by_hash": {"abc": "/home/me/cache/1"}}
    artifacts.write_json(
        folder / DESIGN, {"design": design, **places, "command": COMMAND, "machine": "2 cores", "stages": stages}
    )
    return folder


def test_a_recorded_study_has_its_tables_and_no_path(
    tmp_path: Path, run_script: Callable[..., tuple[int, str, str]]
) -> None:
    original, kept = study(tmp_path / "a"), tmp_path / "recorded" / "a"
    for _ in range(2):  # the second replaces the first
        code, _, errors = run_script(Record, [str(original), "--out", str(tmp_path / "recorded")])
        assert code == 0, errors
    assert {path.name for path in kept.iterdir()} == {DESIGN, results.TRIALS}
    assert (kept / results.TRIALS).read_bytes() == (original / results.TRIALS).read_bytes()
    text = (kept / DESIGN).read_text()
    assert "/home" not in text
    assert "/data/" not in text
    found = artifacts.read_json(kept / DESIGN, {})
    shown = "python studies/tau_sweep.py --name a --data-root fsdd --arms x=1/2"
    assert found["command"] == found["stages"][0]["command"] == shown
    assert found["design"]["warm_start"] == "older"
    report.build(kept, out=tmp_path / "page", figures="none")
    run = json.loads((tmp_path / "page" / "answer.json").read_text())["run"]
    assert run["commands"] == {"a": shown}
    assert run["machines"] == {"a": "2 cores"}
    assert {path.name for path in kept.iterdir()} == {DESIGN, results.TRIALS}


def test_the_working_folder_is_recorded_under_its_name(
    tmp_path: Path, run_script: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "recorded"
    (out / "other").mkdir(parents=True)
    monkeypatch.chdir(study(tmp_path / "a"))
    code, _, errors = run_script(Record, [".", "--out", str(out)])
    assert code == 0, errors
    assert sorted(path.name for path in out.iterdir()) == ["a", "other"]


def test_values_behind_equals_signs_are_paths_too() -> None:
    record = without_paths({"command": "python x.py --storage=/home/me/results --data-root=/home/me/fsdd --arms=a:b=1"})
    assert record["command"] == "python x.py --data-root fsdd --arms a:b=1"


def test_what_is_no_study_or_too_large_for_a_repository_is_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    large = study(tmp_path / "a") / PARTITIONS / "t.npz"
    large.parent.mkdir()
    large.write_bytes(bytes(1 << 21))
    for folder in (tmp_path / "a", tmp_path / "absent"):
        assert len(refused(Record, [str(folder), "--out", str(tmp_path / "recorded")]).splitlines()) == 1
    assert not (tmp_path / "recorded").exists()
