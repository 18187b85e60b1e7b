"""Objects that Ray's snapshots of a study do not contain."""

from __future__ import annotations

from typing import Any


class ProcessLocal:
    """An object that is pickled as an empty one.

    Ray pickles a study's searcher and callbacks into snapshots, which nobody reads: a resumed study creates its own.
    With this class, no connection or file has to survive pickling.
    """

    def __reduce__(self) -> Any:
        return object, ()
