"""Which Ray a study joins, and who else may use the one that it starts."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from catuvac.errors import CatuvacError
from catuvac.tune import connection

ROOT = Path(__file__).parents[2]
NOBODY = 65534
CONNECT = (
    "import sys; from catuvac.errors import guarded; from catuvac.tune.connection import connect\n"
    "code = guarded(connect)\n"
    "if code: sys.exit(code)\n"
    "import ray; print(ray.get_runtime_context().gcs_address, flush=True); sys.stdin.read()"
)


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Ray's temporary folder, which is empty and has a short path: sockets lie in it."""
    made = Path(tempfile.mkdtemp(prefix="ray"))
    monkeypatch.setenv("RAY_TMPDIR", str(made))
    yield made
    shutil.rmtree(made)


def stranger(path: Path) -> None:
    """Gives a file to another user; skips where only root may."""
    if os.getuid():
        pytest.skip("giving a file to another user needs root")
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:1", "no Ray cluster responds at RAY_ADDRESS 127.0.0.1:1: Connection refused"),
        ("127.0.0.1:99999", "no Ray cluster responds at RAY_ADDRESS"),
        ("no.such.host.invalid:6379", "no Ray cluster responds at RAY_ADDRESS"),
        ("127.0.0.1", "must be HOST:PORT"),
        ("http://127.0.0.1:8265", "must be HOST:PORT"),
        ("ray://me:secret@127.0.0.1:10001", "must be HOST:PORT"),
        ("auto", "no Ray of yours responds"),
    ],
)
def test_an_address_where_no_ray_answers_is_refused_at_once(
    address: str, words: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del folder
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(CatuvacError, match=words) as caught:
        connection.connect()
    assert "secret" not in str(caught.value)


def test_a_head_that_has_stopped_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PROBE_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as listening:  # takes connections, and says nothing
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{listening.getsockname()[1]}")
        with pytest.raises(CatuvacError, match="did not respond within 1 s"):
            connection.connect()


class TestOwnCluster:
    @pytest.fixture
    def note(self, folder: Path) -> Path:
        """Where `ray start` notes its head."""
        (folder / "ray").mkdir()
        return folder / "ray" / "ray_current_cluster"

    def test_none(self, note: Path) -> None:
        assert not note.exists()
        assert connection._own_cluster() == ""

    @pytest.mark.parametrize("text", [b"127.0.0.1:1", b"", b"127.0.0.1", b"\xff\x00", b"http://127.0.0.1:1"])
    def test_a_killed_head_or_a_damaged_note_is_not_followed(
        self, text: bytes, note: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        note.write_bytes(text)
        assert connection._own_cluster() == ""
        assert len(capsys.readouterr().out.splitlines()) == 1

    def test_another_users_is_not_even_tried(self, note: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            note.write_text(f"127.0.0.1:{listening.getsockname()[1]}")
            stranger(note)
            assert connection._own_cluster() == ""
            listening.setblocking(False)
            with pytest.raises(BlockingIOError):
                listening.accept()
        assert "belongs to another user" in capsys.readouterr().out

    def test_a_link_and_a_pipe_are_not_followed(self, note: Path, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").write_text("127.0.0.1:1")
        note.symlink_to(tmp_path / "elsewhere")
        assert connection._own_cluster() == ""
        note.unlink()
        os.mkfifo(note)
        assert connection._own_cluster() == ""


class TestPrivateFolder:
    def test_is_closed_to_others(self, folder: Path) -> None:
        for _ in range(2):
            made = connection.private_folder()
            assert made.parent == folder
            assert made.stat().st_mode & 0o777 == 0o700
            made.chmod(0o777)

    def test_another_users_is_refused(self, folder: Path) -> None:
        made = folder / f"catuvac-{os.getuid()}"
        made.mkdir()
        stranger(made)
        with pytest.raises(CatuvacError, match="not a folder of yours; set RAY_TMPDIR"):
            connection.private_folder()

    def test_a_link_is_refused(self, folder: Path, tmp_path: Path) -> None:
        (folder / f"catuvac-{os.getuid()}").symlink_to(tmp_path)
        mode = tmp_path.stat().st_mode
        with pytest.raises(CatuvacError, match="not a folder of yours; set RAY_TMPDIR"):
            connection.private_folder()
        assert tmp_path.stat().st_mode == mode

    def test_an_absent_place(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RAY_TMPDIR", str(folder / "absent"))
        with pytest.raises(CatuvacError, match="No such file or directory; set RAY_TMPDIR"):
            connection.private_folder()


@pytest.mark.parametrize("address", ["local", "a head"])
@pytest.mark.parametrize("fault", ["empty file", "absent file", "folder", "empty variable"])
def test_a_token_that_is_none_is_one_line(
    fault: str, address: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "token"
    if fault == "empty file":
        path.write_text("\n")
    elif fault == "folder":
        path.mkdir()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    if fault == "empty variable":
        monkeypatch.setenv("RAY_AUTH_TOKEN", "")
    with pytest.raises(CatuvacError, match=r"make_token\.sh") as caught:
        connection._start() if address == "local" else connection._join("127.0.0.1:1")
    assert "\n" not in str(caught.value)


def client(address: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A stranger's `ray status`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    clean |= {"HOME": "/nonexistent", "RAY_USAGE_STATS_ENABLED": "0", **environment}
    command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "status", "--address", address]
    return subprocess.run(command, env=clean, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_a_ray_started_here_lets_nobody_in_without_its_token(folder: Path, tmp_path: Path) -> None:
    here = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    # As an old profile may still have it.
    here |= {"RAY_AUTH_MODE": "disabled", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", CONNECT], env=here, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert connection.ADDRESS.fullmatch(address)
        for strange in ({}, {"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "b" * 64}):
            refused = client(address, **strange)
            assert refused.returncode != 0
            assert "InvalidAuthToken" in refused.stderr, refused.stderr
    finally:
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert not (tmp_path / ".ray").exists()  # a token that lasts, which others may read
    [made] = folder.iterdir()
    assert made.stat().st_mode & 0o777 == 0o700


def status(page: str, token: str = "") -> int | None:
    """What Ray's dashboard answers to whoever shows this token; None where it does not answer yet."""
    request = urllib.request.Request(page, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


@pytest.fixture
def head(folder: Path, tmp_path: Path) -> Iterator[tuple[str, str, dict[str, str]]]:
    """A head with a token: its address, that of its jobs API, and the environment that it was started with."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        port, dashboard = one.getsockname()[1], other.getsockname()[1]
    start = [sys.executable, ROOT / "cluster_configs" / "start_head.py", "--block", f"--port={port}", "--num-cpus=1"]
    start += [f"--dashboard-port={dashboard}", "--dashboard-agent-listen-port=0"]
    start += [f"--temp-dir={folder}/catuvac-{os.getuid()}/{port}"]
    # Ray takes the ports of its workers from a range that it wants for itself, or from none.
    start += ["--min-worker-port=0", "--max-worker-port=0"]
    right = os.environ | {"RAY_AUTH_TOKEN": "right" * 10, "PYTHONPATH": str(ROOT)}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(start, stdout=log, stderr=log, env=right)
    try:
        deadline = time.monotonic() + 120
        while "Ray runtime started" not in (tmp_path / "log").read_text():
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.1)
        yield f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}/api/jobs/", right
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.mark.slow
def test_a_head_is_joined_with_its_token_alone_and_serves_no_ray_client(
    head: tuple[str, str, dict[str, str]], folder: Path
) -> None:
    address, jobs, right = head

    def join(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", CONNECT]
        return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    wrong = join(right | {"RAY_ADDRESS": address, "RAY_AUTH_TOKEN": "wrong" * 10})
    assert wrong.returncode == 2, wrong.stderr
    error = wrong.stderr.strip().splitlines()[-1]
    assert error.startswith(f"error: cannot join Ray at {address}")
    assert "RAY_AUTH_TOKEN_PATH" in error
    assert "wrongwrong" not in wrong.stdout + wrong.stderr
    assert "Traceback" not in wrong.stderr

    bare = {name: value for name, value in right.items() if not name.startswith("RAY_AUTH")}
    for mode in ({}, {"RAY_AUTH_MODE": "disabled"}):
        none = join(bare | mode | {"RAY_ADDRESS": address, "HOME": str(folder)})
        assert none.returncode == 2, none.stderr
        assert "without a token" in none.stderr.strip().splitlines()[-1]

    assert join(right | {"RAY_ADDRESS": address}).returncode == 0
    # Noted in Ray's folder, as by any `ray start` of this user.
    (folder / "ray").mkdir()
    (folder / "ray" / "ray_current_cluster").write_text(address)
    noted = join({name: value for name, value in right.items() if name != "RAY_ADDRESS"})
    assert noted.returncode == 0, noted.stderr
    assert noted.stdout.strip().rpartition(":")[2] == address.rpartition(":")[2]

    deadline = time.monotonic() + 120
    while status(jobs, right["RAY_AUTH_TOKEN"]) != 200:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert status(jobs) == 401
    assert status(jobs, "wrong" * 10) == 403

    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.stat().st_uid == os.getuid()]
    of_this_head = [command for command in commands if f"{folder}/catuvac-".encode() in command]
    assert of_this_head
    assert not [command for command in of_this_head if b"ray.util.client" in command]

    def stopped(port: str) -> str:
        script = ROOT / "cluster_configs" / "stop_head.sh"
        return subprocess.run([script], env=os.environ | {"RAY_PORT": port}, capture_output=True, text=True).stdout

    port = address.rpartition(":")[2]
    assert "no Ray head" in stopped(port + "0")
    assert status(jobs, right["RAY_AUTH_TOKEN"]) == 200
    assert "ended the Ray head" in stopped(port)
    assert status(jobs, right["RAY_AUTH_TOKEN"]) is None
    assert "no Ray head" in stopped(port)
