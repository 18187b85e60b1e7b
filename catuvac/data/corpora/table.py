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

COMMON = ("path", "label", "start", "duration", "split")  # every other column of a clip table is a nuisance
OFFICIAL = "restore the official one"  # what to do about a table that a corpus comes with


@dataclass(frozen=True)
class ClipTable:
    """The clips of a corpus, in a fixed order.

    `clips` holds `path` (absolute, or a generated clip's name), `label` (a name; no such column where there are none),
    `start` (s; only where clips are parts of recordings), `duration` (s, without padding; NaN where the file is
    unreadable), `split` (only where the corpus has an official one: train, test, and val where there is one) and the
    corpus's nuisance columns. `note` states how much of the corpus is there.
    """

    clips: pd.DataFrame
    note: str


def starts(clips: pd.DataFrame) -> list[float]:
    """Where each clip of a `ClipTable` begins in its recording, in s."""
    return clips["start"].tolist() if "start" in clips else [0.0] * len(clips)


def path_column(paths: Iterable[Path]) -> pd.Series:
    """Paths as a column that takes names in any encoding, which pandas' own strings do not."""
    return pd.Series([str(path) for path in paths], dtype=object)


class Read(Protocol):
    """Reads a clip, float32 `[samples]` at `sample_rate` Hz, from `start` s of its recording on.

    What lies `seconds` after that need not be among the samples.
    """

    def __call__(
        self, config: CorpusConfig, path: str, sample_rate: int, *, start: float = 0.0, seconds: float = math.inf
    ) -> Tensor: ...


def read_file(
    config: CorpusConfig, path: str, sample_rate: int, *, start: float = 0.0, seconds: float = math.inf
) -> Tensor:
    """`Corpus.read` of every corpus that lies in files; raises `AudioError`."""
    del config
    return audio.load(path, sample_rate=sample_rate, start=start, seconds=seconds)


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


def read_table(
    path: Path, columns: Sequence[str], *, separator: str = ",", texts: bool = False, remedy: str = OFFICIAL
) -> pd.DataFrame:
    """The rows of a table of clips.

    Args:
        path: UTF-8, a line of column names first.
        columns: those that must have a value in every row.
        separator: of the columns.
        texts: every value is the text of its cell, as in 007, and "" where the cell is empty.
        remedy: what the user should do about a table that is wrong.

    Raises:
        CatuvacError: it is malformed or empty, or one of the `columns` is missing or has no value in some row.
    """
    try:
        rows = pd.read_csv(path, sep=separator, dtype=str if texts else None, keep_default_na=not texts)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        what = "not UTF-8" if isinstance(error, UnicodeDecodeError) else "not the corpus's table"
        raise CatuvacError(f"{path} is {what}: {' '.join(str(error).split())}; {remedy}") from error
    missing = [column for column in columns if column not in rows]
    if missing:
        raise CatuvacError(f"{path} lacks the column {', '.join(missing)}; it has {', '.join(rows.columns)}: {remedy}")
    if rows.empty:
        raise CatuvacError(f"{path} lists no clip: {remedy}")
    if not isinstance(rows.index, pd.RangeIndex):  # what pandas makes of a first column without a name
        raise CatuvacError(f"{path} has more values in a line than names of columns: {remedy}")
    for column in columns:
        check(rows[column].notna() & (rows[column] != ""), path, f"no {column}", remedy=remedy)
    return rows


def check(good: pd.Series, table: Path, what: str, *, remedy: str = OFFICIAL) -> None:
    """Raises `CatuvacError`, with `what` is wrong, for the first row of a table that is not `good`."""
    bad = good.index[~good]
    if len(bad):  # lines are counted from 1, below the header
        remedy = f"correct it, or {remedy}" if remedy == OFFICIAL else remedy
        raise CatuvacError(f"{table} line {bad[0] + 2}: {what}; {remedy}")


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
    absent = refuse_absent(paths[expected & ~found], int(expected.sum()), partial=partial)
    return rows.assign(path=paths)[found].reset_index(drop=True), absent


def refuse_absent(absent: pd.Series, listed: int, *, partial: bool) -> str:
    """What a note should say about the absent files of so many listed ones.

    Raises:
        CatuvacError: there are some, and `partial` does not accept it.
    """
    if len(absent) and not partial:
        raise CatuvacError(
            f"{len(absent)} of {listed} listed files are absent, the first {absent.iloc[0]}: put them there, or accept "
            "it with --partial"
        )
    return f"; {len(absent)} listed but absent" if len(absent) else ""
