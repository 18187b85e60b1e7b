"""The URL of Optuna's database, which may contain a password: which parts may be shown or passed as a flag.

A URL that is mistyped, or whose password is not percent-encoded, is split in the wrong places. Therefore nothing of it
is shown unless every part is well-formed, and even then only the host and the name of the database.
"""

from __future__ import annotations

import re
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from catuvac.config import ConfigError
from catuvac.errors import first_line

VARIABLE = "CATUVAC_OPTUNA_STORAGE"  # the place for a URL with a password: other users cannot read it
NAME = re.compile(r"[\w.-]+|[0-9A-Fa-f:.]+")  # matches a host, an IPv6 address, a database or a user
SHORT = 4  # length below which a password or user is hidden only as a whole word
# Connection options that never contain a secret.
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
    """Parses a URL; returns None if it cannot be parsed or its parts are not well-formed."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # ValueError: the port is not a number
        return None
    if parsed.get_backend_name() == "sqlite" and not parsed.host:
        return None if re.search(r"@|://", parsed.database or "") else parsed
    parts = (parsed.host, parsed.database, parsed.username)
    plain = all(NAME.fullmatch(part) for part in parts if part) and url.count("@") <= 1
    return parsed if plain and parsed.database and (parsed.host or parsed.query) else None


def describe(url: str) -> str:
    """Names a database by its kind, host and name: "postgresql database optuna on db.example"."""
    parsed = parse(url)
    if parsed is None:
        return (
            "database, whose URL cannot be parsed; it must look like postgresql+psycopg://USER:PASSWORD@HOST/NAME, "
            "with @ : / ? # % in a password written as %40 %3A %2F %3F %23 %25"
        )
    where = f" on {parsed.host}" if parsed.host else ""
    return f"{parsed.get_backend_name()} database {parsed.database or 'in memory'}{where}"


def reason(url: str, error: BaseException) -> str:
    """Returns the first line of a database driver's message, hiding all parts of the URL except host and name."""
    parsed = parse(url)
    if parsed is None:
        return type(error).__name__  # the message may quote any part
    message = first_line(error.__cause__ or error)
    # Both as written in the URL, percent-encoded, and decoded.
    hidden = {url, *re.findall(r":([^@/]+)@", url), parsed.username or "", str(parsed.password or "")}
    for key, value in parsed.query.items():
        if key not in HARMLESS:
            hidden |= {str(value), *re.findall(rf"[?&]{re.escape(key)}=([^&]+)", url)}
    for secret in sorted(hidden - {""}, key=len, reverse=True):
        # A short one is hidden only as a whole word, because it may also be a part of other words.
        ends = (r"(?<!\w)", r"(?!\w)") if len(secret) < SHORT else ("", "")
        message = re.sub(ends[0] + re.escape(secret) + ends[1], "***", message)
    return message


def for_flag(url: str) -> str:
    """Returns the argument if it is "" or a URL without a secret.

    Raises:
        ConfigError: it cannot be parsed, or it contains a password or options that may contain one, which every user of
            the machine can read in the process list.
    """
    if not url:
        return url
    parsed = parse(url)
    if parsed is None:
        raise ConfigError(
            f"--optuna-storage is not the URL of a database without a password, such as "
            f"postgresql+psycopg://HOST/NAME; put one with a password into ${VARIABLE}"
        )
    if parsed.password or set(parsed.query) - HARMLESS:
        raise ConfigError(
            "--optuna-storage contains a password, or options that may, which every user of this machine can read; "
            f"put the URL into ${VARIABLE}"
        )
    return url


def check_exists(url: str) -> None:
    """Raises `ConfigError` for a SQLite file that is absent: opening it would create it."""
    parsed = parse(url)
    if not parsed or parsed.get_backend_name() != "sqlite" or not parsed.database or "uri" in parsed.query:
        return
    if not Path(parsed.database).exists():
        raise ConfigError(f"there is no {describe(url)}")
