"""Files that survive a crash and that other users cannot tamper with: locks, checksums, synced folders."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from catuvac.errors import CatuvacError

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def ours(status: os.stat_result) -> bool:
    """Returns whether a file belongs to this process's user or to root, who can change everything anyway."""
    return status.st_uid in (os.geteuid(), 0)


def private_folder(folder: Path) -> None:
    """Creates a folder that only its owner can use, or checks an existing one.

    Raises:
        CatuvacError: it belongs to another user, or other users may replace its files.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if not ours(status):
        raise CatuvacError(f"{folder} belongs to user {status.st_uid}, not to you: choose a folder of your own")
    if status.st_mode & OTHERS_WRITE and not status.st_mode & stat.S_ISVTX:
        raise CatuvacError(
            f"other users may write to {folder} and could replace its content: run `chmod go-w {folder}`, or choose "
            "a folder of your own"
        )


@contextmanager
def locked(path: Path, *, waiting: str, remove: bool = False) -> Iterator[None]:
    """Holds an exclusive lock between processes; the system releases it when the holder ends, for whatever reason.

    The file is never written to, so a link that another user has put there does no harm.

    Args:
        path: the lock file, which is created if it does not exist.
        waiting: what the holder does, for the line on stderr at the start of a wait.
        remove: remove the file at the end.

    Raises:
        CatuvacError: it is a link or not a regular file, or belongs to another user, who could hold the lock forever.
    """
    while True:
        handle = _open_lock(path)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"waiting for another process that {waiting}", file=sys.stderr)
                fcntl.flock(handle, fcntl.LOCK_EX)
            if not _is(path, handle):
                continue  # its holder has removed it meanwhile: the lock is on a new file now
            try:
                yield
            finally:
                if remove:
                    path.unlink(missing_ok=True)
            return
        finally:
            os.close(handle)


@contextmanager
def exclusive(path: Path, *, busy: str, wait: float = 0.0) -> Iterator[None]:
    """Holds a lock between processes, also on several machines if their file system supports locks.

    The system releases it when the holder ends, for whatever reason. The file is never written to, so a link that
    another user has put there does no harm.

    Args:
        path: of the lock file, which is created if it does not exist, and is not removed.
        busy: the message if another process holds the lock.
        wait: s to wait for the other process.

    Raises:
        CatuvacError: another process holds the lock, or the file cannot be locked.
    """
    handle = _open_lock(path, shared=True)
    deadline = time.monotonic() + wait
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise CatuvacError(busy) from None
                time.sleep(0.01)
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                raise CatuvacError(f"the file system of {path.parent} supports no locks; choose another") from error
        yield
    finally:
        os.close(handle)


def _open_lock(path: Path, *, shared: bool = False) -> int:
    """Opens a lock file; one that several users share, such as in a group's folder, may belong to another user."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, 0o666 if shared else 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise CatuvacError(f"the lock {path} is a link, which another user may have made: remove it") from error
        raise
    status = os.fstat(handle)
    if stat.S_ISREG(status.st_mode) and (shared or ours(status)):
        return handle
    os.close(handle)
    raise CatuvacError(f"the lock {path} is not a file of yours: remove it, or choose a folder of your own")


def _is(path: Path, handle: int) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(path.lstat(), os.fstat(handle))
    return False


def checksum(path: Path) -> str:
    """Returns the SHA-256 sum of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on disk: a rename must not precede the content."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path next to `path` to write to, and renames it to `path` on success, atomically.

    The content is on disk before the rename, and nothing is left behind if writing fails.

    Raises:
        OSError: the system's error, with the name of `path`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666))
    except OSError as error:
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)  # the new name too
    except OSError as error:
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write(path: Path, data: bytes | memoryview) -> None:
    """Writes a file completely or not at all; raises `OSError` as `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Writes text as UTF-8, completely or not at all; raises `OSError` as `replacing`."""
    write(path, text.encode("utf-8"))


def expand_home(arguments: Iterable[str]) -> list[str]:
    """Replaces the ~ of `--flag=~/x` in command-line arguments by the home folder, as no shell does."""
    flags = (argument.partition("=~") if argument.startswith("--") else (argument, "", "") for argument in arguments)
    return [f"{flag}={os.path.expanduser('~' + path)}" if tilde else flag for flag, tilde, path in flags]
