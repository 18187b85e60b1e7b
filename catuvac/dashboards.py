"""`catuvac watch`: read-only TensorBoard and Optuna dashboard of one study, on loopback, until Ctrl-C."""

from __future__ import annotations

import http.client
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
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from catuvac.errors import CatuvacError
from catuvac.experiments import options
from catuvac.experiments.base import DESIGN, JOURNAL
from catuvac.experiments.trial_queue import STORAGE_VARIABLE
from catuvac.serve import HOST, PARAMETER, cookie, make_secret

RAY = f"http://{HOST}:8265/"
START_SECONDS = 90.0  # s that a server may take to respond: TensorBoard's first import from a cold disk is slow
END_SECONDS = 3.0  # s that a server may take to exit


@dataclass(frozen=True, kw_only=True)
class Server:
    """A child process that serves pages."""

    name: str
    port: int
    secret: str  # required for access
    probe: str  # path of a page that needs the study's data, not just a running server
    process: subprocess.Popen[bytes]
    output: IO[bytes]  # what it has printed; read if it dies

    @property
    def address(self) -> str:
        """The URL to open in a browser, with the secret."""
        return f"http://{HOST}:{self.port}/?{PARAMETER}={self.secret}"

    def check(self) -> None:
        """Raises `CatuvacError` with the reason if the server has ended."""
        code = self.process.poll()
        if code is None:
            return
        self.output.seek(0)
        lines = [line.strip() for line in self.output.read().decode(errors="replace").splitlines() if line.strip()]
        if lines and lines[-1].startswith("error: "):
            raise CatuvacError(lines[-1].removeprefix("error: "))
        errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)]
        # The first of several chained exceptions is the cause.
        reason = errors[0] if errors else lines[-1] if lines else "it printed nothing"
        raise CatuvacError(f"{self.name} ended with code {code}: {reason}")

    def wait(self) -> None:
        """Returns once the probe succeeds; raises `CatuvacError` if the server ends, refuses or takes too long."""
        page = f"http://{HOST}:{self.port}/{self.probe}"
        deadline = time.monotonic() + START_SECONDS
        while (status := _status(page, cookie(self.port, self.secret))) != 200:
            self.check()
            if status is not None:
                raise CatuvacError(f"{self.name} answers {page} with {status}: it cannot read the study's data")
            if time.monotonic() > deadline:
                raise CatuvacError(f"{self.name} does not answer at {page} after {START_SECONDS:.0f} s")
            time.sleep(0.1)


def watch(folder: Path, *, tensorboard_port: int, optuna_port: int, optuna_storage: str) -> None:
    """Starts both servers, prints their addresses, waits for Ctrl-C and ends the servers.

    Args:
        folder: of a study.
        tensorboard_port: port of TensorBoard; if it is taken, the next free one is used.
        optuna_port: port of the Optuna dashboard; likewise.
        optuna_storage: URL of the study's database; "": the journal in its folder, else $CATUVAC_OPTUNA_STORAGE.

    Raises:
        CatuvacError: the folder contains no study, the URL contains a password, or a server does not start or dies.
    """
    options.database(optuna_storage)
    if not (folder / DESIGN).is_file():
        raise CatuvacError(f"{folder} contains no study; give the folder of a study, such as results/NAME")
    journal = folder / JOURNAL
    storage = optuna_storage or (str(journal) if journal.is_file() else os.environ.get(STORAGE_VARIABLE, ""))
    for ending in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal must not leave servers behind
        signal.signal(ending, signal.default_int_handler)
    with ExitStack() as children:
        start = children.enter_context
        tensorboard = start(_serving("TensorBoard", tensorboard_port, probe="data/runs", logdir=str(folder)))
        optuna = start(_serving("Optuna", optuna_port, probe="api/studies", storage=storage)) if storage else None
        servers = [server for server in (tensorboard, optuna) if server]
        for server in servers:
            server.wait()
        none = f"none: no {JOURNAL} in {folder} (a comparison has none; give a database with --optuna-storage)"
        print(f"TensorBoard  {tensorboard.address}")
        print(f"Optuna       {optuna.address if optuna else none}")
        print(f"Ray          {RAY if _status(RAY) else f'none: nothing answers at {RAY}'}")
        print("Ctrl-C ends TensorBoard and the Optuna dashboard", flush=True)
        while True:
            for server in servers:
                server.check()
            time.sleep(0.5)


@contextmanager
def _serving(name: str, wanted: int, *, probe: str, **shown: str) -> Iterator[Server]:
    """Runs a server in its own process group and ends it on exit, because this process handles Ctrl-C."""
    port, secret = _free(wanted, name), make_secret()
    # Sent through a pipe: every user can read a command line, and a database's URL may contain a password, too.
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
            with suppress(BrokenPipeError), process.stdin:  # it may have died already, which `check` detects
                process.stdin.write(json.dumps(settings).encode())
            yield Server(name=name, port=port, secret=secret, probe=probe, process=process, output=output)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a server and its children: TensorBoard has a child process that reads the events."""
    for ending in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + END_SECONDS
        with suppress(ProcessLookupError):
            os.killpg(process.pid, ending)
            while time.monotonic() < deadline:
                process.poll()
                os.killpg(process.pid, 0)  # raises once the group is empty
                time.sleep(0.02)


def _free(wanted: int, name: str) -> int:
    """Returns the wanted port or the next free one; prints a line if it is another one."""
    if not 1 <= wanted < 2**16:
        raise CatuvacError(f"{name} cannot listen on port {wanted}; give one from 1 to {2**16 - 1}")
    for port in range(wanted, min(wanted + 100, 2**16)):
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ignores recently closed connections
            try:
                candidate.bind((HOST, port))
            except OSError:
                continue
            if port != wanted:
                print(f"port {wanted} is taken; {name} listens on {port}", file=sys.stderr)
            return port
    raise CatuvacError(f"no port from {wanted} upwards is free for {name}; give another")


def _status(page: str, cookie_header: str = "") -> int | None:
    """Returns the HTTP status of a page requested with this cookie; None if nothing answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback needs no proxy
    request = urllib.request.Request(page, headers={"Cookie": cookie_header} if cookie_header else {})
    try:
        with opener.open(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):  # the latter: another protocol than HTTP
        return None
