"""One of the two servers of `catuvac watch`, run as `python -m catuvac.serve` with its settings as JSON on stdin.

Every user of a machine can reach its loopback interface, and so can a web page through DNS rebinding. TensorBoard and
the Optuna dashboard do not authenticate anybody, and the latter can delete studies. Therefore both are served behind
`Guard`: only to clients that have the secret, only under a loopback host name, and read-only.
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
LOOPBACK = (HOST, "localhost", "[::1]")  # host names that browsers use, also through an SSH tunnel
PARAMETER = "secret"  # in the address that `catuvac watch` prints
READING = ("GET", "HEAD")

Environment = dict[str, Any]
Application = Callable[[Environment, Any], Iterable[bytes]]  # WSGI


def make_secret() -> str:
    """Returns a new secret of 256 bits."""
    return secrets.token_urlsafe(32)


def cookie(port: int, secret: str) -> str:
    """Returns the cookie with the secret; its name includes the port, since all ports of a host share cookies."""
    return f"catuvac-{port}={secret}"


class Guard:
    """A WSGI application in front of another one that lets only read requests with the secret through."""

    def __init__(self, app: Application, *, port: int, secret: str, methods: tuple[str, ...] = READING) -> None:
        """Takes the HTTP methods that only read: TensorBoard's pages also use POST for that."""
        self.app = app
        self.name, _, self.secret = cookie(port, secret).partition("=")
        self.methods = methods

    def __call__(self, environ: Environment, start_response: Any) -> Iterable[bytes]:
        """Responds 403 without a loopback host name or the secret, and 405 to requests that write."""
        host = environ.get("HTTP_HOST", "")
        if host.removesuffix(f":{_port(host)}") not in LOOPBACK:
            return _refuse(start_response, "403 Forbidden", f"not available under this host name: use http://{HOST}")
        secret = parse_qs(environ.get("QUERY_STRING", "")).get(PARAMETER, [""])[0]
        if secret and self._is_secret(secret):
            # The browser keeps it as a cookie, so that the displayed address and the history do not contain the secret.
            path = "/" + quote(environ.get("PATH_INFO", "").lstrip("/"))
            new_cookie = f"{self.name}={self.secret}; Path=/; HttpOnly; SameSite=Strict"
            start_response("303 See Other", [("Location", path), ("Set-Cookie", new_cookie), ("Content-Length", "0")])
            return []
        if not self._is_secret(self._cookie(environ.get("HTTP_COOKIE", ""))):
            return _refuse(start_response, "403 Forbidden", "open the complete address that catuvac watch has printed")
        if environ["REQUEST_METHOD"] not in self.methods:
            return _refuse(start_response, "405 Method Not Allowed", "this page is read-only", *self.methods)
        return self.app(environ, start_response)

    def _cookie(self, header: str) -> str:
        try:
            morsel = SimpleCookie(header).get(self.name)
        except CookieError:
            return ""
        return morsel.value if morsel else ""

    def _is_secret(self, secret: str) -> bool:
        return hmac.compare_digest(secret.encode(), self.secret.encode())


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
    # The fast loader is a separate server that every user of the machine can query.
    board.configure(argv=("",), logdir=logdir, load_fast="false", reload_multifile=True)
    board.launch()  # unlike `main`, it writes no record to the shared temporary folder
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
        except Exception as error:  # any exception of the database driver
            where, why = database.describe(storage), database.reason(storage, error)
            raise CatuvacError(f"cannot read the Optuna storage {where}: {why}") from error
    make_server(HOST, port, Guard(wsgi(opened), port=port, secret=secret), threaded=True).serve_forever()


SERVERS: dict[str, Callable[..., None]] = {"TensorBoard": _tensorboard, "Optuna": _optuna}

if __name__ == "__main__":
    settings = json.load(sys.stdin)  # not arguments, which every user of the machine can read
    sys.exit(guarded(lambda: SERVERS[settings.pop("server")](**settings)))
