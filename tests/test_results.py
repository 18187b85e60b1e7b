"""The two tables: what is written comes back, whoever writes and whenever they are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from catuvac import results
from catuvac.errors import CatuvacError


def trial(number: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "study": "s",
        "trial_id": f"t{number:03d}",
        "number": number,
        "corpus": "synthetic",
        "method": "cat_uvac",
        "n_clusters": 10,
        "seed": 0,
        "arm": "tpe",
        "status": "complete",
        "objective": 0.5,
        "epochs": 30,
        "wall_seconds": 1.5,
        "config_hash": "abc",
        "revision": None,
        "started_at": "2025-01-01T00:00:00Z",
        **changes,
    }


def evaluation(epoch: int, **changes: Any) -> dict[str, Any]:
    return {"study": "s", "trial_id": "t000", "epoch": epoch, "tau": 1.0, "lr": 1e-3, "loss/total": 2.0, **changes}


def test_a_trial_comes_back_with_its_types_and_nulls(tmp_path: Path) -> None:
    row = trial(**{"config/tau_end": 0.5, "config/tau_schedule": "linear", "val/acc": None, "val/degenerate": False})
    results.append_trial(tmp_path / "new", {**row, "val/dbi_p": np.float32(0.25), "test/chi_p": np.int64(3)})
    frame = results.read_trials(tmp_path / "new")
    assert frame.loc[0, "config/tau_schedule"] == "linear"
    assert frame.loc[0, "val/acc"] is pd.NA
    assert frame.loc[0, "revision"] is pd.NA
    assert frame["val/dbi_p"].dtype == "Float64"
    assert frame.loc[0, "test/chi_p"] == 3.0
    assert frame["val/degenerate"].dtype == "boolean"
    assert frame["number"].dtype == "Int64"


def test_columns_may_come_and_go_between_trials(tmp_path: Path) -> None:
    results.append_trial(tmp_path, trial(0, **{"config/beta": 1, "config/group": None}))
    results.append_trial(tmp_path, trial(1, **{"config/beta": 0.5, "config/group": "speaker", "val/acc": 0.4}))
    frame = results.read_trials(tmp_path)
    assert frame["config/beta"].tolist() == [1.0, 0.5]
    assert frame["config/group"].isna().tolist() == [True, False]
    assert frame["val/acc"].isna().tolist() == [True, False]


def test_appending_a_trial_again_replaces_it(tmp_path: Path) -> None:
    results.append_trial(tmp_path, trial(0, objective=0.1))
    results.append_trial(tmp_path, trial(1))
    results.append_trial(tmp_path, trial(0, objective=0.9))
    frame = results.read_trials(tmp_path).set_index("trial_id")
    assert len(frame) == 2
    assert frame.loc["t000", "objective"] == 0.9


def test_a_trial_that_is_repeated_under_another_id_replaces_its_error(tmp_path: Path) -> None:
    for name, number, status in (("a", 0, "error"), ("b", 1, "complete"), ("c", 1, "complete"), ("d", 0, "complete")):
        results.append_trial(tmp_path, trial(number, trial_id=name, status=status))
    assert results.read_trials(tmp_path)["trial_id"].tolist() == ["b", "c", "d"]


def test_a_resumed_run_replaces_its_epochs_only(tmp_path: Path) -> None:
    results.append_history(tmp_path, [evaluation(epoch, tau=1.0) for epoch in (1, 2, 3)])
    results.append_history(tmp_path, [evaluation(1, trial_id="other")])
    results.append_history(tmp_path, [evaluation(3, tau=0.7), evaluation(4, tau=0.6)])
    frame = results.read_history(tmp_path)
    mine = frame[frame["trial_id"] == "t000"].sort_values("epoch")
    assert mine["tau"].tolist() == [1.0, 1.0, 0.7, 0.6]
    assert len(frame) == 5


def test_no_rows_write_nothing(tmp_path: Path) -> None:
    results.append_history(tmp_path, [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "column"),
    [
        ({"acc": 0.5}, "acc"),
        ({"validation/acc": 0.5}, "validation/acc"),
        ({"val/acc": float("nan")}, "val/acc"),
        ({"val/acc": np.float32("inf")}, "val/acc"),
        ({"objective": float("nan")}, "objective"),
        ({"config/tau_end": float("inf")}, "config/tau_end"),
        ({"val/acc": "high"}, "val/acc"),
        ({"n_clusters": 2.5}, "n_clusters"),
        ({"trial_id": None}, "trial_id"),
        ({"status": "running"}, "status"),
    ],
)
def test_bad_values_are_refused_by_name(tmp_path: Path, changes: dict[str, Any], column: str) -> None:
    results.append_trial(tmp_path, trial(0))
    with pytest.raises(ValueError, match=f"'{column}'"):
        results.append_trial(tmp_path, trial(1, **changes))
    assert len(results.read_trials(tmp_path)) == 1


def test_a_column_keeps_its_kind(tmp_path: Path) -> None:
    results.append_trial(tmp_path, trial(0, **{"config/beta": 0.5}))
    with pytest.raises(ValueError, match="config/beta"):
        results.append_trial(tmp_path, trial(1, **{"config/beta": "low"}))


def test_an_absent_or_damaged_table_gives_one_line(tmp_path: Path) -> None:
    with pytest.raises(CatuvacError, match=r"no trials\.parquet"):
        results.read_trials(tmp_path)
    results.append_trial(tmp_path, trial())
    whole = (tmp_path / results.TRIALS).read_bytes()
    (tmp_path / results.TRIALS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CatuvacError, match="damaged") as caught:
        results.read_trials(tmp_path)
    assert "\n" not in str(caught.value)
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / results.HISTORY)
    with pytest.raises(CatuvacError, match="lacks the column study"):
        results.read_history(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"number": ["a", "b"]}, "contains large_string in the column number"),
        ({"status": ["complete", "lost"]}, "the status 'lost'"),
        ({"trial_id": ["t", None]}, "a null in the column trial_id"),
        ({"trial_id": ["t", "t"]}, "two rows with the same study and trial_id"),
        ({"val/acc": ["high", "low"]}, "contains large_string in the column val/acc"),
        ({"val/acc": [0.5, float("inf")]}, "NaN or infinity in the column val/acc"),
        ({"config/schedule": ["linear", "cosine"], "config/beta": [[1.0], [2.0]]}, "list.* in the column config/beta"),
    ],
)
def test_a_table_that_no_writer_here_leaves_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    pd.DataFrame([trial(0), trial(1)]).assign(**changes).to_parquet(tmp_path / results.TRIALS)
    with pytest.raises(CatuvacError, match=words):
        results.read_trials(tmp_path)


def test_a_table_of_an_earlier_version_without_a_seal_is_read(tmp_path: Path) -> None:
    pd.DataFrame([trial(0)]).to_parquet(tmp_path / results.TRIALS)
    results.append_trial(tmp_path, trial(1))
    assert results.read_trials(tmp_path)["number"].tolist() == [0, 1]


def test_a_flipped_bit_in_the_footer_is_seen(tmp_path: Path) -> None:
    results.append_trial(tmp_path, trial(0, **{"val/acc": 0.5, "val/nmi": 0.25}))
    path = tmp_path / results.TRIALS
    path.write_bytes(path.read_bytes().replace(b"val/acc", b"val/abc"))  # no page holds a column's name
    with pytest.raises(CatuvacError, match="has changed since it was written"):
        results.read_trials(tmp_path)


def test_records_have_none_for_null(tmp_path: Path) -> None:
    results.append_trial(tmp_path, trial(0, status="error", objective=None))
    (row,) = results.records(results.read_trials(tmp_path))
    assert row["objective"] is None
    assert row["revision"] is None
    assert row["number"] == 0
    assert type(row["number"]) is int


def append_many(folder: Path, numbers: range) -> None:
    for number in numbers:
        results.append_trial(folder, trial(number))


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=append_many, args=(tmp_path, range(i, 20, 2))) for i in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(results.read_trials(tmp_path)["number"]) == list(range(20))


def test_a_killed_writer_leaves_a_whole_table_and_no_lock(tmp_path: Path) -> None:
    results.append_trial(tmp_path, trial(0))
    writer = multiprocessing.get_context("fork").Process(target=append_many, args=(tmp_path, range(1, 10_000)))
    writer.start()
    deadline = time.monotonic() + 20
    while len(results.read_trials(tmp_path)) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    before = len(results.read_trials(tmp_path))
    assert before >= 4
    results.append_trial(tmp_path, trial(20_000))
    assert len(results.read_trials(tmp_path)) == before + 1
