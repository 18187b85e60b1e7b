"""What a resumed study makes anew instead of reading it from Ray's snapshot."""

from __future__ import annotations

from typing import Any

_made: dict[str, Any] = {}  # in this process, by class


class ProcessLocal:
    """An object that Ray pickles as a mere name, and that unpickles to the one that this process has made.

    Ray restores a study's searcher and callbacks from the snapshot of its first start. These then hold what the flags
    of today say, and no connection or file has to survive pickling.
    """

    def __new__(cls, *_: Any, **__: Any) -> Any:
        """Makes the object and remembers it, the latest of its class."""
        _made[cls.__name__] = made = super().__new__(cls)
        return made

    def __reduce__(self) -> Any:
        return _find, (type(self).__name__,)


def _find(name: str) -> Any:
    return _made[name]
