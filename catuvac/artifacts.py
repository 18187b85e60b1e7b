"""The files that commands write and read back, sealed against damage.

A sealed file contains `MARK` and its own SHA-256 sum, computed with zeros in place of the sum. A file and its sum are
therefore replaced in one atomic step, and every other program can read the file. A file without a seal was written by
an earlier version or by hand, and is accepted as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import UnionType
from typing import Any

from catuvac.errors import CatuvacError
from catuvac.io import exclusive, write

LOCK = ".lock"  # in a folder that only one process at a time may write to
MARK = "catuvac-sha256="
BLANK = MARK + 64 * "0"  # what `seal` fills in
LINE_SUM = "crc32"  # key of the checksum in a line of JSON
ADVICE = "restore it from a backup"
DEEPEST = 50  # levels of JSON

_BRACKETS = re.compile(rb'"(?:\\.|[^"\\])*"|[\[\]{}]')  # or a whole string, whose brackets do not count
_SEAL = re.compile(MARK.encode() + b"([0-9a-f]{64})")
# What a killed writer leaves behind; in earlier versions such a name ended with the process ID.
_TEMPORARY = re.compile(
    r"\..+\.(pt|json|yaml|parquet|journal|html|md|tex|csv|pdf|png)\.(?P<process>\d+)(\.[0-9a-f]{8}\.tmp)?"
)


def damaged(path: Path, reason: str, advice: str = ADVICE) -> CatuvacError:
    """Returns the error for a file that has changed since it was written: one line with the reason and a remedy."""
    return CatuvacError(f"{path} is damaged ({reason}); {advice}")


def read(path: Path, *, limit: int | None = None, advice: str = ADVICE) -> bytes:
    """Reads a file and checks its seal if it has one.

    Args:
        path: of the file.
        limit: largest size in bytes; None for any size.
        advice: what to do about a damaged file; follows a semicolon.

    Raises:
        CatuvacError: it is absent, unreadable, too large, or has changed since it was written.
    """
    try:
        with path.open("rb") as file:
            data = file.read() if limit is None else file.read(limit + 1)
    except OSError as error:
        raise CatuvacError(f"cannot read {path}: {error.strerror or error}") from error
    if limit is not None and len(data) > limit:
        raise CatuvacError(f"{path} is larger than {limit >> 10} KiB; it is not such a file of catuvac")
    seals = list(_SEAL.finditer(data))
    if seals:
        start, end = seals[-1].span(1)
        expected = hashlib.sha256(data[:start] + 64 * b"0" + data[end:]).hexdigest()
        if seals[-1].group(1).decode() != expected:
            raise damaged(path, "it has changed since it was written", advice)
    return data


def seal(data: bytes) -> bytes:
    """Fills in the last `BLANK` of a file's content; raises `ValueError` if there is none."""
    head, blank, tail = data.rpartition(BLANK.encode())
    if not blank:
        raise ValueError("the content has no place for a seal")
    return head + (MARK + hashlib.sha256(data).hexdigest()).encode() + tail


def write_yaml(path: Path, text: str) -> None:
    """Writes YAML with a seal in its first line, so that a truncated file is detected."""
    first = f"# {BLANK} seals this file: delete this line before you edit the others\n"
    write(path, seal((first + text).encode("utf-8")))


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Writes a record with a seal as its last entry."""
    write(path, seal(json.dumps({**record, "seal": BLANK}, indent=2).encode("utf-8")))


def read_json(path: Path, kinds: Mapping[str, type | UnionType], *, advice: str = ADVICE) -> dict[str, Any]:
    """Reads a record and checks that the required entries are present.

    Args:
        path: of the file.
        kinds: the type of every required entry.
        advice: what to do about a damaged file; follows a semicolon.

    Raises:
        CatuvacError: as `read`; or it is not JSON, not a record, or lacks an entry, as a file of another version may.
    """
    try:
        record = _parse(read(path, advice=advice))
    except ValueError as error:
        raise damaged(path, "it is not JSON", advice) from error
    if not isinstance(record, dict):
        raise damaged(path, "it does not contain a record", advice)
    for name, kind in kinds.items():
        if not isinstance(record.get(name), kind):
            raise CatuvacError(f"{path} has no valid entry {name!r}: it is from another version of catuvac or {advice}")
    return record


def with_sum(record: Mapping[str, Any]) -> dict[str, Any]:
    """Adds a checksum to a record of plain values, for a line of JSON in a file that is appended to."""
    return {**record, LINE_SUM: _sum(record)}


def without_sum(record: Any) -> dict[str, Any]:
    """Removes the checksum if there is one; raises `ValueError` if it does not match the record."""
    if not isinstance(record, dict):
        raise ValueError("a line does not contain a record")
    rest = {name: value for name, value in record.items() if name != LINE_SUM}
    if LINE_SUM in record and record[LINE_SUM] != _sum(rest):
        raise ValueError("a line has changed since it was written")
    return rest


def _sum(record: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def parse_line(line: bytes) -> dict[str, Any]:
    """Reads a line of JSON; raises `ValueError` if it has changed since it was written."""
    return without_sum(_parse(line))


def _parse(data: bytes) -> Any:
    """Reads JSON; raises `ValueError` if it is invalid or nested so deeply that Python's stack would overflow."""
    depth = 0
    for token in _BRACKETS.finditer(data):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(token[0], 0)
        if depth > DEEPEST:
            raise ValueError("it is nested too deeply")
    return json.loads(data.decode("utf-8"))


@contextmanager
def alone(folder: Path, *, busy: str, flag: str) -> Iterator[None]:
    """Creates a folder, locks it against other processes of its kind, and removes unfinished files of killed ones.

    Args:
        folder: for one process at a time.
        busy: the message if another process holds the lock.
        flag: the command's flag that chooses another folder if this one cannot be written to.

    Raises:
        CatuvacError: another process holds the lock, or the folder cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_writable(folder, error, flag) from error
    with exclusive(folder / LOCK, busy=busy):
        remove_leftovers(folder)
        yield


def not_writable(folder: Path, error: OSError, flag: str) -> CatuvacError:
    """Returns the error for a folder that cannot be written to; `flag` chooses another folder."""
    return CatuvacError(f"cannot write to {folder}: {error.strerror or error}; give another {flag}")


def remove_leftovers(folder: Path) -> None:
    """Removes what killed writers left in a folder, but no file of a process that runs on this machine."""
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _TEMPORARY.fullmatch(path.name)
        if match and not path.is_dir() and not _lives(int(match["process"])):
            path.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # the process belongs to another user
        return True
    return process != os.getpid()  # this process is not writing anything while it cleans up
