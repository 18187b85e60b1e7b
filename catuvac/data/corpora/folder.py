"""Your own recordings: any tree of audio files, with metadata in its folders, its file names or a table.

`folder_labels` makes the first sub-folder the label. `pattern` is a regular expression for the start of each path below
the root, with / between folders; its named groups become columns. `table` is a CSV with a row per clip. Both may give a
`label` and an official `split`; every other column, such as the speaker, the site or the date, is a nuisance column,
which a group-safe split can keep on one side (`--split grouped --group speaker`).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from catuvac.config import CorpusConfig, unknown
from catuvac.data import audio
from catuvac.data.corpora.table import COMMON, ClipTable, Corpus, check, path_column, read_table, refuse_absent
from catuvac.errors import CatuvacError, printable

# Suffixes of what libsndfile reads, except MATLAB's .mat, which is seldom audio, and .raw, which does not state its
# format.
READ = (
    *(".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".aifc", ".opus", ".oga", ".caf", ".au", ".w64", ".rf64"),
    *(".snd", ".bwf", ".mp1", ".mp2", ".sph", ".nist", ".sf", ".ircam", ".voc", ".avr", ".svx", ".8svx", ".iff"),
    *(".paf", ".pvf", ".htk", ".sds", ".sd2", ".wve", ".xi", ".mpc"),
)
# libsndfile reads none of these so far; they are listed so that each is reported as skipped instead of ignored.
UNREAD = (".m4a", ".mp4", ".aac", ".wma", ".webm", ".amr", ".ape", ".wv", ".mka", ".ac3", ".dsf", ".3gp")
HIDDEN = "."  # prefix of hidden names; on other file systems, macOS stores metadata of x.wav in ._x.wav

SPLITS = ("train", "val", "test")
UNKNOWN = "unknown"  # a nuisance column's value where it is missing
GIVEN = ("label", "split")  # columns with a fixed meaning that a pattern or a table may have
PLACE = ("path", "start", "end")  # further such columns of a table
RESERVED = {*COMMON, "reason"}  # those that it may not have otherwise
CORRECT = "correct it"


def _index(config: CorpusConfig, data_root: Path | None) -> ClipTable:
    assert data_root is not None
    if config.table:
        return _tabled(config, data_root)
    paths = sorted(recordings(data_root))
    if not paths:
        raise CatuvacError(f"no {', '.join(READ)} file below {data_root}: give --data-root a folder that contains some")
    if config.pattern:
        paths, known, note = _matched(paths, config, data_root)
    else:
        known, note = _labelled(paths, config, data_root)
    clips = pd.DataFrame({"path": path_column(paths), **known, "duration": [audio.duration(path) for path in paths]})
    return ClipTable(clips, f"{len(paths)} files{note}")


def _labelled(paths: Sequence[Path], config: CorpusConfig, root: Path) -> tuple[dict[str, list[str]], str]:
    """Returns the labels of files, if `folder_labels` asks for them, and a text for the note."""
    if not config.folder_labels:
        return {}, ""
    loose = [path for path in paths if path.parent == root]
    if loose:
        raise CatuvacError(
            f"{loose[0]} has no label: folder_labels takes the first sub-folder, so move {len(loose)} such "
            "file(s) into one, or switch folder_labels off"
        )
    labels = [printable(path.relative_to(root).parts[0]) for path in paths]
    return {"label": labels}, f" in {len(set(labels))} labelled sub-folders"


def _matched(paths: Sequence[Path], config: CorpusConfig, root: Path) -> tuple[list[Path], dict[str, list[str]], str]:
    """Returns the files that the pattern matches, their columns, and a text for the note."""
    pattern = re.compile(config.pattern)
    where = f"pattern {config.pattern!r}"
    _check_names(list(pattern.groupindex), where, GIVEN)
    matches = [(path, pattern.match(path.relative_to(root).as_posix())) for path in paths]
    matched = [(path, match) for path, match in matches if match]
    others = [path for path, match in matches if not match]
    if others and not (config.partial and matched):
        raise CatuvacError(
            f"{where} does not match {len(others)} of {len(paths)} files, the first {others[0].relative_to(root)}: "
            "widen it, or leave such files out with --partial"
        )
    columns = {name: [printable(match[name] or "") for _, match in matched] for name in pattern.groupindex}
    left_out = f"; {len(others)} that do not match left out" if others else ""
    names = [str(path) for path, _ in matched]
    return [path for path, _ in matched], _filled(columns, names, where), f"{_described(columns)}{left_out}"


def _tabled(config: CorpusConfig, root: Path) -> ClipTable:
    """Returns the clips of `config.table`, in its order."""
    table = root / config.table
    if not table.is_file():
        raise CatuvacError(f"no table {table}: give --table its path relative to --data-root, or an absolute one")
    separator = "\t" if table.suffix.lower() == ".tsv" else ","
    rows = read_table(table, ["path"], separator=separator, texts=True, remedy=CORRECT)
    rows.columns = [printable(str(name)) for name in rows.columns]
    _check_names(list(rows.columns), str(table), (*GIVEN, *PLACE))

    paths = rows["path"].map(lambda path: os.path.normpath(root / path))
    start = _seconds(rows, "start", blank=0.0)
    end = _seconds(rows, "end", blank=math.inf)
    check((start >= 0) & (start < end) & (start < math.inf), table, "not 0 <= start < end, in s", remedy=CORRECT)
    spans = pd.DataFrame({"path": paths, "start": start, "end": end})
    check(~spans.duplicated(), table, "the same clip as in an earlier line", remedy="remove one of the two")
    here = paths.map(os.path.isfile)
    absent = refuse_absent(paths[~here], len(paths), partial=config.partial)
    if not here.any():
        raise CatuvacError(f"none of the {len(paths)} files of {table} is there, the first: {paths[0]}: put them there")

    rows, paths, start, end = rows[here], paths[here], start[here], end[here]
    columns = {str(name): rows[name].map(printable).tolist() for name in rows if name not in PLACE}
    lengths = paths.map({path: audio.duration(path) for path in paths.unique()})
    left = np.minimum(end, lengths) - start  # an end beyond the recording's is replaced by that
    clips = pd.DataFrame(
        {
            "path": paths.astype(object),
            **_filled(columns, [f"line {row + 2}" for row in rows.index], str(table)),
            **({"start": start} if "start" in rows else {}),
            "duration": left.where(left > 0),
        }
    ).reset_index(drop=True)
    return ClipTable(clips, f"{len(clips)} clips of {paths.nunique()} files{_described(columns)}{absent}")


def _seconds(rows: pd.DataFrame, name: str, *, blank: float) -> pd.Series:
    """Returns a column in s: NaN where it is not a number, `blank` where it is empty or if it does not exist."""
    texts = rows[name] if name in rows else pd.Series("", index=rows.index)
    return pd.to_numeric(texts, errors="coerce").astype(float).where(texts.str.strip() != "", blank)


def _check_names(names: Sequence[str], where: str, given: Sequence[str]) -> None:
    """Raises `CatuvacError` for a column that a pattern or a table may not have, or that resembles a `given` one."""
    for name in names:
        meant = name.strip().casefold()
        if meant in given and meant != name:
            raise CatuvacError(f"{where} has a column {name!r}: did you mean {meant!r}?")
        if name in RESERVED and name not in given:
            raise CatuvacError(f"{where} has a column {name!r}, which is a reserved name: rename it")


def _filled(columns: dict[str, list[str]], clips: Sequence[str], where: str) -> dict[str, list[str]]:
    """Returns text columns as in a clip table; `clips` identifies the clips in error messages.

    Raises:
        CatuvacError: a label or split for only some of the clips, or an unknown split.
    """
    filled = {}
    for name, values in columns.items():
        empty = [clip for clip, value in zip(clips, values, strict=True) if not value.strip()]
        if name not in GIVEN:
            filled[name] = [value if value.strip() else UNKNOWN for value in values]
        elif len(empty) < len(values):  # a column without values is ignored
            if empty:
                raise CatuvacError(
                    f"{where} gives {len(empty)} of {len(values)} clips no {name}, the first {empty[0]}: "
                    f"give every clip one, or none"
                )
            filled[name] = values
    for clip, value in zip(clips, filled.get("split", ()), strict=False):
        if value not in SPLITS:
            raise CatuvacError(f"{where}, {clip}: {unknown('split', value, SPLITS)}; {CORRECT}")
    return filled


def _described(columns: dict[str, list[str]]) -> str:
    """Returns a text for the note: how many values each column has."""
    return f" ({', '.join(f'{name}: {len(set(values))}' for name, values in columns.items())})" if columns else ""


def recordings(root: Path) -> Iterator[Path]:
    """Yields the audio files below `root`, including broken links; raises `OSError` for a folder it cannot list.

    Hidden files and the content of hidden folders are left out. Links to folders are followed, but every folder is read
    once, under its own path if `root` contains it.
    """

    def refuse(error: OSError) -> None:
        raise error

    links, seen = [root], set()  # links are read last, so that a folder is found under its own path
    for folder, inside, names in chain.from_iterable(os.walk(link, onerror=refuse) for link in links):
        status = os.stat(folder)
        inside[:] = [name for name in sorted(inside) if not name.startswith(HIDDEN)]
        if (status.st_dev, status.st_ino) in seen:
            inside.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        links += [path for path in (Path(folder, name) for name in inside) if path.is_symlink()]
        for path in (Path(folder, name) for name in names if not name.startswith(HIDDEN)):
            # Opening a named pipe would block forever.
            if path.suffix.lower() in READ + UNREAD and (path.is_file() or not path.exists()):
                yield path


CORPUS = Corpus(
    name="folder",
    description="your own: any tree of audio files that libsndfile reads; labels and nuisance columns from sub-folders "
    "(--folder-labels), from paths (--pattern) or from a CSV (--table)",
    licence="your own",
    nuisances=(),
    group="",
    full=0,
    index=_index,
)
