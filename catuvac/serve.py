"""One of the two servers of `catuvac watch`, as a process of its own: `python -m catuvac.serve`, told by JSON on stdin.

Every account of a machine reaches its loopback, and so does a page in the browser whose name is made to point there.
TensorBoard and the Optuna dashboard ask nobody who he is, and the latter deletes studies. So both are served behind
`Guard`: to whoever has the secret, under a name of loopback, and for reading alone.
"""

from __future__ import annotations

import hmac
import json
import secrets
import sys
import threading
from collections.abc import Callable, Iterable
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

from werkzeug.serving import make_server

from catuvac.errors import CatuvacError, guarded

HOST = "127.0.0.1"
LOOPBACK = (HOST, "localhost", "[::1]")  # names by which a browser comes here, through an SSH tunnel too
PARAMETER = "secret"  # of the address that `catuvac watch` prints
READING = ("GET", "HEAD")

Environment = dict[str, Any]
Application = Callable[[Environment, Any], Iterable[bytes]]  # WSGI


def make_secret() -> str:
    """A new one, of 256 bits."""
    return secrets.token_urlsafe(32)


def cookie(port: int, secret: str) -> str:
    """The header by which a browser shows the secret; its name has the port, since cookies are shared by all ports."""
    return f"catuvac-{port}={secret}"


class Guard:
    """A WSGI application in front of another one, which lets nothing through but readers who have the secret."""

    def __init__(self, app: Application, *, port: int, secret: str, methods: tuple[str, ...] = READING) -> None:
        """Takes the methods that read: TensorBoard's pages also ask by POST."""
        self.app = app
        self.name, _, self.secret = cookie(port, secret).partition("=")
        self.methods = methods

    def __call__(self, environ: Environment, start_response: Any) -> Iterable[bytes]:
        """Answers 403 without a name of loopback or the secret, and 405 to what writes."""
        host = environ.get("HTTP_HOST", "")
        if host.removesuffix(f":{_port(host)}") not in LOOPBACK:
            return _refuse(start_response, "403 Forbidden", f"not under this name: use http://{HOST}")
        given = parse_qs(environ.get("QUERY_STRING", "")).get(PARAMETER, [""])[0]
        if given and self._right(given):
            # The browser keeps it as a cookie, so that the address on display and in the history has no secret.
            path = "/" + quote(environ.get("PATH_INFO", "").lstrip("/"))
            kept = f"{self.name}={self.secret}; Path=/; HttpOnly; SameSite=Strict"
            start_response("303 See Other", [("Location", path), ("Set-Cookie", kept), ("Content-Length", "0")])
            return []
        if not self._right(self._cookie(environ.get("HTTP_COOKIE", ""))):
            return _refuse(start_response, "403 Forbidden", "open the whole address that catuvac watch has printed")
        if environ["REQUEST_METHOD"] not in self.methods:
            return _refuse(start_response, "405 Method Not Allowed", "this page is for reading", *self.methods)
        return self.app(environ, start_response)

    def _cookie(self, header: str) -> str:
        try:
            held = SimpleCookie(header).get(self.name)
        except CookieError:
            return ""
        return held.value if held else ""

    def _right(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.secret.encode())


def _port(host: str) -> str:
    end = host.rpartition(":")[2]
    return end if end.isdigit() else ""


def _refuse(start_response: Any, status: str, why: str, *allowed: str) -> Iterable[bytes]:
    body = f"{why}\n".encode()
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    start_response(status, headers + [("Allow", ", ".join(allowed))] * bool(allowed))
    return [body]


def _tensorboard(logdir: str, port: int, secret: str) -> None:
    from tensorboard import program

    class Server(program.TensorBoardServer):  # type: ignore[misc]
        def __init__(self, app: Application, flags: Any) -> None:
            del flags
            guard = Guard(app, port=port, secret=secret, methods=(*READING, "POST"))
            self.server = make_server(HOST, port, guard, threaded=True)

        def serve_forever(self) -> None:
            self.server.serve_forever()

        def get_url(self) -> str:
            return f"http://{HOST}:{port}/"

    board = program.TensorBoard(server_class=Server)
    # Its fast reader is another server, which everybody on the machine may ask.
    board.configure(argv=("",), logdir=logdir, load_fast="false", reload_multifile=True)
    board.launch()  # unlike `main` it leaves no note in the temporary folder that all users share
    threading.Event().wait()


def _optuna(storage: str, port: int, secret: str) -> None:
    import optuna
    from optuna_dashboard import wsgi

    from catuvac.experiments import database

    if Path(storage).is_file():
        backend = optuna.storages.journal.JournalFileBackend(storage)
        opened: optuna.storages.BaseStorage = optuna.storages.JournalStorage(backend)
    else:
        database.check_exists(storage)
        try:  # an empty database stays empty
            opened = optuna.storages.RDBStorage(
                storage, engine_kwargs={"pool_pre_ping": True}, skip_table_creation=True, skip_compatibility_check=True
            )
            opened.get_all_studies()
        except Exception as error:  # whatever the database's driver raises
            where, why = database.describe(storage), database.reason(storage, error)
            raise CatuvacError(f"cannot read the Optuna storage {where}: {why}") from error
    make_server(HOST, port, Guard(wsgi(opened), port=port, secret=secret), threaded=True).serve_forever()


SERVERS: dict[str, Callable[..., None]] = {"TensorBoard": _tensorboard, "Optuna": _optuna}

if __name__ == "__main__":
    settings = json.load(sys.stdin)  # not arguments: everybody on the machine can read those
    sys.exit(guarded(lambda: SERVERS[settings.pop("server")](**settings)))
