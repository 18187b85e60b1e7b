"""The exception for bad input, and how commands report errors and interruptions."""

from __future__ import annotations

import errno
import io
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

Handler = Callable[[int, FrameType | None], object] | int | None  # signal handler

NARROWEST = 60  # columns: with fewer, tables show nothing, and with one, the layout of --help never ends

_FULL = "free some space, then run the same command again (with --resume, if it has that flag)"
_CLOSED = "choose a folder that you may write to"
ADVICE = {  # appended to the system's message about a file
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: _CLOSED,
    errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED,
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: "the disk or the file system is failing: choose a folder on another one",
}


class CatuvacError(Exception):
    """Bad input, described in one line with a remedy. Commands print the line and exit with code 2."""


def printable(text: str) -> str:
    """Escapes characters that move a terminal's cursor, end a line or are not valid Unicode.

    File names may contain any byte but two; Python represents those that are not UTF-8 as lone surrogates.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def first_line(error: BaseException) -> str:
    """Returns the first line of an exception's message; the name of its type if it has none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def said_by_system(error: OSError) -> str:
    """Describes an error with a file in one line, with advice where there is some."""
    reason = error.strerror or str(error) or type(error).__name__
    name = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    advice = ADVICE.get(error.errno or 0)
    return f"{name}{reason}{f'; {advice}' if advice else ''}"


def storable(text: str) -> str:
    """Escapes what Unicode, and so Parquet's text, cannot contain: file names may consist of any bytes."""
    return text.encode(errors="backslashreplace").decode()


def guarded(command: Callable[[], object]) -> int:
    """Calls `command()` and returns the exit code: 2 after one line for bad input, 130 after Ctrl-C or SIGTERM."""
    _set_up_output()
    before = end_as_ctrl_c()
    try:
        command()
    except CatuvacError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as shells report it: 128 + SIGPIPE
    except OSError as error:  # a disk that is full, failing or not writable for this user, wherever that is noticed
        print(f"error: {printable(said_by_system(error))}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which takes seconds to import
            raise
        print("error: the GPU's memory is full: lower --batch-size, or end what else uses it", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the files on disk are complete", file=sys.stderr)
        return 130
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
    return 0


def _set_up_output() -> None:
    """Makes any text printable on any terminal, whatever its width and encoding."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() else shutil.get_terminal_size().columns
    if width < NARROWEST:
        os.environ["COLUMNS"] = str(NARROWEST)


def end_as_ctrl_c() -> Handler:
    """Makes SIGTERM, by which Slurm, Kubernetes and `ray job stop` end a process, act like Ctrl-C.

    Returns:
        The previous handler; None outside the main thread, where no handler can be set.
    """
    if threading.current_thread() is not threading.main_thread():
        return None

    def handle(number: int, frame: FrameType | None) -> None:
        ctrl_c = signal.getsignal(signal.SIGINT)  # while Tune runs, its own handler, which ends the trials first
        # A process that a shell has started in the background ignores Ctrl-C, but must not ignore SIGTERM.
        (ctrl_c if callable(ctrl_c) else signal.default_int_handler)(number, frame)

    return signal.signal(signal.SIGTERM, handle)
