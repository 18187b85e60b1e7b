"""The one exception a user is meant to read, and what a command makes of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


class CatuvacError(Exception):
    """Bad input: one line that says what is wrong and what to do. Commands print it and exit with code 2."""


def guarded(command: Callable[[], object]) -> int:
    """Calls `command()` and returns an exit code: bad input is one line and 2, Ctrl-C is one line and 130."""
    try:
        command()
    except CatuvacError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the output, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as a shell has it: 128 and SIGPIPE
    except KeyboardInterrupt:
        print("interrupted; what is on disk is whole", file=sys.stderr)
        return 130
    return 0
