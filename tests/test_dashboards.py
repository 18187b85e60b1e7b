"""The real TensorBoard and the real Optuna dashboard, on whatever ports are free."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from tensorboardX import SummaryWriter

from catuvac import dashboards, serve
from catuvac.cli import main
from catuvac.errors import CatuvacError

# A test that a shell started with & ignores Ctrl-C, and so would its children.
CATUVAC = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from catuvac.cli import main; "


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study's folder with one trial in TensorBoard events and one in an Optuna journal."""
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "study.json").write_text("{}")
    with SummaryWriter(str(folder / "trial-0000-abc")) as writer:
        writer.add_scalar("val/acc", 0.5, 1)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "optuna.journal")))
    made = optuna.create_study(study_name="synthetic-k5-a", storage=storage)
    made.add_trial(optuna.create_trial(value=0.5))
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def watching(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """A running `catuvac watch` and what it printed: name → address or reason."""
    command = [sys.executable, "-c", CATUVAC + "sys.exit(main())", "watch", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    try:
        assert process.stdout is not None
        printed = []
        while not printed or not printed[-1].startswith("Ctrl-C"):
            printed.append(process.stdout.readline())
            assert printed[-1], process.communicate()[1]
        yield process, dict(re.split(r"\s+", line.strip(), maxsplit=1) for line in printed[:-1])  # type: ignore[misc]
    finally:
        process.terminate()  # not kill: its servers would live on
        process.communicate(timeout=20)


def get(address: str, path: str = "") -> str:
    """A page as a browser gets it that was given the printed address first."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor())
    with opener.open(address, timeout=10) as first:
        assert "secret" not in first.url  # what the browser shows and remembers
    with opener.open(address.partition("?")[0] + path, timeout=10) as answer:
        return str(answer.read().decode())


def status(address: str, *, method: str = "GET", cookie: str = "", host: str = "") -> int:
    """What a stranger's request gets, or with a cookie the user's."""
    headers = {name: value for name, value in (("Cookie", cookie), ("Host", host)) if value}
    request = urllib.request.Request(address, method=method, headers=headers)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def parts(address: str) -> tuple[str, int, str]:
    """Of a printed address: the page without its secret, the port, and the cookie that shows the secret."""
    match = re.fullmatch(r"(http://127\.0\.0\.1:(\d+)/)\?secret=([\w-]{43})", address)
    assert match, address
    return match[1], int(match[2]), serve.cookie(int(match[2]), match[3])


def children(pid: int) -> list[int]:
    """Every process below one, however deep, from /proc."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found = [pid]
    for parent in found:
        found += [child for child, of in parents.items() if of == parent]
    return found[1:]


def command_lines(pids: list[int]) -> str:
    return "\n".join(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() for pid in pids)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are counted in /proc: Linux has it")
class TestServers:
    def test_both_show_the_study_and_end_with_it(self, study: Path) -> None:
        ports = free_port(), free_port()
        flags = ["--tensorboard-port", str(ports[0]), "--optuna-port", str(ports[1])]
        with watching(str(study), *flags) as (process, said):
            assert tuple(parts(said[name])[1] for name in ("TensorBoard", "Optuna")) == ports
            assert "127.0.0.1:8265" in said["Ray"]
            assert json.loads(get(said["TensorBoard"], "data/runs")) == ["trial-0000-abc"]
            assert "val/acc" in get(said["TensorBoard"], "data/plugin/scalars/tags")
            studies = json.loads(get(said["Optuna"], "api/studies"))["study_summaries"]
            assert [found["study_name"] for found in studies] == ["synthetic-k5-a"]
            assert "<html" in get(said["Optuna"], "dashboard/").lower()

            below = children(process.pid)
            assert len(below) >= 2
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
            assert (process.returncode, errors) == (130, "interrupted; the files on disk are complete\n")
            assert [pid for pid in below if Path(f"/proc/{pid}").exists()] == []

    def test_strangers_see_nothing_and_nobody_writes(self, study: Path) -> None:
        journal = (study / "optuna.journal").read_bytes()
        flags = ["--tensorboard-port", str(free_port()), "--optuna-port", str(free_port())]
        with watching(str(study), *flags) as (process, said):
            for name, path in (("TensorBoard", "data/runs"), ("Optuna", "api/studies"), ("Optuna", "dashboard/")):
                page, port, cookie = parts(said[name])
                assert status(page + path, cookie=cookie) == 200
                assert status(page + path, cookie=cookie, host=f"localhost:{port + 1}") == 200  # through a tunnel
                assert status(page + path) == 403
                assert status(page + path, cookie=cookie[:-1]) == 403
                assert status(page + path + "?secret=guessed") == 403
                assert status(page + path, cookie=cookie, host=f"evil.example:{port}") == 403  # a name rebound to here
                assert cookie.partition("=")[2] not in command_lines(children(process.pid))
            page, _, cookie = parts(said["Optuna"])
            for method in ("DELETE", "PUT", "POST", "PATCH"):
                assert status(page + "api/studies/0", method=method) == 403
                assert status(page + "api/studies/0", method=method, cookie=cookie) == 405
            page, _, cookie = parts(said["TensorBoard"])
            assert status(page + "data/runs", method="DELETE", cookie=cookie) == 405
            # No other server beside these two, such as TensorBoard's fast reader, which would ask for nothing.
            assert len(children(process.pid)) == 2
        assert (study / "optuna.journal").read_bytes() == journal

    @pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
    def test_a_closed_terminal_leaves_no_server(self, study: Path, ending: signal.Signals) -> None:
        with watching(str(study), "--tensorboard-port", str(free_port()), "--optuna-port", str(free_port())) as (
            process,
            _,
        ):
            below = children(process.pid)
            process.send_signal(ending)
            process.communicate(timeout=20)
            assert [pid for pid in below if Path(f"/proc/{pid}").exists()] == []

    def test_a_server_that_dies_ends_the_other(self, study: Path) -> None:
        with watching(str(study), "--tensorboard-port", str(free_port()), "--optuna-port", str(free_port())) as (
            process,
            _,
        ):
            below = children(process.pid)
            dashboard = below[-1]  # the one that was started last
            assert "catuvac.serve" in command_lines([dashboard])
            os.kill(dashboard, signal.SIGKILL)
            _, errors = process.communicate(timeout=20)
            assert process.returncode == 2
            assert errors.startswith("error: Optuna ended with code -9: ")
            assert [pid for pid in below if Path(f"/proc/{pid}").exists()] == []

    def test_a_database_whose_url_no_command_line_shows(self, study: Path, tmp_path: Path) -> None:
        (study / "optuna.journal").unlink()
        url = f"sqlite:///{tmp_path}/hidden.db"
        optuna.create_study(study_name="in a database", storage=url)
        with watching(
            *(str(study), "--tensorboard-port", str(free_port()), "--optuna-port", str(free_port())),
            CATUVAC_OPTUNA_STORAGE=url,
        ) as (process, said):
            assert "in a database" in get(said["Optuna"], "api/studies")
            assert "hidden" not in command_lines(children(process.pid))

    def test_a_comparison_has_tensorboard_alone_on_the_next_free_port(self, study: Path) -> None:
        (study / "optuna.journal").unlink()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with watching(str(study), "--tensorboard-port", str(port)) as (process, said):
                assert said["Optuna"].startswith("none: no optuna.journal in ")
                assert parts(said["TensorBoard"])[1] > port
                process.send_signal(signal.SIGINT)
                assert process.communicate(timeout=20)[1].startswith(f"port {port} is taken; TensorBoard listens on ")

    def test_a_database_that_does_not_answer(self, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
        handlers = {name: signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGHUP)}
        (study / "optuna.journal").unlink()
        flags = ["--tensorboard-port", str(free_port()), "--optuna-port", str(free_port())]
        try:
            assert main(["watch", str(study), *flags, "--optuna-storage", f"sqlite:///{study}/no/such.db"]) == 2
        finally:
            for name, handler in handlers.items():
                signal.signal(name, handler)
        assert capsys.readouterr().err == f"error: there is no sqlite database {study}/no/such.db\n"

    def test_a_password_that_is_not_shown(
        self, study: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (study / "optuna.journal").unlink()
        flags = ["--tensorboard-port", str(free_port()), "--optuna-port", str(free_port())]
        url = "postgresql+psycopg://u:p%40ssW0rd@127.0.0.1:1/x"
        assert main(["watch", str(study), *flags, "--optuna-storage", url]) == 2
        monkeypatch.setenv("CATUVAC_OPTUNA_STORAGE", url)
        assert main(["watch", str(study), *flags]) == 2
        flag, variable = capsys.readouterr().err.splitlines()
        assert "$CATUVAC_OPTUNA_STORAGE" in flag
        assert variable.startswith("error: cannot read the Optuna storage postgresql database x on 127.0.0.1: ")
        assert "W0rd" not in flag + variable


def test_a_folder_without_a_study(tmp_path: Path) -> None:
    with pytest.raises(CatuvacError, match="contains no study; give the folder of a study, such as results/NAME"):
        dashboards.watch(tmp_path, tensorboard_port=6006, optuna_port=8080, optuna_storage="")


@pytest.mark.parametrize("port", [-1, 0, 65536])
def test_a_port_that_does_not_exist_is_one_line(port: int) -> None:
    with pytest.raises(CatuvacError, match=f"Optuna cannot listen on port {port}; give one from 1 to 65535"):
        dashboards._free(port, "Optuna")
