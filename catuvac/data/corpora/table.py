"""What every corpus delivers: a table of clips."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pandas as pd
from torch import Tensor

from catuvac.config import CorpusConfig, unknown
from catuvac.data import audio
from catuvac.errors import CatuvacError

COMMON = ("path", "label", "duration", "split")  # every other column of a clip table is a nuisance


@dataclass(frozen=True)
class ClipTable:
    """The clips of a corpus, in a fixed order.

    `clips` holds `path` (absolute, or a generated clip's name), `label` (a name; no such column where there are none),
    `duration` (s, without padding; NaN where the file is unreadable), `split` (only where the corpus has an official
    one: train, test, and val where there is one) and the corpus's nuisance columns. `note` states how much of the
    corpus is there.
    """

    clips: pd.DataFrame
    note: str


def path_column(paths: Iterable[Path]) -> pd.Series:
    """Paths as a column that takes names in any encoding, which pandas' own strings do not."""
    return pd.Series([str(path) for path in paths], dtype=object)


class Read(Protocol):
    """Reads a clip, float32 `[samples]` at `sample_rate` Hz; what lies after `seconds` need not be among them."""

    def __call__(self, config: CorpusConfig, path: str, sample_rate: int, *, seconds: float = math.inf) -> Tensor: ...


def read_file(config: CorpusConfig, path: str, sample_rate: int, *, seconds: float = math.inf) -> Tensor:
    """`Corpus.read` of every corpus that lies in files; raises `AudioError`."""
    del config
    return audio.load(path, sample_rate=sample_rate, seconds=seconds)


@dataclass(frozen=True)
class Corpus:
    """A corpus as `catuvac datasets` lists it and as the store reads it."""

    name: str
    description: str
    licence: str
    nuisances: tuple[str, ...]  # clip-table columns that clusters should not follow
    group: str  # the one that a group-safe split keeps on one side; "" where there is none
    full: int  # clips of the complete corpus as the paper uses it; 0 where there is no such number
    index: Callable[[CorpusConfig, Path | None], ClipTable]  # raises CatuvacError where the root is wrong
    needs_root: bool = True
    read: Read = read_file


def read_table(path: Path, columns: Sequence[str], *, separator: str = ",") -> pd.DataFrame:
    """The rows of a corpus's own table.

    Raises:
        CatuvacError: it is malformed or empty, or one of the `columns` is missing or has no value in some row.
    """
    try:
        rows = pd.read_csv(path, sep=separator)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise CatuvacError(
            f"{path} is not the corpus's table: {' '.join(str(error).split())}; restore the official one"
        ) from error
    missing = [column for column in columns if column not in rows]
    if missing:
        raise CatuvacError(
            f"{path} lacks the column {', '.join(missing)}; it has {', '.join(rows.columns)}: restore the official one"
        )
    if rows.empty:
        raise CatuvacError(f"{path} lists no clip: restore the official one")
    for column in columns:
        check(rows[column].notna(), path, f"no {column}")
    return rows


def check(good: pd.Series, table: Path, what: str) -> None:
    """Raises `CatuvacError`, with `what` is wrong, for the first row of a table that is not `good`."""
    bad = good.index[~good]
    if len(bad):  # lines are counted from 1, below the header
        raise CatuvacError(f"{table} line {bad[0] + 2}: {what}; correct it, or restore the official table")


def check_values(rows: pd.DataFrame, column: str, known: Collection[str | int], table: Path) -> None:
    """Raises `CatuvacError` for the first value of a column that is not among the `known` ones."""
    odd = rows.loc[~rows[column].isin(known), column]
    if len(odd):
        check(rows[column].isin(known), table, unknown(column, str(odd.iloc[0]), map(str, known)))


def keep_present(rows: pd.DataFrame, paths: pd.Series, *, partial: bool) -> tuple[pd.DataFrame, str]:
    """The rows whose file is there, with a column `path`, and what a note should say about the others.

    A folder that is absent as a whole is a partial tree, which is fine. A file that is absent from a folder that is
    there is damage.

    Raises:
        CatuvacError: a file that is listed twice, no file at all, or damage that `partial` does not accept.
    """
    twice = paths[paths.map(os.path.normpath).duplicated()]
    if len(twice):
        raise CatuvacError(f"{twice.iloc[0]} is listed twice: remove one of the rows, or restore the official table")
    # By name, with nothing built for a file: a corpus lists thousands of which most may not be there.
    folders = paths.map(os.path.dirname)
    expected = folders.isin([folder for folder in folders.unique() if os.path.isdir(folder)])
    found = expected & paths.map(os.path.isfile)
    if not found.any():
        raise CatuvacError(f"none of the {len(paths)} listed files is there, the first: {paths[0]}: put them there")
    absent = paths[expected & ~found]
    if len(absent) and not partial:
        raise CatuvacError(
            f"{len(absent)} of {expected.sum()} listed files are absent, the first {absent.iloc[0]}: put them there, "
            "or accept it with --partial"
        )
    kept = rows.assign(path=paths)[found].reset_index(drop=True)
    return kept, f"; {len(absent)} listed but absent" if len(absent) else ""
