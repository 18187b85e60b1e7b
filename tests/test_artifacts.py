"""What is written comes back or is refused in a line, whatever has happened to the file in between."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_results import evaluation, trial

from analysis.questions.branches import read_partitions
from catuvac import artifacts, io, results
from catuvac.config import Config, load_yaml
from catuvac.errors import CatuvacError
from catuvac.experiments.base import JOURNAL, PARTITIONS
from catuvac.experiments.search import Arm, Search
from catuvac.experiments.trial_queue import SummedJournal, mend_journal
from catuvac.training import checkpoint
from catuvac.tune.results_callback import EVALUATIONS, ResultsCallback

STATE = {"epoch": 3, "model": {"w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}, "reports": [{"val/acc": 0.5}]}
LOGS = [{"op_code": 4, "worker_id": "w", "study_id": 0, "params": {"tau": 0.5 + i / 7}} for i in range(6)]
ROWS = [{"study": "a", "trial_id": "t", "epoch": epoch, "tau": 1 / epoch, "val/acc": 0.25} for epoch in (1, 2, 3)]

Read = Callable[[], Any]


def study_in(folder: Path) -> Search:
    return Search(name="a", storage=folder, config=Config(), arms=(Arm("random", 1),))


def state(path: Path) -> Any:
    loaded = checkpoint.load(path)
    return {**loaded, "model": {name: tensor.tolist() for name, tensor in loaded["model"].items()}}


def known(record: dict[str, Any], like: dict[str, Any]) -> dict[str, Any]:
    """What a reader makes of a record: the entries that it looks for."""
    return {name: record[name] for name in like}


def logs(folder: Path) -> list[dict[str, Any]]:
    """A journal as the driver that resumes a study reads it."""
    mend_journal(study_in(folder))
    found = list(SummedJournal(str(folder / "a" / JOURNAL)).read_logs(0))
    return [known(log, LOGS[0]) for log in found]


def evaluations(folder: Path) -> list[dict[str, Any]]:
    return ResultsCallback(study_in(folder), {}, None)._evaluations(0, "t", None)


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Read]]:
    """Of each kind that a command reads back, a file and how it is read."""
    folder = tmp_path_factory.mktemp("artefacts")
    (folder / "a" / "trial-0000-x").mkdir(parents=True)
    checkpoint.save(folder / "checkpoint.pt", STATE)
    artifacts.write_yaml(folder / "config.yaml", Config().to_yaml())
    results.append_trial(folder, trial(0, **{"config/tau_end": 0.5, "config/tau_schedule": "linear"}))
    results.append_trial(folder, trial(1, status="error", objective=None, failure="out of memory"))
    results.append_history(folder, [evaluation(epoch) for epoch in (1, 2, 3)])
    SummedJournal(str(folder / "a" / JOURNAL)).append_logs(LOGS)
    lines = "".join(f"\n{json.dumps(artifacts.with_sum(row))}\n" for row in ROWS)
    (folder / "a" / "trial-0000-x" / EVALUATIONS).write_text(lines)
    (folder / "b" / PARTITIONS).mkdir(parents=True)
    clusters = folder / "b" / PARTITIONS / "t.npz"
    np.savez(clusters, clusters=np.arange(24).reshape(2, 12) % 5)
    record = {"features": "/cache/1", "command": ["train"], "revision": None}
    artifacts.write_json(folder / "run.json", record)
    kinds = {"features": str}
    return {
        "checkpoint": (folder / "checkpoint.pt", lambda: state(folder / "checkpoint.pt")),
        "record": (folder / "run.json", lambda: known(artifacts.read_json(folder / "run.json", kinds), record)),
        "settings": (folder / "config.yaml", lambda: load_yaml(folder / "config.yaml").hash()),
        "trials": (folder / "trials.parquet", lambda: results.records(results.read_trials(folder))),
        "history": (folder / "history.parquet", lambda: results.records(results.read_history(folder))),
        "journal": (folder / "a" / JOURNAL, lambda: logs(folder)),
        "evaluations": (folder / "a" / "trial-0000-x" / EVALUATIONS, lambda: evaluations(folder)),
        "partitions": (clusters, lambda: read_partitions(folder / "b")["b", "t"].tolist()),
    }


# Files that grow line by line: what is left of them is part of what was written, and nothing else.
GROWING = ("journal", "evaluations")


def check(name: str, artefacts: dict[str, tuple[Path, Read]], damage: Callable[[bytes], bytes]) -> None:
    path, read = artefacts[name]
    whole, expected = path.read_bytes(), read()
    found = refused = None
    try:
        path.write_bytes(damage(whole))
        found = read()
    except CatuvacError as error:
        refused = str(error)
    finally:
        path.write_bytes(whole)
        artifacts.remove_leftovers(path.parent)
    if refused is not None:
        assert str(path) in refused
        assert "\n" not in refused
    elif name == "journal":
        assert found == expected[: len(found)]  # a lost line in the middle would renumber all later ones
    elif name == "evaluations":
        assert all(row in expected for row in found)
    else:
        assert found == expected


KINDS = ("checkpoint", "record", "settings", "trials", "history", "journal", "evaluations", "partitions")


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_does_not_matter(
    name: str, where: float, bit: int, artefacts: dict[str, tuple[Path, Read]]
) -> None:
    def flip(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[int(where * len(data))] ^= 1 << bit
        return bytes(changed)

    check(name, artefacts, flip)


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_beginning_of_a_file_is_refused_or_used_as_far_as_it_goes(
    name: str, share: float, artefacts: dict[str, tuple[Path, Read]]
) -> None:
    check(name, artefacts, lambda data: data[: int(share * len(data))])


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"\xff{", b"[" * 100_000, b'{"a": 1}', b"PK\3\4", b"PAR1PAR1"])
def test_other_content_is_one_line_or_adds_nothing(
    name: str, content: bytes, artefacts: dict[str, tuple[Path, Read]]
) -> None:
    path, read = artefacts[name]
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        if name in GROWING:
            assert read() == []
        else:
            with pytest.raises(CatuvacError) as caught:
                read()
            assert str(path) in str(caught.value)
            assert "\n" not in str(caught.value)
    finally:
        path.write_bytes(whole)


def test_a_seal_is_checked_and_its_absence_is_not(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    artifacts.write_json(path, {"margin": 0.03})
    sealed = path.read_text()
    assert artifacts.read_json(path, {"margin": float})["margin"] == 0.03
    path.write_text(sealed.replace("0.03", "0.08"))
    with pytest.raises(CatuvacError, match="has changed since it was written"):
        artifacts.read_json(path, {})
    path.write_text(json.dumps({"margin": 0.08}))  # by hand, or by an earlier version
    assert artifacts.read_json(path, {})["margin"] == 0.08
    with pytest.raises(CatuvacError, match="no valid entry 'margin'"):
        artifacts.read_json(path, {"margin": str})
    with pytest.raises(ValueError, match="no place for a seal"):
        artifacts.seal(b"nothing")


def test_writing_follows_no_link_and_leaves_the_old_file_where_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    io.write(path, b"old")
    with pytest.raises(OSError, match=r"a\.json/b\.json"):
        io.write(path / "b.json", b"new")
    monkeypatch.setattr(io.secrets, "token_hex", lambda _: "0" * 8)
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / f".a.json.{os.getpid()}.00000000.tmp").symlink_to(victim)
    with pytest.raises(FileExistsError):
        io.write(path, b"new")
    assert (path.read_bytes(), victim.read_text()) == (b"old", "mine")


def test_leftovers_of_killed_writers_go_and_other_files_stay(tmp_path: Path) -> None:
    leftovers = (".checkpoint.pt.99999999", ".config.yaml.88888888.0a1b2c3d.tmp")
    others = (
        f".report.html.{os.getppid()}.ffffffff.tmp",
        "checkpoint.pt",
        ".lock",
        ".gitignore",
        ".trials.lock",
        "notes.pt.12",
        ".notes.12",
    )
    for name in (*leftovers, *others):
        (tmp_path / name).touch()
    artifacts.remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(others)
    artifacts.remove_leftovers(tmp_path / "absent")


def hold(path: Path, held: Any, release: Any) -> None:
    with io.exclusive(path, busy=""):
        held.set()
        release.wait(60)


def test_one_process_holds_a_lock_and_its_end_frees_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(tmp_path / ".lock", held, release))
    holder.start()
    assert held.wait(60)
    lock = io.exclusive(tmp_path / ".lock", busy="somebody is here")
    with pytest.raises(CatuvacError, match="somebody is here"), lock:
        pass
    holder.kill()
    holder.join()
    with io.exclusive(tmp_path / ".lock", busy="", wait=10):
        pass


def test_a_planted_link_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / ".lock").symlink_to(tmp_path / "victim")
    with pytest.raises(CatuvacError, match="is a link"), io.exclusive(tmp_path / ".lock", busy=""):
        pass
    assert (tmp_path / "victim").read_text() == "mine"
