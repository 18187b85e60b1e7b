"""Joins a Ray cluster that is known to answer, or starts one on this machine that asks every client for a token.

Ray's own ports listen on every interface of the machine, whatever its dashboard does, and whoever reaches them without
a token runs code as this user.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
from pathlib import Path

import grpc
import optuna
import ray
from ray._common.utils import get_ray_address_file
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from catuvac.errors import CatuvacError, end_as_ctrl_c

ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+):(\d{1,5})")  # HOST:PORT of a head
PROBE_SECONDS = 10.0  # s in which a head must answer; Ray itself would try for minutes
TOKEN_ADVICE = "make one with cluster_configs/make_token.sh and set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"


def connect() -> None:
    """Joins the cluster of the environment, else the one that this user started here, else starts Ray on this machine.

    The environment names a cluster by RAY_ADDRESS, as it does in a Ray job. A Ray started here takes the token of
    RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH. Without either it makes one that is gone with this process, and leaves out
    the dashboard, into which nobody could log in.

    Raises:
        CatuvacError: the cluster does not answer or refuses the token, the token is empty or cannot be read, or Ray
            cannot be started here.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # Tune's own tables; `Tables` prints one line a trial instead
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # JSON and CSV of what the tables hold
    # Reports are seconds apart in short trials; Ray would warn about the snapshots that they trigger.
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
    # Trials that may wait for resources: `SlotSearch` gives no more than the cluster carries, and where only one may
    # wait, the processes of others that have just ended go. For grids it is what Ray takes itself.
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "200")
    # A study that stops leaves the failures of other trials unread, which Ray prints after our own last line.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    # It looks for the files of the loggers that are switched off.
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not ray.is_initialized():
        address = _address()
        if address:
            _join(address)
        else:
            _start()
    end_as_ctrl_c()  # Ray has put a handler of its own in place, which leaves without writing the tables


def private_folder() -> Path:
    """The folder, closed to other users, in which Ray puts its sockets and logs, which it opens to everybody.

    Raises:
        CatuvacError: another user has made a folder or a link of that name, or it cannot be made.
    """
    path = Path(os.environ.get("RAY_TMPDIR") or "/tmp") / f"catuvac-{os.getuid()}"
    elsewhere = "set RAY_TMPDIR to a folder of yours with a short path"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if path.is_symlink() or found.st_uid != os.getuid():
            raise CatuvacError(f"{path} is not a folder of yours; {elsewhere}")
        path.chmod(0o700)
    except OSError as error:
        raise CatuvacError(f"cannot make {path}: {error.strerror}; {elsewhere}") from error
    return path


def _address() -> str:
    """HOST:PORT of the cluster to join, which has been seen to answer; "" where Ray is to be started here."""
    given = os.environ.get("RAY_ADDRESS", "")
    if given == "local":
        return ""
    if given in ("", "auto"):
        address = _own_cluster()
        if given and not address:
            raise CatuvacError(
                "RAY_ADDRESS is auto, but no Ray of yours answers on this machine; unset it to start one"
            )
        return address
    if not ADDRESS.fullmatch(given):
        raise CatuvacError(
            "RAY_ADDRESS must be HOST:PORT of a Ray head, auto or local; what has http:// belongs into "
            "`ray job submit --address`, and Ray Client (ray://) is not used"
        )
    if silence := _silence(given):
        raise CatuvacError(f"no Ray cluster answers at RAY_ADDRESS {given}: {silence}")
    return given


def _own_cluster() -> str:
    """The head that `ray start` noted in Ray's folder, which all users share: this user's, and one that answers."""
    path = Path(get_ray_address_file(None))
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), encoding="ascii") as file:
            if os.fstat(file.fileno()).st_uid != os.getuid():
                print(f"ray        {path} is another user's and is not followed", flush=True)
                return ""
            address = file.read(256).strip()
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        print(f"ray        {path} cannot be read ({getattr(error, 'strerror', None) or 'no text'})", flush=True)
        return ""
    silence = _silence(address) if ADDRESS.fullmatch(address) else "no HOST:PORT"
    if silence:
        print(f"ray        {path} names a head that does not answer ({silence}); Ray is started here", flush=True)
        return ""
    return address


def _silence(address: str) -> str:
    """Why no server of Ray's protocol answers at HOST:PORT; "" where one does."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_SECONDS).close()
    except (OSError, OverflowError, ValueError) as error:  # the last two: no port and no name that can be
        return getattr(error, "strerror", None) or str(error)
    if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
        return ""
    # The kernel takes connections for a head that has stopped, or the port may be another program's by now.
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=PROBE_SECONDS)
        except grpc.FutureTimeoutError:
            return f"what listens there did not answer within {PROBE_SECONDS:.0f} s"
    return ""


def _join(address: str) -> None:
    if not (_check_token() or AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True)):
        raise CatuvacError(f"cannot join Ray at {address} without a token; {TOKEN_ADVICE}")
    os.environ["RAY_AUTH_MODE"] = "token"
    try:
        _refresh_authentication()
        ray.init(address=address, log_to_driver=False, logging_level="WARNING")
    except ray.exceptions.AuthenticationError as error:
        raise CatuvacError(
            f"cannot join Ray at {address}: it asks for a token, and there is none here or another one; set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to the one that it was started with"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise CatuvacError(
            f"cannot join Ray at {address}: {_first_line(error)}; where it was started with a token, set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"
        ) from error


def _start() -> None:
    folder = private_folder()
    os.environ["RAY_AUTH_MODE"] = "token"
    given = _check_token()
    if not given:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    try:
        _refresh_authentication()
        ray.init(
            address="local",
            include_dashboard=given,
            dashboard_host="127.0.0.1",
            log_to_driver=False,
            logging_level="WARNING",
            _temp_dir=str(folder / "ray"),
        )
    except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
        raise CatuvacError(
            f"cannot start Ray on this machine: {_first_line(error)}; its logs are in {folder}"
        ) from error


def _check_token() -> bool:
    """Whether the environment gives a token; raises `CatuvacError` for one that is empty or cannot be read."""
    if "RAY_AUTH_TOKEN" in os.environ:
        if not os.environ["RAY_AUTH_TOKEN"].strip():
            raise CatuvacError(f"RAY_AUTH_TOKEN is empty; unset it, or {TOKEN_ADVICE}")
        return True
    if not (path := os.environ.get("RAY_AUTH_TOKEN_PATH", "")):
        return False
    try:
        token = Path(path).read_bytes()
    except OSError as error:
        raise CatuvacError(
            f"cannot read the token RAY_AUTH_TOKEN_PATH {path}: {error.strerror}; {TOKEN_ADVICE}"
        ) from error
    if not token.strip():
        raise CatuvacError(f"the token RAY_AUTH_TOKEN_PATH {path} is empty; remove it and {TOKEN_ADVICE}")
    return True


def _refresh_authentication() -> None:
    """Makes Ray read again what it read of the environment when it was imported; it has no public call for that."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
