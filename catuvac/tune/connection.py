"""Joins a Ray cluster that responds, or starts one on this machine that requires a token from every client.

Ray's ports listen on all network interfaces, independently of the dashboard, and without a token anybody who reaches
them can run code as this user.
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

from catuvac.errors import CatuvacError, end_as_ctrl_c, first_line

ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+):(\d{1,5})")  # HOST:PORT of a head
PROBE_SECONDS = 10.0  # s within which a head must respond; Ray itself would try for minutes
TOKEN_ADVICE = "make one with cluster_configs/make_token.sh and set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"


def connect() -> None:
    """Joins the environment's cluster, else this user's cluster on this machine, else starts Ray on this machine.

    The environment names a cluster with RAY_ADDRESS, as it does in a Ray job. A Ray started here uses the token of
    RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH. Without either, it creates one that only this process has, and omits the
    dashboard, because nobody could log in.

    Raises:
        CatuvacError: the cluster does not respond or rejects the token, the token is empty or cannot be read, or Ray
            cannot be started here.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # Tune's own tables; `ResultsCallback` prints one line per trial instead
    # `ResultsCallback` prints the cause in one line, and the traceback is in the trial's error.txt.
    os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # JSON and CSV copies of the tables
    # In short trials, reports are seconds apart; Ray would warn about the snapshots that they trigger.
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
    # Number of trials that may wait for resources: `SlotSearch` provides no more than the cluster can run, and if only
    # one may wait, Ray ends the processes of other trials that have just ended. For grids this is Ray's default.
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "200")
    # A study that stops leaves failures of other trials unread, which Ray would print after our last line.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    # It would look for the files of the disabled loggers.
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
    # After an interruption, Ray would advise Tuner.restore; a study is continued by --resume.
    logging.getLogger("ray.tune.tune").addFilter(_no_advice)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not ray.is_initialized():
        address = _address()
        if address:
            _join(address)
        else:
            _start()
    end_as_ctrl_c()  # Ray has installed its own handler, which exits without writing the tables


def _no_advice(record: logging.LogRecord) -> bool:
    return "Tuner.restore" not in record.getMessage()


def private_folder() -> Path:
    """Returns a folder without access for other users for Ray's sockets and logs, to which Ray gives everybody access.

    Raises:
        CatuvacError: another user has created a folder or a link of that name, or it cannot be created.
    """
    path = Path(os.environ.get("RAY_TMPDIR") or "/tmp") / f"catuvac-{os.getuid()}"
    elsewhere = "set RAY_TMPDIR to a folder of yours with a short path"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
        if path.is_symlink() or status.st_uid != os.getuid():
            raise CatuvacError(f"{path} is not a folder of yours; {elsewhere}")
        path.chmod(0o700)
    except OSError as error:
        raise CatuvacError(f"cannot create {path}: {error.strerror}; {elsewhere}") from error
    return path


def _address() -> str:
    """Returns HOST:PORT of the cluster to join, after a response from it; "" if Ray is to be started here."""
    configured = os.environ.get("RAY_ADDRESS", "")
    if configured == "local":
        return ""
    if configured in ("", "auto"):
        address = _own_cluster()
        if configured and not address:
            raise CatuvacError(
                "RAY_ADDRESS is auto, but no Ray of yours responds on this machine; unset it to start one"
            )
        return address
    if not ADDRESS.fullmatch(configured):
        raise CatuvacError(
            "RAY_ADDRESS must be HOST:PORT of a Ray head, auto or local; give an http:// address to "
            "`ray job submit --address`; Ray Client (ray://) is not supported"
        )
    if reason := _probe_error(configured):
        raise CatuvacError(f"no Ray cluster responds at RAY_ADDRESS {configured}: {reason}")
    return configured


def _own_cluster() -> str:
    """Returns the head that `ray start` noted in Ray's shared folder, if it is this user's and responds; else ""."""
    path = Path(get_ray_address_file(None))
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), encoding="ascii") as file:
            if os.fstat(file.fileno()).st_uid != os.getuid():
                print(f"ray        {path} belongs to another user and is ignored", flush=True)
                return ""
            address = file.read(256).strip()
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        print(f"ray        {path} cannot be read ({getattr(error, 'strerror', None) or 'no text'})", flush=True)
        return ""
    reason = _probe_error(address) if ADDRESS.fullmatch(address) else "not HOST:PORT"
    if reason:
        print(f"ray        {path} names a head that does not respond ({reason}); Ray is started here", flush=True)
        return ""
    return address


def _probe_error(address: str) -> str:
    """Returns why no server with Ray's protocol responds at HOST:PORT; "" if one does."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_SECONDS).close()
    except (OSError, OverflowError, ValueError) as error:  # the last two: invalid port or name
        return getattr(error, "strerror", None) or str(error)
    if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
        return ""
    # The kernel accepts connections for a stopped head, or the port may belong to another program by now.
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=PROBE_SECONDS)
        except grpc.FutureTimeoutError:
            return f"the server there did not respond within {PROBE_SECONDS:.0f} s"
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
            f"cannot join Ray at {address}: it requires a token, and there is none here or a different one; set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to the one that it was started with"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise CatuvacError(
            f"cannot join Ray at {address}: {first_line(error)}; if it was started with a token, set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"
        ) from error


def _start() -> None:
    folder = private_folder()
    os.environ["RAY_AUTH_MODE"] = "token"
    has_token = _check_token()
    if not has_token:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    try:
        _refresh_authentication()
        ray.init(
            address="local",
            include_dashboard=has_token,
            dashboard_host="127.0.0.1",
            log_to_driver=False,
            logging_level="WARNING",
            _temp_dir=str(folder / "ray"),
        )
    except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
        raise CatuvacError(
            f"cannot start Ray on this machine: {first_line(error)}; its logs are in {folder}"
        ) from error


def _check_token() -> bool:
    """Returns whether the environment has a token; raises `CatuvacError` if it is empty or cannot be read."""
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
    """Makes Ray read the environment again, as it did on import; there is no public function for this."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
