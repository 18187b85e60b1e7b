"""What a dead driver leaves in Optuna's storage, and what the next one makes of it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from catuvac.config import Config
from catuvac.errors import CatuvacError
from catuvac.experiments.base import JOURNAL
from catuvac.experiments.search import Arm, Search, Stage
from catuvac.experiments.search_space import SearchSpace
from catuvac.experiments.trial_queue import STORAGE_VARIABLE, TrialQueue, mend_journal


@pytest.fixture
def study(tmp_path: Path, tiny_config: Config) -> Search:
    made = Search(name="a", storage=tmp_path, config=tiny_config, arms=(Arm("qmc", 4), Arm("tpe", 2)))
    made.folder.mkdir()
    return made


def row(status: str = "complete", objective: float = 0.5) -> dict[str, Any]:
    return {"status": status, "val/objective_invariant_information": objective}


def states(slots: TrialQueue) -> Counter[str]:
    return Counter(trial.state.name for trial in slots.optuna.get_trials())


def run(slots: TrialQueue) -> list[dict[str, Any]]:
    """Asks for and completes all that is left."""
    points = []
    while (point := slots.ask(f"ray{len(points)}-{id(slots)}")) is not None:
        points.append(point)
        slots.tell(f"ray{len(points) - 1}-{id(slots)}", row())
    return points


def test_slots_are_asked_in_order_with_their_designed_points(study: Search) -> None:
    points = run(TrialQueue.create(study))
    assert [(point["number"], point["arm"]) for point in points] == [(i, "qmc" if i < 4 else "tpe") for i in range(6)]
    for point, (_, designed) in zip(points, study.slots(), strict=True):
        assert designed.items() <= point.items()


def test_blocks_survive_and_the_paper_arm_samples_nothing(study: Search) -> None:
    arm = Arm.parse("factorial:tau_start=0.5/2+tau_ratio=0.1/1", seeds=2)
    made = replace(study, name="b", arms=(Arm("paper", 1), arm))
    made.folder.mkdir()
    slots = TrialQueue.create(made)
    slots.ask("ray-lost")  # the driver dies, and the next one asks again
    slots.resume({})
    points = run(slots)
    assert sorted(point["number"] for point in points) == list(range(9))
    by_number = {point["number"]: point for point in points}
    assert by_number[0] == {"number": 0, "arm": "paper"}
    assert [by_number[n]["block"] for n in range(1, 9)] == [0] * 4 + [1] * 4
    designed = [point for _, point in slots.study.slots()][1:]
    assert all(designed[n - 1].items() <= by_number[n].items() for n in range(1, 9))


def test_what_tpe_draws_depends_on_the_number_and_what_was_told_not_on_the_driver(study: Search) -> None:
    other = replace(study, name="b")
    other.folder.mkdir()
    slots = TrialQueue.create(other)
    points = []
    for number in range(6):
        slots = TrialQueue(other)  # another driver for every trial
        point = slots.ask(f"ray{number}")
        assert point is not None
        points.append(point)
        slots.tell(f"ray{number}", row())
    assert points == run(TrialQueue.create(study))


@pytest.mark.parametrize(
    ("status", "state"), [("complete", "COMPLETE"), ("stopped", "PRUNED"), ("diverged", "FAIL"), ("error", "FAIL")]
)
def test_how_a_trial_ended_is_told(status: str, state: str, study: Search) -> None:
    slots = TrialQueue.create(study)
    slots.ask("ray0")
    slots.tell("ray0", row(status))
    slots.tell("ray0", row("complete"))  # an end is final
    assert states(slots) == {state: 1, "WAITING": 5}


def test_an_interrupted_slot_waits_again_with_its_point_and_number(study: Search) -> None:
    slots = TrialQueue.create(study)
    first, second = slots.ask("ray0"), slots.ask("ray1")
    resumed = TrialQueue(study)
    resumed.resume({"ray0": row()})  # the table does not have ray1
    assert states(resumed) == {"COMPLETE": 1, "FAIL": 1, "WAITING": 5}
    points = run(resumed)
    assert second in points
    assert sorted(point["number"] for point in points) == [1, 2, 3, 4, 5]
    assert first not in points
    assert states(resumed) == {"COMPLETE": 6, "FAIL": 1}


@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_designed_point_is_whole_again_after_a_driver_died_while_it_asked(
    written: int, study: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Optuna stores one coordinate after the other."""
    slots, calls = TrialQueue.create(study), 0
    designed = study.slots()[0][1]

    def full(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > written:
            raise OSError(errno.ENOSPC, "No space left on device")
        store(*arguments)

    store = slots.optuna._storage.set_trial_param
    monkeypatch.setattr(slots.optuna._storage, "set_trial_param", full)
    with pytest.raises(OSError, match="No space"):
        slots.ask("ray0")
    resumed = TrialQueue(study)
    resumed.resume({})
    (point,) = (point for point in run(resumed) if point["number"] == 0)
    assert {name: point[name] for name in designed} == designed


def test_a_slot_whose_row_was_written_is_told_and_not_repeated(study: Search) -> None:
    slots = TrialQueue.create(study)
    slots.ask("ray0")
    slots.resume({"ray0": row(objective=0.25)})
    assert slots.optuna.get_trials()[0].values == [0.25]
    assert states(slots) == {"COMPLETE": 1, "WAITING": 5}


def test_a_failed_trial_waits_again(study: Search) -> None:
    slots = TrialQueue.create(study)
    slots.ask("ray0")
    slots.tell("ray0", row("error"))
    slots.resume({})
    assert states(slots) == {"FAIL": 1, "WAITING": 6}


def test_slots_that_were_not_made_are_made_at_the_resumption(study: Search) -> None:
    half = replace(study, arms=(Arm("qmc", 4),))
    TrialQueue.create(half)  # as if the driver had died after the fourth
    slots = TrialQueue.create(study, exist_ok=True)
    assert [trial.user_attrs["number"] for trial in slots.optuna.get_trials()] == list(range(6))


def test_an_extension_waits_behind_what_the_study_has(study: Search) -> None:
    half = replace(study, arms=(Arm("qmc", 4), Arm("tpe", 1)))
    first = run(TrialQueue.create(half))
    arms = (Arm("qmc", 5), Arm("tpe", 1), Arm.parse("factorial:y_estimator=gumbel/exact", seeds=2))
    more = replace(half, arms=arms, space=SearchSpace({"tau_start": (0.1, 9.0)})).continuing(half.stages)
    slots = TrialQueue(more)
    slots.resume({trial.user_attrs["ray_trial"]: row() for trial in slots.optuna.get_trials()})
    added = run(slots)
    assert [point["number"] for point in first + added] == list(range(10))
    assert [point["arm"] for point in added] == ["qmc", *["factorial"] * 4]
    assert [point["y_estimator"] for point in added[1:]] == ["gumbel", "exact"] * 2
    assert [point["block"] for point in added[1:]] == [0, 0, 1, 1]
    assert "y_estimator" not in added[0]
    assert states(slots) == {"COMPLETE": 10}


def test_a_designed_point_is_asked_as_it_is_after_the_space_has_grown(study: Search) -> None:
    TrialQueue.create(replace(study, arms=(Arm("qmc", 4),)))
    arms = (Arm("qmc", 4), Arm("tpe", 1))
    wider = replace(study, arms=arms, space=SearchSpace({"y_estimator": ("gumbel", "exact")}))
    slots = TrialQueue(wider.continuing([Stage((Arm("qmc", 4),), study.space)]))
    slots.resume({})
    points = run(slots)
    assert ["y_estimator" in point for point in points] == [False] * 4 + [True]


def test_a_journal_that_a_full_disk_cut_short_is_mended(study: Search) -> None:
    slots = TrialQueue.create(study)
    point = slots.ask("ray0")
    journal = study.folder / JOURNAL
    whole = journal.read_bytes()
    slots.tell("ray0", row())
    journal.write_bytes(journal.read_bytes()[:-20])  # the end of trial 0 is lost
    mend_journal(study)
    assert journal.read_bytes() == whole
    resumed = TrialQueue(study)
    resumed.resume({"ray0": row()})  # the table has it
    assert point is not None
    assert states(TrialQueue(study))["COMPLETE"] == 1


@pytest.mark.parametrize("number", [0, 2, -1])
def test_a_journal_that_is_damaged_elsewhere_is_refused_and_kept(number: int, study: Search) -> None:
    slots = TrialQueue.create(study)
    slots.ask("ray0")
    journal = study.folder / JOURNAL
    lines = journal.read_bytes().splitlines(keepends=True)
    for damage in (b"\xff{\n", b"\n", lines[number].replace(b"0", b"1", 1)):
        damaged = list(lines)
        damaged[number] = damage
        journal.write_bytes(b"".join(damaged))
        with pytest.raises(CatuvacError, match=r"optuna\.journal is damaged \(line \d+ of"):
            mend_journal(study)
        assert journal.read_bytes() == b"".join(damaged)


def test_a_journal_of_an_earlier_version_goes_on(study: Search) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("catuvac.artifacts.with_sum", dict)
        TrialQueue.create(study).ask("ray0")
    assert b"crc32" not in (study.folder / JOURNAL).read_bytes()
    mend_journal(study)
    assert states(TrialQueue(study)) == {"RUNNING": 1, "WAITING": 5}


def test_several_objectives(study: Search) -> None:
    slots = TrialQueue.create(replace(study, objectives=("invariant_information", "mutual_information")))
    slots.ask("ray0")
    slots.tell("ray0", {**row(), "val/objective_mutual_information": 0.75})
    assert slots.optuna.get_trials()[0].values == [0.5, 0.75]


def test_a_taken_name_and_an_absent_study(study: Search) -> None:
    with pytest.raises(CatuvacError, match="contains no study synthetic-k3-a"):
        TrialQueue(study)
    TrialQueue.create(study)
    with pytest.raises(CatuvacError, match="give another --name"):
        TrialQueue.create(study)


@pytest.mark.parametrize("url", ["postgresql+nodriver://me:secret@127.0.0.1:1/x", "sqlite:////nowhere/x.db", "oops"])
def test_a_storage_that_cannot_be_used_is_one_line_without_its_password(url: str, study: Search) -> None:
    with pytest.raises(CatuvacError, match="cannot use the Optuna storage") as caught:
        TrialQueue.create(replace(study, optuna_url=url))
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """The URL of a real server, started for these tests; skips where Debian's package is absent."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("no PostgreSQL server here: apt-get install postgresql")
    pytest.importorskip("psycopg", reason="pip install 'psycopg[binary]'")
    user = "postgres" if os.getuid() == 0 else None  # the server refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # pytest's own folders are closed to other users
    here = {"PGHOST": str(folder), "PGPORT": "54329", "PATH": os.environ["PATH"], "LC_ALL": "C"}

    def call(name: str, *arguments: str) -> None:
        command = [str(found[-1].parent / name), *arguments]
        subprocess.run(command, check=True, user=user, cwd=folder, env=here, capture_output=True, timeout=60)

    password = folder / "password"
    password.write_text("secret")
    if user:
        for path in (folder, password):
            shutil.chown(path, user)
    call("initdb", "-D", "data", "-U", "catuvac", "--auth=scram-sha-256", "--encoding=UTF8", f"--pwfile={password}")
    options = f"-p 54329 -k {folder} -c listen_addresses=127.0.0.1"
    call("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", options, "start")
    yield "postgresql+psycopg://catuvac:secret@127.0.0.1:54329/postgres"
    call("pg_ctl", "-D", "data", "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.mark.slow
def test_postgresql(postgresql: str, study: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORAGE_VARIABLE, postgresql)
    slots = TrialQueue.create(study)
    slots.ask("ray0")
    resumed = TrialQueue(study)
    resumed.resume({})
    assert sorted(point["number"] for point in run(resumed)) == list(range(6))
    assert states(resumed) == {"COMPLETE": 6, "FAIL": 1}
    assert not (study.folder / "optuna.journal").exists()
    monkeypatch.setenv(STORAGE_VARIABLE, postgresql.replace("secret", "guessed"))
    with pytest.raises(CatuvacError, match="password authentication failed") as caught:
        TrialQueue(study)
    assert "guessed" not in str(caught.value)
