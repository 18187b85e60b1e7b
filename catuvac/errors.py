"""The one exception a user is meant to read, and what a command makes of it."""

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

Handler = Callable[[int, FrameType | None], object] | int | None  # of a signal

NARROWEST = 60  # columns: in fewer, tables show nothing, and in one, laying out --help never ends

_FULL = "free some space, then go on with the same command (and --resume, where it has that)"
_CLOSED = "choose a folder that you may write to"
ADVICE = {  # after what the system says of a file
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: _CLOSED,
    errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED,
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: "the disk or the file system fails: choose a folder on another",
}


class CatuvacError(Exception):
    """Bad input: one line that says what is wrong and what to do. Commands print it and exit with code 2."""


def printable(text: str) -> str:
    """The text with escapes in place of what moves a terminal's cursor, ends a line or is no Unicode.

    File names may hold any byte but two; those that are not UTF-8 are lone surrogates in Python's strings.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def said_by_system(error: OSError) -> str:
    """What went wrong with a file, in one line that says what to do where that is known."""
    reason = error.strerror or str(error) or type(error).__name__
    name = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    advice = ADVICE.get(error.errno or 0)
    return f"{name}{reason}{f'; {advice}' if advice else ''}"


def guarded(command: Callable[[], object]) -> int:
    """Calls `command()` and returns an exit code: bad input is one line and 2, Ctrl-C or SIGTERM one line and 130."""
    _set_up_output()
    before = end_as_ctrl_c()
    try:
        command()
    except CatuvacError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the output, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as a shell has it: 128 and SIGPIPE
    except OSError as error:  # a disk that is full, fails or is closed to this user, wherever that shows
        print(f"error: {printable(said_by_system(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; what is on disk is whole", file=sys.stderr)
        return 130
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
    return 0


def _set_up_output() -> None:
    """Makes any text printable on any terminal, however narrow it is and whatever it can encode."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    asked = os.environ.get("COLUMNS", "")
    width = int(asked) if asked.isdecimal() else shutil.get_terminal_size().columns
    if width < NARROWEST:
        os.environ["COLUMNS"] = str(NARROWEST)


def end_as_ctrl_c() -> Handler:
    """Makes SIGTERM, by which Slurm, Kubernetes and `ray job stop` end a process, do what Ctrl-C would do then.

    Returns:
        What handled it before; None outside the main thread, where no handler can be set.
    """
    if threading.current_thread() is not threading.main_thread():
        return None

    def handle(number: int, frame: FrameType | None) -> None:
        ctrl_c = signal.getsignal(signal.SIGINT)  # Tune's while it runs, which ends the trials first
        # A process that a shell has started in the background ignores Ctrl-C, but must not ignore this.
        (ctrl_c if callable(ctrl_c) else signal.default_int_handler)(number, frame)

    return signal.signal(signal.SIGTERM, handle)
