"""Objects that a resumed study creates itself instead of restoring them from Ray's snapshot."""

from __future__ import annotations

from typing import Any

_instances: dict[str, Any] = {}  # the objects of this process, by class name


class ProcessLocal:
    """An object that is pickled as its class name and unpickled as the object that this process has created.

    Ray restores a study's searcher and callbacks from the snapshot of its first start. With this class, they follow
    the flags of the current command, and no connection or file has to survive pickling.
    """

    def __new__(cls, *_: Any, **__: Any) -> Any:
        """Creates the object and registers it as the latest of its class."""
        _instances[cls.__name__] = instance = super().__new__(cls)
        return instance

    def __reduce__(self) -> Any:
        return _find, (type(self).__name__,)


def _find(name: str) -> Any:
    return _instances[name]
