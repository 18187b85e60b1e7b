"""`catuvac watch`: TensorBoard and the Optuna dashboard of one study, on loopback, to be read only, until Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from catuvac.errors import CatuvacError
from catuvac.experiments import options
from catuvac.experiments.base import DESIGN, JOURNAL
from catuvac.experiments.trial_queue import STORAGE_VARIABLE
from catuvac.serve import HOST, PARAMETER, cookie, make_secret

RAY = f"http://{HOST}:8265/"
START_SECONDS = 90.0  # s that a server may take to answer: TensorBoard's first import from a cold disk is slow
END_SECONDS = 3.0  # s that a server may take to end


@dataclass(frozen=True, kw_only=True)
class Server:
    """A child process that serves pages."""

    name: str
    port: int
    secret: str  # without which it shows nothing
    probe: str  # path of a page that needs what the server shows, not the server alone
    process: subprocess.Popen[bytes]
    output: IO[bytes]  # what it printed; read where it dies

    @property
    def address(self) -> str:
        """What to open in a browser, with the secret."""
        return f"http://{HOST}:{self.port}/?{PARAMETER}={self.secret}"

    def check(self) -> None:
        """Raises `CatuvacError` with the line that says why where it has ended."""
        code = self.process.poll()
        if code is None:
            return
        self.output.seek(0)
        lines = [line.strip() for line in self.output.read().decode(errors="replace").splitlines() if line.strip()]
        if lines and lines[-1].startswith("error: "):
            raise CatuvacError(lines[-1].removeprefix("error: "))
        errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)]
        # Of chained exceptions the first is the cause.
        why = errors[0] if errors else lines[-1] if lines else "it said nothing"
        raise CatuvacError(f"{self.name} ended with code {code}: {why}")

    def wait(self) -> None:
        """Returns once the probe answers; raises `CatuvacError` where the server ends, refuses or takes too long."""
        page = f"http://{HOST}:{self.port}/{self.probe}"
        deadline = time.monotonic() + START_SECONDS
        while (status := _status(page, cookie(self.port, self.secret))) != 200:
            self.check()
            if status is not None:
                raise CatuvacError(f"{self.name} answers {page} with {status}: it cannot read what it should show")
            if time.monotonic() > deadline:
                raise CatuvacError(f"{self.name} does not answer at {page} after {START_SECONDS:.0f} s")
            time.sleep(0.1)


def watch(folder: Path, *, tensorboard_port: int, optuna_port: int, optuna_storage: str) -> None:
    """Starts both servers, prints the addresses, and waits until Ctrl-C; the servers end with it.

    Args:
        folder: of a study.
        tensorboard_port: where TensorBoard listens; where it is taken, the next free one.
        optuna_port: where the Optuna dashboard listens; likewise.
        optuna_storage: URL of the study's database; "": the journal in its folder, else $CATUVAC_OPTUNA_STORAGE.

    Raises:
        CatuvacError: the folder holds no study, the URL holds a password, or a server does not start or dies.
    """
    options.database(optuna_storage)
    if not (folder / DESIGN).is_file():
        raise CatuvacError(f"{folder} holds no study; give the folder of one, such as results/NAME")
    journal = folder / JOURNAL
    storage = optuna_storage or (str(journal) if journal.is_file() else os.environ.get(STORAGE_VARIABLE, ""))
    for ending in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal must not leave servers behind
        signal.signal(ending, signal.default_int_handler)
    with ExitStack() as children:
        tensorboard = children.enter_context(_tensorboard(folder, tensorboard_port))
        optuna = children.enter_context(_optuna(storage, optuna_port)) if storage else None
        servers = [server for server in (tensorboard, optuna) if server]
        for server in servers:
            server.wait()
        none = f"none: no {JOURNAL} in {folder} (a comparison has none; a database is named by --optuna-storage)"
        print(f"TensorBoard  {tensorboard.address}")
        print(f"Optuna       {optuna.address if optuna else none}")
        print(f"Ray          {RAY if _status(RAY) else f'none: nothing answers at {RAY}'}")
        print("Ctrl-C ends TensorBoard and the Optuna dashboard", flush=True)
        while True:
            for server in servers:
                server.check()
            time.sleep(0.5)


def _tensorboard(folder: Path, port: int) -> AbstractContextManager[Server]:
    return _serving("TensorBoard", port, probe="data/runs", logdir=str(folder))


def _optuna(storage: str, port: int) -> AbstractContextManager[Server]:
    return _serving("Optuna", port, probe="api/studies", storage=storage)


@contextmanager
def _serving(name: str, wanted: int, *, probe: str, **shown: str) -> Iterator[Server]:
    """Runs a server in a process group of its own, which is ended at the end: Ctrl-C is this process's to handle."""
    port, secret = _free(wanted, name), make_secret()
    # By a pipe: everybody on the machine can read a command line, and a database's URL may hold a password too.
    settings = {"server": name, "port": port, "secret": secret, **shown}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "catuvac.serve"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            assert process.stdin is not None
            with suppress(BrokenPipeError), process.stdin:  # it may have died already, which `check` finds
                process.stdin.write(json.dumps(settings).encode())
            yield Server(name=name, port=port, secret=secret, probe=probe, process=process, output=output)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a server and what it started: TensorBoard has a child that reads the events."""
    for ending in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + END_SECONDS
        with suppress(ProcessLookupError):
            os.killpg(process.pid, ending)
            while time.monotonic() < deadline:
                process.poll()
                os.killpg(process.pid, 0)  # raises once none of the group is left
                time.sleep(0.02)


def _free(wanted: int, name: str) -> int:
    """The wanted port or the next free one, which is said."""
    for port in range(wanted, min(wanted + 100, 2**16)):
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection just closed does not matter
            try:
                tried.bind((HOST, port))
            except OSError:
                continue
            if port != wanted:
                print(f"port {wanted} is taken; {name} listens on {port}", file=sys.stderr)
            return port
    raise CatuvacError(f"no port from {wanted} on is free for {name}; give another")


def _status(page: str, shown: str = "") -> int | None:
    """The HTTP status of a page to whoever shows this cookie; None where nothing answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback is behind no proxy
    request = urllib.request.Request(page, headers={"Cookie": shown} if shown else {})
    try:
        with opener.open(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None
