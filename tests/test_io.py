from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from catuvac import io
from catuvac.errors import CatuvacError

# Takes the lock argv[1], says so, and holds it until its input ends.
HOLD = """
import sys
from pathlib import Path
from catuvac import io
with io.locked(Path(sys.argv[1]), waiting="holds it", remove=True):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(lock: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(io.__file__).parents[1])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], text=True, env=environment, **pipes)


def test_a_lock_is_held_by_one_at_a_time_although_it_is_removed(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    first = holder(lock)
    assert first.stdout.readline() == "held\n"
    others = [holder(lock) for _ in range(2)]
    for other in others:
        assert other.stderr.readline() == "waiting for another process that holds it\n"
    assert first.communicate("")[0] == ""
    # One after the other, in whichever order, each on a lock of its own; the second must not wait for our reading.
    time.sleep(0.1)
    assert sum(other.poll() is None for other in others) == 2
    for other in others:
        other.stdin.close()
        other.stdin = None
    for other in others:
        assert other.communicate(timeout=60)[0] == "held\n"
    assert not lock.exists()


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    dead = holder(lock)
    assert dead.stdout.readline() == "held\n"
    dead.kill()
    dead.communicate()
    with io.locked(lock, waiting="is dead"):
        assert lock.exists()


@pytest.mark.parametrize("kind", ["link", "broken link", "pipe"])
def test_a_lock_that_is_no_file_is_refused_and_harms_nothing(tmp_path: Path, kind: str) -> None:
    lock, victim = tmp_path / "lock", tmp_path / "victim"
    if kind == "pipe":
        os.mkfifo(lock)
    else:
        lock.symlink_to(victim)
    if kind == "link":
        victim.write_text("mine")
    with pytest.raises(CatuvacError, match="remove it"), io.locked(lock, waiting="x"):
        pass
    assert (victim.read_text() if kind == "link" else victim.exists()) == ("mine" if kind == "link" else False)


def test_a_new_folder_is_private(tmp_path: Path) -> None:
    io.private_folder(tmp_path / "new" / "cache")
    assert (tmp_path / "new" / "cache").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(("mode", "good"), [(0o755, True), (0o775, False), (0o777, False), (0o1777, True)])
def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path, mode: int, good: bool) -> None:
    tmp_path.chmod(mode)
    try:
        io.private_folder(tmp_path)
    except CatuvacError:
        assert not good
    else:
        assert good


def test_the_home_folder_stands_for_the_tilde_of_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    given = ["prepare", "--data-root=~/x", "--cache-dir=~", "--out=a~b", "--name=~nobody-has-this-name", "~/y", "--k=~"]
    assert io.expand_home(given) == [
        *("prepare", "--data-root=/home/me/x", "--cache-dir=/home/me", "--out=a~b", "--name=~nobody-has-this-name"),
        *("~/y", "--k=/home/me"),
    ]
