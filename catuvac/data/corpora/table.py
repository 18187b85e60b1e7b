"""The table of clips that every corpus returns."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from torch import Tensor

from catuvac.config import CorpusConfig, FeatureConfig, unknown
from catuvac.data import audio
from catuvac.errors import CatuvacError

COMMON = ("path", "label", "start", "duration", "split", "clip")  # every other column of a clip table is a nuisance
OFFICIAL = "restore the official one"  # remedy for a table that comes with a corpus


@dataclass(frozen=True)
class ClipTable:
    """The clips of a corpus, in a fixed order.

    `clips` has the columns `path` (absolute, or a generated clip's name), `label` (a name; absent without labels),
    `start` (s; only if clips are parts of recordings), `duration` (s, without padding; NaN where the file is
    unreadable), `split` (only if the corpus has an official one: train, test and possibly val), `clip` (only if rows
    are windows: the number of their clip) and the corpus's nuisances. `note` states how much of the corpus is present.
    """

    clips: pd.DataFrame
    note: str


def starts(clips: pd.DataFrame) -> list[float]:
    """Returns where each clip of a `ClipTable` begins in its recording, in s."""
    return clips["start"].tolist() if "start" in clips else [0.0] * len(clips)


def windows(table: ClipTable, front_end: FeatureConfig) -> ClipTable:
    """Cuts clips into windows of `front_end.context` s, which then are the rows; without a context, returns the table.

    Windows follow one another. The end of a clip is a window if it is at least half as long as one, as is a whole clip.
    """
    if not front_end.context:
        return table
    length = table.clips["duration"].clip(upper=front_end.clip_seconds)  # later samples are not part of the clip
    context = front_end.context
    counts = np.array([audio.window_count(each, seconds=context, hop=context) for each in length.fillna(0.0)])
    clip = np.repeat(np.arange(len(counts)), counts)
    before = (np.arange(len(clip)) - (np.cumsum(counts) - counts)[clip]) * context  # s
    cut = (
        table.clips.iloc[clip]
        .reset_index(drop=True)
        .assign(
            start=np.array(starts(table.clips))[clip] + before,
            duration=np.minimum(length.to_numpy()[clip] - before, context),
            clip=clip,
        )
    )
    return ClipTable(cut, f"{table.note}; {len(cut)} windows of {context:g} s")


def path_column(paths: Iterable[Path]) -> pd.Series:
    """Returns paths as a column that accepts names in any encoding, which pandas' own strings do not."""
    return pd.Series([str(path) for path in paths], dtype=object)


class Read(Protocol):
    """Reads a clip, float32 `[samples]` at `sample_rate` Hz, starting at `start` s of its recording.

    Samples later than `seconds` after that may be left out.
    """

    def __call__(
        self, config: CorpusConfig, path: str, sample_rate: int, *, start: float = 0.0, seconds: float = math.inf
    ) -> Tensor: ...


def read_file(
    config: CorpusConfig, path: str, sample_rate: int, *, start: float = 0.0, seconds: float = math.inf
) -> Tensor:
    """Implements `Corpus.read` for every corpus of files; raises `AudioError`."""
    del config
    return audio.load(path, sample_rate=sample_rate, start=start, seconds=seconds)


@dataclass(frozen=True)
class Corpus:
    """A corpus as `catuvac datasets` lists it and as the store reads it."""

    name: str
    description: str
    licence: str
    nuisances: tuple[str, ...]  # clip-table columns that clusters should not follow
    group: str  # the one whose values a group-safe split keeps together; "" if there is none
    full: int  # clips of the complete corpus as the paper uses it; 0 if there is no such number
    index: Callable[[CorpusConfig, Path | None], ClipTable]  # raises CatuvacError for a wrong root
    needs_root: bool = True
    read: Read = read_file


def read_table(
    path: Path, columns: Sequence[str], *, separator: str = ",", texts: bool = False, remedy: str = OFFICIAL
) -> pd.DataFrame:
    """Reads the rows of a table of clips.

    Args:
        path: UTF-8, with column names in the first line.
        columns: those that must have a value in every row.
        separator: of the columns.
        texts: keep every cell as text, such as 007, and empty cells as "".
        remedy: what the user should do about a wrong table.

    Raises:
        CatuvacError: it is malformed or empty, or one of the `columns` is missing or has no value in some row.
    """
    try:
        rows = pd.read_csv(path, sep=separator, dtype=str if texts else None, keep_default_na=not texts)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        problem = "not UTF-8" if isinstance(error, UnicodeDecodeError) else "not the corpus's table"
        raise CatuvacError(f"{path} is {problem}: {' '.join(str(error).split())}; {remedy}") from error
    missing = [column for column in columns if column not in rows]
    if missing:
        raise CatuvacError(f"{path} lacks the column {', '.join(missing)}; it has {', '.join(rows.columns)}: {remedy}")
    if rows.empty:
        raise CatuvacError(f"{path} lists no clip: {remedy}")
    if not isinstance(rows.index, pd.RangeIndex):  # pandas takes a first column without a name as the index
        raise CatuvacError(f"{path} has more values in a line than column names: {remedy}")
    for column in columns:
        check(rows[column].notna() & (rows[column] != ""), path, f"no {column}", remedy=remedy)
    return rows


def check(good: pd.Series, table: Path, what: str, *, remedy: str = OFFICIAL) -> None:
    """Raises `CatuvacError` for the first row of a table that is not `good`; `what` states the problem."""
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
    """Returns the rows whose file exists, with a column `path`, and a text for the note about the others.

    A folder that is absent as a whole makes a partial tree, which is fine. A file that is absent from an existing
    folder is damage.

    Raises:
        CatuvacError: a file that is listed twice, no file at all, or damage that `partial` does not accept.
    """
    twice = paths[paths.map(os.path.normpath).duplicated()]
    if len(twice):
        raise CatuvacError(f"{twice.iloc[0]} is listed twice: remove one of the rows, or restore the official table")
    # Compares names, without an object per file: a corpus lists thousands, most of which may be absent.
    folders = paths.map(os.path.dirname)
    expected = folders.isin([folder for folder in folders.unique() if os.path.isdir(folder)])
    present = expected & paths.map(os.path.isfile)
    if not present.any():
        raise CatuvacError(f"none of the {len(paths)} listed files is there, the first: {paths[0]}: put them there")
    absent = refuse_absent(paths[expected & ~present], int(expected.sum()), partial=partial)
    return rows.assign(path=paths)[present].reset_index(drop=True), absent


def refuse_absent(absent: pd.Series, listed: int, *, partial: bool) -> str:
    """Returns a text for the note about the absent ones of `listed` files.

    Raises:
        CatuvacError: some are absent, and `partial` does not accept it.
    """
    if len(absent) and not partial:
        raise CatuvacError(
            f"{len(absent)} of {listed} listed files are absent, the first {absent.iloc[0]}: put them there, or accept "
            "it with --partial"
        )
    return f"; {len(absent)} listed but absent" if len(absent) else ""
