"""The feature cache: content-addressed, atomic, memory-mapped, shared between processes.

The cache folder contains two kinds of entry. A raw entry contains the extracted features of every listed file; a
prepared entry, derived from it, contains the usable clips in [0, 1] with their splits, and is all that a trial opens.

Every entry lists the checksums of its files. An entry that a crash or a disk has damaged is detected when it is opened,
set aside as `NAME.damaged` and rebuilt. An entry's key includes the size, modification time and status-change time of
every recording: no program can set the last, so a replaced recording is noticed even if all else is unchanged.
"""

from __future__ import annotations

import csv
import ctypes
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor

from catuvac import io
from catuvac.config import Config, CorpusConfig, FeatureConfig, SplitConfig, plain
from catuvac.data import features, splits
from catuvac.data.audio import AudioError
from catuvac.data.corpora import COMMON, CORPORA, ClipTable, index, starts, windows
from catuvac.errors import CatuvacError, printable, storable

FORMAT = 4  # increment when extraction, the generated corpus or the entries change: older entries are then ignored
UNCHECKED = 3  # entries up to this format have no checksums
CHECKSUMS = "checksums.json"  # file name → SHA-256 sum, of every other file of an entry
ENTRY = re.compile("[0-9a-f]{16}")  # the name of an entry
SCORED = 1024  # in-memory clips that are scored during training: the Silhouette compares every pair
CHUNK = 8  # clips per task of a thread: more amortise the interpreter's overhead, but take more memory

Float = TypeVar("Float", bound=np.floating[Any])
Rows = NDArray[np.int64]
Extracted = tuple[NDArray[np.float32], NDArray[np.bool_], list[str]]  # x [n, T, F], mask [n, T], why unusable or ""


@dataclass(frozen=True)
class FeatureSet:
    """A prepared corpus, opened read-only."""

    x: NDArray[np.float32]  # [N, T, F] in [0, 1], a memory map
    mask: NDArray[np.bool_]  # [N, T], True where a frame is active
    clips: pd.DataFrame  # N rows: the usable clips of the corpus's table
    splits: dict[str, Rows]  # train, val, test: row numbers
    n_bands: int  # the bands before padding; the rest of F is 0
    normaliser: features.Normaliser  # computed x from the extracted features; also applies to new recordings
    note: str  # states how much of the corpus this is
    skipped: pd.DataFrame  # path and reason of every unusable file
    path: Path  # the entry's folder, for `open_entry`; Path() for features outside the cache

    def labels(self, rows: Rows) -> Rows | None:
        """Returns codes `[n]` of the sorted label names, or None if the corpus has no labels."""
        return _codes(self.clips["label"])[rows] if "label" in self.clips else None

    def nuisances(self, rows: Rows) -> dict[str, Rows]:
        """Returns codes `[n]` of each nuisance column with at least two values in the corpus."""
        columns = [name for name in self.clips.columns if name not in COMMON and self.clips[name].nunique() >= 2]
        return {name: _codes(self.clips[name])[rows] for name in columns}

    def by_clip(self, rows: Rows) -> ByClip | None:
        """Returns how rows that are windows belong to clips, or None if every row is a whole clip."""
        if "clip" not in self.clips:
            return None
        _, first, of = np.unique(self.clips["clip"].to_numpy()[rows], return_index=True, return_inverse=True)
        return ByClip(rows[first], of)


@dataclass(frozen=True)
class ByClip:
    """Windows and the clips that they belong to."""

    rows: Rows  # [m] of the feature set: the first window of each clip
    of: Rows  # [n] the clip of each window, in [0, m)

    def sums(self, values: NDArray[Float]) -> NDArray[Float]:
        """Sums `[n, …]` of windows to `[m, …]` of clips."""
        totals = np.zeros((len(self.rows), *values.shape[1:]))
        np.add.at(totals, self.of, values)
        return totals.astype(values.dtype)

    def means(self, values: NDArray[Float]) -> NDArray[Float]:
        """Averages `[n, …]` of windows to `[m, …]` of clips."""
        counts = np.bincount(self.of).reshape(-1, *[1] * (values.ndim - 1))
        return (self.sums(values) / counts).astype(values.dtype)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A prepared corpus as the trials of a study open it, on any node."""

    path: Path  # of the entry with which the study was started
    config: Config
    data_root: Path | None
    cache_dir: Path
    others: tuple[Prepared, ...] = ()  # the corpus under the further splits of seed blocks

    def under(self, split: SplitConfig) -> Prepared:
        """Returns the corpus under one of the splits it was prepared for; raises `CatuvacError` for any other."""
        for entry in (self, *self.others):
            if entry.config.split == split:
                return entry
        raise CatuvacError(f"the features were not prepared for the split of seed {split.split_seed}")

    def open(self) -> FeatureSet:
        """Opens the entry; a node whose cache lacks it extracts the features once for all of its trials.

        Raises:
            CatuvacError: this node has neither an intact entry nor the recordings.
        """
        entry = reopen(self.path)
        if entry is not None:
            return entry
        return prepare(self.config, data_root=self.data_root, cache_dir=self.cache_dir, progress=False)


def default_cache_dir() -> Path:
    """Returns $CATUVAC_CACHE, or ~/.cache/catuvac; raises `CatuvacError` if this user has no home folder."""
    folder = os.path.expanduser(os.environ.get("CATUVAC_CACHE") or "~/.cache/catuvac")
    if folder.startswith("~"):
        raise CatuvacError(f"there is no home folder for {folder}: set $CATUVAC_CACHE, or give --cache-dir DIR")
    return Path(folder)


def prepare(
    config: Config,
    *,
    data_root: Path | None = None,
    cache_dir: Path | None = None,
    workers: int = 0,
    strict: bool = False,
    progress: bool = True,
) -> FeatureSet:
    """Lists a corpus and opens its features from the cache; extracts and normalises them if it has no intact copy.

    Args:
        config: only its corpus, feature and split sections and its number of clusters are used.
        data_root: the folder with the recordings; None for a generated corpus.
        cache_dir: the folder of the entries; None uses `default_cache_dir()`.
        workers: extraction threads; 0 uses all cores.
        strict: raise an error for an unusable file instead of skipping it.
        progress: show a progress bar on stderr.

    Raises:
        CatuvacError: workers below 0, a wrong root, no usable file, an unusable one under `strict`, fewer training
            clips than clusters, splits that cannot be filled, or a cache that cannot be written.
    """
    if workers < 0:
        raise CatuvacError(f"workers must not be negative, got {workers}")
    cache_dir = cache_dir or default_cache_dir()
    table = windows(index(config.corpus, data_root), config.features)
    workers = workers or _cores()
    raw_key = _raw_key(config, table.clips)
    key = {
        "format": FORMAT,
        "raw": _entry_name(raw_key),
        "corpus_norm": config.features.corpus_norm,
        "split": plain(config.split),
    }

    def build(folder: Path) -> None:
        extract = partial(_extract_all, config, table, workers=workers, strict=strict, progress=progress)
        _normalise(config, table.note, build_once(cache_dir, raw_key, extract), folder, workers=workers)

    try:
        entry = _load(build_once(cache_dir, key, build))
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise CatuvacError(
            f"cannot use the cache {cache_dir}: {reason}; free some space or choose another folder"
        ) from error
    if strict and len(entry.skipped):
        _refuse(entry.skipped["path"][0], entry.skipped["reason"][0])
    if config.model.n_clusters > len(entry.splits["train"]):
        raise CatuvacError(
            f"n_clusters={config.model.n_clusters} exceeds the {len(entry.splits['train'])} training clips: "
            "give more clips or fewer clusters"
        )
    return entry


def from_arrays(x: features.Array, mask: features.Mask, config: FeatureConfig) -> FeatureSet:
    """Returns a feature set in memory: all clips train, and up to 1 024 evenly spaced ones are scored during training.

    Args:
        x: extracted features `[N, T, F]`, with T and F from `features.frames(config)`.
        mask: `[N, T]`, True where a frame is active.
        config: the front end that computed them.
    """
    normaliser = features.Normaliser.fit(x, mask, config)
    rows = np.arange(len(x), dtype=np.int64)
    scored = rows[:: -(-len(x) // SCORED)]
    return FeatureSet(
        x=normaliser.apply(x, mask),
        mask=mask,
        clips=pd.DataFrame(index=rows),
        splits={"train": rows, "val": scored, "test": scored},
        n_bands=config.n_bands,
        normaliser=normaliser,
        note=f"{len(x)} clips in memory",
        skipped=pd.DataFrame(columns=["path", "reason"]),
        path=Path(),
    )


class DamagedError(CatuvacError):
    """Raised for an entry whose content differs from what was written."""


def open_entry(path: Path) -> FeatureSet:
    """Opens a prepared entry; needs neither its raw entry nor the recordings.

    Raises:
        CatuvacError: there is none, it belongs to another user, or it cannot be read.
        DamagedError: it is damaged or not an entry; it was set aside, so that the next preparation rebuilds it.
    """
    try:
        if not (path.is_dir() and ENTRY.fullmatch(path.name)):
            raise CatuvacError(f"no prepared features in {path}: run `catuvac prepare` again")
        try:
            _check(path)
        except DamagedError as error:
            with _lock(path):
                if not _keep_intact(path):
                    raise DamagedError(f"{error}: run `catuvac prepare` again") from error
        return _load(path)
    except OSError as error:
        raise CatuvacError(f"cannot read the features in {path}: {error.strerror or error}") from error


def reopen(path: Path) -> FeatureSet | None:
    """Opens a prepared entry; returns None if it is absent, or damaged (reported on stderr): prepare it again."""
    if not os.path.isdir(path):
        return None
    try:
        return open_entry(path)
    except DamagedError:
        return None


def build_once(root: Path, key: Mapping[str, object], build: Callable[[Path], None]) -> Path:
    """Returns the folder `root/<hash of key>`; `build` fills it first if it does not exist or is damaged.

    The entry appears under its name only once it is complete and on the disk. Processes that need the same entry wait
    for its builder and use the result; the next builder removes what a killed one left.

    Raises:
        CatuvacError: `root` or the entry belongs to another user.
    """
    entry = root / _entry_name(key)
    if entry.is_dir():
        with suppress(DamagedError):
            _check(entry)
            return entry
    io.private_folder(root)
    with _lock(entry):
        if _keep_intact(entry):
            return entry
        unfinished = entry.with_suffix(".tmp")
        shutil.rmtree(unfinished, ignore_errors=True)  # we hold the lock: the process that left it has ended
        unfinished.mkdir(mode=0o700)
        try:
            build(unfinished)
            (unfinished / "key.json").write_text(_key_text(key), encoding="utf-8")
            sums = {path.name: io.checksum(path) for path in unfinished.iterdir()}
            (unfinished / CHECKSUMS).write_text(json.dumps(sums), encoding="utf-8")
            for path in (*unfinished.iterdir(), unfinished):
                io.sync(path)
            os.replace(unfinished, entry)
            io.sync(root)
        except BaseException:  # Ctrl-C too
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
    return entry


def _lock(entry: Path) -> AbstractContextManager[None]:
    return io.locked(entry.with_suffix(".lock"), waiting="prepares the same features")


def _key_text(key: Mapping[str, object]) -> str:
    return json.dumps(key, sort_keys=True, separators=(",", ":"))


def _entry_name(key: Mapping[str, object] | str) -> str:
    text = key if isinstance(key, str) else _key_text(key)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check(entry: Path) -> None:
    """Compares an entry's files with their checksums.

    Raises:
        DamagedError: a file is missing or differs from what was written.
        CatuvacError: the entry belongs to another user.
    """
    if entry.is_symlink() or not io.ours(entry.stat()):
        raise CatuvacError(f"{entry} belongs to another user: choose your own cache with --cache-dir or $CATUVAC_CACHE")
    try:
        names = {path.name for path in entry.iterdir()}
        if CHECKSUMS not in names:
            text = (entry / "key.json").read_text(encoding="utf-8")
            if _entry_name(text) == entry.name and json.loads(text)["format"] <= UNCHECKED:
                return
        sums = json.loads((entry / CHECKSUMS).read_text(encoding="utf-8"))
        damaged = [name for name, stated in sums.items() if name not in names or io.checksum(entry / name) != stated]
    except (FileNotFoundError, IsADirectoryError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"the features in {entry} are damaged (no readable {CHECKSUMS})") from error
    if damaged:
        raise DamagedError(f"the features in {entry} are damaged ({', '.join(map(printable, damaged))})")


def _keep_intact(entry: Path) -> bool:
    """Returns whether the entry exists and is intact; sets a damaged one aside. The caller must hold its lock."""
    if not entry.is_dir():
        return False
    try:
        _check(entry)
    except DamagedError as error:
        aside = entry.with_suffix(".damaged")
        shutil.rmtree(aside, ignore_errors=True)
        entry.rename(aside)  # a process that has it open can continue: the files remain
        print(f"{error}: they were set aside as {aside.name}, which you may delete", file=sys.stderr)
        return False
    return True


def _load(path: Path) -> FeatureSet:
    """Reads a prepared entry; raises `DamagedError` for a damaged one that has no checksums."""
    try:
        meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
        with np.load(path / "splits.npz") as stored:
            parts = {name: stored[name] for name in ("train", "val", "test")}
        _report_truncation(path)
        return FeatureSet(
            x=np.load(path / "x.npy", mmap_mode="r"),
            mask=np.load(path / "mask.npy"),
            clips=pd.read_parquet(path / "clips.parquet"),
            splits=parts,
            n_bands=meta["n_bands"],
            normaliser=features.Normaliser.from_dict(meta["normaliser"]),
            note=meta["note"],
            skipped=pd.read_csv(path / "skipped.csv", dtype=str),
            path=path,
        )
    except (
        FileNotFoundError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        zipfile.BadZipFile,
        pa.ArrowException,
    ) as error:
        raise DamagedError(f"the features in {path} are damaged ({' '.join(str(error).split())})") from error


_bus_error_handler: Any = None  # ctypes' callbacks must outlive their use


def _report_truncation(path: Path) -> None:
    """Turns SIGBUS, which ends a process when a file that it maps is truncated, into a one-line error and exit code 2.

    Python's own handlers run only after the failing instruction, which never completes. This one runs at once, and it
    interrupts a read from a map, during which no lock of Python or the C library is held. An existing handler is kept,
    such as the one with which a Ray worker reports where it died.
    """
    global _bus_error_handler
    if _bus_error_handler is not None or not hasattr(signal, "SIGBUS"):
        return
    text = f"error: a file in {path} was truncated or can no longer be read: run this again to rebuild it"
    line = printable(text).encode() + b"\n"

    def end(_: int) -> None:
        os.write(2, line)
        os._exit(2)

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(end)
    install = ctypes.CDLL(None).signal
    install.restype, install.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
    before = install(signal.SIGBUS, ctypes.cast(handler, ctypes.c_void_p))
    if before:
        install(signal.SIGBUS, before)
    _bus_error_handler = handler


def _raw_key(config: Config, clips: pd.DataFrame) -> dict[str, object]:
    settings = plain(config.features)
    del settings["corpus_norm"]  # applied in the prepared entry
    digest = hashlib.sha256(clips.to_csv(index=False).encode(errors="surrogateescape"))
    digest.update(features.weights_checksum(config.features).encode())
    if CORPORA[config.corpus.corpus].needs_root:
        for path in clips["path"]:
            try:
                stat = os.stat(path)
                digest.update(f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}\n".encode())
            except OSError as error:  # extraction reports why it cannot be read
                digest.update(f"{error.errno}\n".encode())
    return {"format": FORMAT, "corpus": plain(config.corpus), "files": digest.hexdigest(), "features": settings}


def _extract_all(config: Config, table: ClipTable, folder: Path, *, workers: int, strict: bool, progress: bool) -> None:
    """Fills a raw entry: x.npy, mask.npy and clips.parquet with a `reason` column and one row per listed clip."""
    clips, count = table.clips, len(table.clips)
    time, bands = features.frames(config.features)
    masks: list[NDArray[np.bool_]] = []
    reasons: list[str] = []

    def kept(results: Iterable[Extracted]) -> Iterator[NDArray[np.float32]]:
        for x, mask, chunk_reasons in results:
            masks.append(mask)
            reasons.extend(chunk_reasons)
            if strict and any(chunk_reasons):
                row = next(row for row, reason in enumerate(reasons) if reason)
                _refuse(clips["path"][row], reasons[row])
            yield x

    stored = clips.assign(path=[storable(path) for path in clips["path"]])
    chunks = [clips[start : start + CHUNK] for start in range(0, count, CHUNK)]
    with _threads(workers) as mapped:
        results = mapped(partial(_extract, config.corpus, config.features), chunks)
        shown = track(results, "features", total=len(chunks), console=Console(stderr=True), disable=not progress)
        _write_rows(folder / "x.npy", (count, time, bands), kept(shown))
    np.save(folder / "mask.npy", np.concatenate(masks))
    stored = stored.assign(reason=reasons)
    skipped = _skipped(stored)
    if len(skipped) == count:
        raise CatuvacError(
            f"none of the {count} files can be used; the first: {skipped['path'][0]}: {skipped['reason'][0]}"
        )
    stored.to_parquet(folder / "clips.parquet")


def _normalise(config: Config, note: str, raw: Path, folder: Path, *, workers: int) -> None:
    """Fills a prepared entry from a raw one."""
    listed = pd.read_parquet(raw / "clips.parquet")
    skipped = _skipped(listed)
    usable = np.flatnonzero(listed["reason"] == "")
    clips = listed.iloc[usable].drop(columns="reason").reset_index(drop=True)
    parts = splits.split(clips, config.split)

    x = np.load(raw / "x.npy", mmap_mode="r")
    mask = np.load(raw / "mask.npy")
    train = np.zeros(len(listed), dtype=np.bool_)
    train[usable[parts["train"]]] = True
    normaliser = features.Normaliser.fit(x, mask & train[:, None], config.features)
    blocks = np.split(usable, range(features.BLOCK, len(usable), features.BLOCK))
    with _threads(workers) as mapped:
        normalised = mapped(lambda rows: normaliser.apply(x[rows], mask[rows]), blocks)
        _write_rows(folder / "x.npy", (len(usable), *x.shape[1:]), normalised)
    np.save(folder / "mask.npy", mask[usable])
    np.savez(folder / "splits.npz", train=parts["train"], val=parts["val"], test=parts["test"])
    clips.to_parquet(folder / "clips.parquet")
    skipped.to_csv(folder / "skipped.csv", index=False, quoting=csv.QUOTE_NONNUMERIC)
    meta = {
        "note": note + (f"; {len(skipped)} skipped" if len(skipped) else ""),
        "n_bands": config.features.n_bands,
        "normaliser": normaliser.to_dict(),
    }
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


@contextmanager
def _threads(workers: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """Yields `map` over threads: it preserves the order, and runs at most a few items ahead of its consumer.

    Threads suffice: decoding, resampling and the transforms release the interpreter's lock. Each process would take
    seconds to import torch.
    """
    threads_before = torch.get_num_threads()
    torch.set_num_threads(1)  # new threads inherit this: parallelising a single clip costs more than it saves
    pool = ThreadPoolExecutor(workers)

    def in_order(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        ahead: deque[Future[Any]] = deque()
        for item in items:
            ahead.append(pool.submit(work, item))
            if len(ahead) > 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    try:
        yield in_order
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads_before)


def _extract(corpus: CorpusConfig, front_end: FeatureConfig, clips: pd.DataFrame) -> Extracted:
    samples, errors = [], []
    for path, start, duration in zip(clips["path"], starts(clips), clips["duration"], strict=True):
        try:
            samples.append(read_clip(corpus, front_end, path, start=start, duration=duration))
            errors.append("")
        except AudioError as error:
            samples.append(torch.zeros(1))
            errors.append(str(error))
    x, mask, reasons = features.extract_usable(samples, durations=clips["duration"].tolist(), config=front_end)
    reasons = [error or reason for error, reason in zip(errors, reasons, strict=True)]
    unusable = np.array(reasons) != ""
    x[unusable], mask[unusable] = 0, False
    return x.numpy(), mask.numpy(), reasons


def read_clip(corpus: CorpusConfig, front_end: FeatureConfig, path: str, *, start: float, duration: float) -> Tensor:
    """Reads the samples `[s]` of a clip, as far as its features need them; raises `AudioError`.

    Args:
        corpus, front_end: sections of the configuration.
        path, start, duration: from the clip's row in the corpus's table; start and duration in s.
    """
    seconds = min(front_end.seconds, duration)  # in this order, min() ignores a duration of NaN
    return CORPORA[corpus.corpus].read(corpus, path, front_end.sample_rate, start=start, seconds=seconds)


def _write_rows(path: Path, shape: tuple[int, ...], blocks: Iterable[NDArray[np.float32]]) -> None:
    """Writes a .npy file of float32 piece by piece: a full disk then raises an error; a memory map would crash."""
    header = {"descr": np.dtype(np.float32).str, "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block).data)


def _skipped(clips: pd.DataFrame) -> pd.DataFrame:
    return clips.loc[clips["reason"] != "", ["path", "reason"]].reset_index(drop=True)


def _refuse(path: str, reason: str) -> None:
    raise CatuvacError(f"{path}: {reason}; repair or remove the file, or omit --strict")


def _codes(column: pd.Series) -> Rows:
    return np.unique(column.to_numpy(), return_inverse=True)[1].astype(np.int64)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
