"""The URL of Optuna's database, which may hold a password: what of it may be shown, and what a flag may carry.

A URL that is mistyped, or whose password is not percent-encoded, is taken apart in the wrong places. So nothing of it
is shown unless every part is what it should be, and even then the host and the name of the database alone.
"""

from __future__ import annotations

import re
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from catuvac.config import ConfigError

VARIABLE = "CATUVAC_OPTUNA_STORAGE"  # where a URL with a password belongs: other users cannot read it
NAME = re.compile(r"[\w.-]+|[0-9A-Fa-f:.]+")  # a host, an IPv6 address, a database or a user
SHORT = 4  # characters of a password or user
# Options of a connection that hold no secret.
HARMLESS = {
    *(
        "host",
        "port",
        "sslmode",
        "sslrootcert",
        "ssl_ca",
        "connect_timeout",
        "application_name",
        "target_session_attrs",
    ),
    *("charset", "timeout", "mode", "uri", "cache"),
}


def parse(url: str) -> URL | None:
    """Takes a URL apart; None for one that cannot be read, or whose parts are not what they should be."""
    try:
        made = make_url(url)
    except (ArgumentError, ValueError):  # the second for a port that is no number
        return None
    if made.get_backend_name() == "sqlite" and not made.host:
        return None if re.search(r"@|://", made.database or "") else made
    parts = (made.host, made.database, made.username)
    plain = all(NAME.fullmatch(part) for part in parts if part) and url.count("@") <= 1
    return made if plain and made.database and (made.host or made.query) else None


def describe(url: str) -> str:
    """Names a database by its kind, host and name: "postgresql database optuna on db.example"."""
    made = parse(url)
    if made is None:
        return (
            "database, whose URL cannot be read; it must be such as postgresql+psycopg://USER:PASSWORD@HOST/NAME, "
            "where @ : / ? # % of a password are written as %40 %3A %2F %3F %23 %25"
        )
    where = f" on {made.host}" if made.host else ""
    return f"{made.get_backend_name()} database {made.database or 'in memory'}{where}"


def reason(url: str, error: BaseException) -> str:
    """The first line of what a database's driver says, without what the URL holds beside host and name."""
    made = parse(url)
    if made is None:
        return type(error).__name__  # its words may quote any part
    lines = [line.strip() for line in str(error.__cause__ or error).splitlines() if line.strip()]
    said = lines[0] if lines else type(error).__name__
    # As they are written in the URL, percent-encoded, and as they are meant.
    hidden = {url, *re.findall(r":([^@/]+)@", url), made.username or "", str(made.password or "")}
    for key, value in made.query.items():
        if key not in HARMLESS:
            hidden |= {str(value), *re.findall(rf"[?&]{re.escape(key)}=([^&]+)", url)}
    for secret in sorted(hidden - {""}, key=len, reverse=True):
        # A short one is hidden as a word, for it is also a part of other words.
        ends = (r"(?<!\w)", r"(?!\w)") if len(secret) < SHORT else ("", "")
        said = re.sub(ends[0] + re.escape(secret) + ends[1], "***", said)
    return said


def for_flag(url: str) -> str:
    """Passes "" and a URL without a secret.

    Raises:
        ConfigError: it holds a password, or options that may hold one, which every user of the machine can read in the
            list of processes; or it cannot be read.
    """
    if not url:
        return url
    made = parse(url)
    if made is None:
        raise ConfigError(
            f"--optuna-storage is not the URL of a database without a password, such as "
            f"postgresql+psycopg://HOST/NAME; put one with a password into ${VARIABLE}"
        )
    if made.password or set(made.query) - HARMLESS:
        raise ConfigError(
            "--optuna-storage holds a password, or options that may, which every user of this machine can read; "
            f"put the URL into ${VARIABLE}"
        )
    return url


def check_exists(url: str) -> None:
    """Raises `ConfigError` for a SQLite file that is absent: to open one is to make it."""
    made = parse(url)
    if not made or made.get_backend_name() != "sqlite" or not made.database or "uri" in made.query:
        return
    if not Path(made.database).exists():
        raise ConfigError(f"there is no {describe(url)}")
