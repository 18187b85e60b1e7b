"""The two tables that studies write and the analysis reads: `trials.parquet`, `history.parquet` (design, section 5).

Column names are namespaced with `/`. A value that does not exist is null; NaN and infinity are rejected, because an
undefined score has its floor value. Appending is atomic and safe between processes, and replaces rows with the same
key, so a resumed study leaves no duplicates. Each file is sealed (`catuvac.artifacts`), and its pages have Parquet's
own checksums for other readers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catuvac import artifacts, io
from catuvac.errors import CatuvacError

TRIALS = "trials.parquet"
HISTORY = "history.parquet"
STATUSES = ("complete", "stopped", "diverged", "error")

# Required columns. Only nullable ones may be null, for a trial that ended in an error.
TRIALS_SCHEMA = pa.schema(
    [
        pa.field("study", pa.string(), nullable=False),
        pa.field("trial_id", pa.string(), nullable=False),
        pa.field("number", pa.int64(), nullable=False),
        pa.field("corpus", pa.string(), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("n_clusters", pa.int64(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("arm", pa.string(), nullable=False),  # tpe, random, qmc, grid, confirm, branch, …
        pa.field("status", pa.string(), nullable=False),  # one of STATUSES
        pa.field("objective", pa.float64()),
        pa.field("epochs", pa.int64()),  # finished epochs
        pa.field("wall_seconds", pa.float64()),  # s, of training and evaluation
        pa.field("train_seconds", pa.float64()),  # s, the part of it inside training epochs
        pa.field("threads", pa.int64()),  # of torch, on which the last bits of all metrics depend
        pa.field("config_hash", pa.string(), nullable=False),
        pa.field("revision", pa.string()),  # of the source; null outside a checkout
        pa.field("started_at", pa.string(), nullable=False),  # ISO 8601, UTC, by the driver that ended it
        pa.field("failure", pa.string()),  # for an error: out of memory, node lost, or crash: and its last line
    ]
)
HISTORY_SCHEMA = pa.schema(
    [
        pa.field("study", pa.string(), nullable=False),
        pa.field("trial_id", pa.string(), nullable=False),
        pa.field("epoch", pa.int64(), nullable=False),
        pa.field("tau", pa.float64()),
        pa.field("lr", pa.float64()),
    ]
)
TRIALS_NAMESPACES = ("config/", "val/", "test/", "loss/", "branch/")
HISTORY_NAMESPACES = ("val/", "loss/")
NAMESPACES = {TRIALS: TRIALS_NAMESPACES, HISTORY: HISTORY_NAMESPACES}
KEYS = {TRIALS: ("study", "trial_id"), HISTORY: ("study", "trial_id", "epoch")}  # columns that identify a row
NUMBER = ("study", "number")  # columns that identify a trial of a search, whatever its trial_id
ADVICE = "restore it from a backup, or run the study again"
WAIT = 60.0  # s to wait for another process to finish writing, which takes milliseconds
FLAGS = ("/degenerate", "/y_decided")  # suffixes of the names of boolean scores


def append_trial(folder: Path, row: Mapping[str, Any]) -> None:
    """Adds a trial to `folder/trials.parquet`, replacing an earlier row of the same study and trial_id.

    It also replaces an error of the same study and number: a search repeats a failed trial under another trial_id.

    Raises:
        ValueError: a required column is absent or null, a column is in no namespace, the status is unknown, or a
            number is NaN or infinite; the message names the column.
    """
    if row.get("status") not in STATUSES:
        raise ValueError(f"column 'status' must be one of {', '.join(STATUSES)}, got {row.get('status')!r}")
    _append(folder / TRIALS, [row], TRIALS_SCHEMA)


def append_history(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Adds evaluations to `folder/history.parquet`; earlier rows of the same study, trial_id and epoch are replaced.

    Raises:
        ValueError: as `append_trial`.
    """
    _append(folder / HISTORY, rows, HISTORY_SCHEMA)


def read_trials(folder: Path) -> pd.DataFrame:
    """Reads one row per trial, with pandas' nullable types, in the order of recording.

    Raises:
        CatuvacError: the table is absent, damaged or invalid: it lacks a required column, or contains a null, a type, a
            number or a duplicate row that this module never writes.
    """
    return _read(folder / TRIALS, TRIALS_SCHEMA)


def read_history(folder: Path) -> pd.DataFrame:
    """Reads one row per evaluation; raises `CatuvacError` as `read_trials` does."""
    return _read(folder / HISTORY, HISTORY_SCHEMA)


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Returns the rows as dictionaries by column, with None for null."""
    plain = table.astype(object)
    rows = plain.where(plain.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def _append(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    if not rows:
        return
    key = KEYS[path.name]
    latest = {tuple(row.get(name) for name in key): row for row in rows}
    new = _table(list(latest.values()), schema, NAMESPACES[path.name])
    path.parent.mkdir(parents=True, exist_ok=True)
    busy = f"another process has been writing {path} for {WAIT:.0f} s; end it or wait until it has finished"
    with io.exclusive(path.with_name(f".{path.stem}.lock"), busy=busy, wait=WAIT):
        if path.exists():
            old = _load(path, schema)
            replaced = pc.is_in(_joined(old, key), _joined(new, key))
            if path.name == TRIALS:
                again = pc.is_in(_joined(old, NUMBER), _joined(new, NUMBER))
                replaced = pc.or_(replaced, pc.and_(again, pc.equal(old["status"].combine_chunks(), "error")))
            kept = old.filter(pc.invert(replaced))
            try:
                new = pa.concat_tables([kept, new], promote_options="permissive")
            except pa.ArrowTypeError as error:
                raise ValueError(f"a column of {path.name} has another type than before: {error}") from error
        io.write(path, _sealed(new))


def _sealed(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, write_page_checksum=True) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"catuvac": artifacts.BLANK})  # at the file's end, after the columns' content
    return artifacts.seal(sink.getvalue().to_pybytes())


def _table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema, namespaces: tuple[str, ...]) -> pa.Table:
    names = list(dict.fromkeys([*schema.names, *(name for row in rows for name in row)]))
    return pa.table({name: _column(name, [row.get(name) for row in rows], schema, namespaces) for name in names})


def _column(name: str, values: list[Any], schema: pa.Schema, namespaces: tuple[str, ...]) -> pa.Array:
    if name in schema.names:
        expected = schema.field(name).type
        if None in values and not schema.field(name).nullable:
            raise ValueError(f"column {name!r} is required and must not be null")
    elif not name.startswith(namespaces):
        raise ValueError(f"column {name!r} is in no namespace; use a required column or one of {', '.join(namespaces)}")
    elif name.startswith("config/"):
        expected = None
    else:
        expected = pa.bool_() if name.endswith(FLAGS) else pa.float64()
    try:
        array = pa.array(values)  # inferred, then cast: an explicit type would silently truncate 1.5 to an integer
        if expected is not None and array.type != expected:
            if pa.types.is_string(array.type):
                raise pa.ArrowInvalid(f"got {values[0]!r}")
            array = array.cast(expected)
    except pa.ArrowException as error:
        raise ValueError(
            f"column {name!r} must be of type {expected or 'number, string or boolean'}: {error}"
        ) from error
    if pa.types.is_floating(array.type) and not pc.all(pc.is_finite(array.drop_null()), min_count=0).as_py():
        raise ValueError(f"column {name!r} contains NaN or infinity; record a floor, or None if no value exists")
    return array


def _joined(table: pa.Table, key: tuple[str, ...]) -> pa.Array:
    return pc.binary_join_element_wise(*(table[name].cast(pa.string()).combine_chunks() for name in key), "/")


def _load(path: Path, schema: pa.Schema) -> pa.Table:
    if not path.exists():
        raise CatuvacError(f"no {path.name} in {path.parent}; give the results folder of a study")
    # Reads the file once: given a path, Arrow opens it more than once, and a writer may replace it in between.
    data = artifacts.read(path, advice=ADVICE)
    try:
        table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
    except (OSError, ValueError, LookupError, pa.ArrowException) as error:
        raise artifacts.damaged(path, str(error).partition("\n")[0], ADVICE) from error
    for field in schema:
        count = table.column_names.count(field.name)
        if count == 0 and not field.nullable:
            raise CatuvacError(f"{path} lacks the column {field.name}; it is not a table of catuvac")
        if count == 0:
            table = table.append_column(field, pa.nulls(len(table), field.type))  # a table of an earlier version
    return table


def _check(table: pa.Table, path: Path, schema: pa.Schema) -> pa.Table:
    """Casts the required columns of a table from any writer; raises `CatuvacError` as `read_trials`."""

    def refuse(problem: str) -> CatuvacError:
        return CatuvacError(f"{path} {problem}; it is not a table of catuvac")

    if twice := {name for name in table.column_names if table.column_names.count(name) > 1}:
        raise refuse(f"has the column {min(twice)} twice")
    for index, name in enumerate(table.column_names):
        column = table[name]
        if name in schema.names:
            try:
                column = column.cast(schema.field(name).type)
            except pa.ArrowException:
                raise refuse(f"contains {column.type} in the column {name}") from None
            if column.null_count and not schema.field(name).nullable:
                raise refuse(f"contains a null in the column {name}")
            table = table.set_column(index, pa.field(name, column.type), column)
        elif not (_is_number(column.type) or (name.startswith("config/") and _is_text(column.type))):
            raise refuse(f"contains {column.type} in the column {name}")
        if pa.types.is_floating(column.type) and not pc.all(pc.is_finite(column.drop_null()), min_count=0).as_py():
            raise refuse(f"contains NaN or infinity in the column {name}")
    if "status" in schema.names and (unknown := set(table["status"].unique().to_pylist()) - {*STATUSES}):
        raise refuse(f"contains the status {min(unknown)!r}")
    if len(table) and len(_joined(table, KEYS[path.name]).unique()) < len(table):
        raise refuse(f"contains two rows with the same {' and '.join(KEYS[path.name])}")
    return table


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(kind: pa.DataType) -> bool:
    types = (pa.types.is_null, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating)
    return any(is_one(kind) for is_one in types)


def _read(path: Path, schema: pa.Schema) -> pd.DataFrame:
    nullable = {
        pa.int64(): pd.Int64Dtype(),
        pa.float64(): pd.Float64Dtype(),
        pa.bool_(): pd.BooleanDtype(),
        pa.string(): pd.StringDtype(),
    }
    frame: pd.DataFrame = _check(_load(path, schema), path, schema).to_pandas(types_mapper=nullable.get)
    return frame
