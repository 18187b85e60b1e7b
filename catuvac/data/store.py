"""The feature cache: content-addressed, atomic, memory-mapped, shared between processes.

Two kinds of entry lie side by side under the cache folder. A raw one holds the extracted features of every listed file;
a prepared one, derived from it, holds the usable clips in [0, 1] with their splits, and is all that a trial opens.

Every entry states the checksums of its files. One that a crash or a disk has damaged is found when it is opened, set
aside as `NAME.damaged` and built again. An entry stands for the size, modification time and status-change time of every
recording: no program can set the last, so a recording that was replaced is noticed whatever else it shares with the
old one.
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
from typing import Any

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
from catuvac.data.corpora import COMMON, CORPORA, ClipTable, index, starts
from catuvac.errors import CatuvacError, printable

FORMAT = 4  # raise it when extraction, the generated corpus or the entries change: older entries are then not found
UNCHECKED = 3  # entries up to this format have no checksums
CHECKSUMS = "checksums.json"  # file name → SHA-256 sum, of every other file of an entry
ENTRY = re.compile("[0-9a-f]{16}")  # the name of an entry
SCORED = 1024  # clips in memory that are scored during a training: the Silhouette compares each with every other
CHUNK = 8  # clips that a thread takes at a time: more share more of the interpreter's work, and take more memory

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
    normaliser: features.Normaliser  # that made x of the extracted features, and can make it of a new recording's
    note: str  # how much of the corpus this is
    skipped: pd.DataFrame  # path and reason of every unusable file
    path: Path  # the entry's folder; `open_entry` takes it; Path() for features that are in no cache

    def labels(self, rows: Rows) -> Rows | None:
        """Codes `[n]` of the sorted label names, or None where the corpus has no labels."""
        return _codes(self.clips["label"])[rows] if "label" in self.clips else None

    def nuisances(self, rows: Rows) -> dict[str, Rows]:
        """Codes `[n]` of each nuisance column that takes two values or more in the corpus."""
        columns = [name for name in self.clips.columns if name not in COMMON and self.clips[name].nunique() >= 2]
        return {name: _codes(self.clips[name])[rows] for name in columns}


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A prepared corpus as the trials of a study find it, on whatever node they run."""

    path: Path  # of the entry that the study was started with
    config: Config
    data_root: Path | None
    cache_dir: Path
    others: tuple[Prepared, ...] = ()  # the corpus under further splits, on which seed blocks train

    def under(self, split: SplitConfig) -> Prepared:
        """The corpus under one of the splits that it was prepared for; raises `CatuvacError` for another one."""
        for entry in (self, *self.others):
            if entry.config.split == split:
                return entry
        raise CatuvacError(f"the features were not prepared for the split of seed {split.split_seed}")

    def open(self) -> FeatureSet:
        """Opens the entry; a node whose cache lacks it extracts it there, once for all of its trials.

        Raises:
            CatuvacError: neither a whole entry nor the recordings are on this node.
        """
        entry = reopen(self.path)
        if entry is not None:
            return entry
        return prepare(self.config, data_root=self.data_root, cache_dir=self.cache_dir, progress=False)


def default_cache_dir() -> Path:
    """$CATUVAC_CACHE, or ~/.cache/catuvac; raises `CatuvacError` where this user has no home folder."""
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
    """Lists a corpus, extracts and normalises its features, or opens them where the cache has them undamaged.

    Args:
        config: its corpus, feature and split sections, and the number of clusters, matter here.
        data_root: the folder with the recordings; None for a generated corpus.
        cache_dir: where the entries lie; None takes `default_cache_dir()`.
        workers: threads that extract; 0 takes all cores.
        strict: a file that cannot be used is an error, not a skipped row.
        progress: a progress bar on stderr.

    Raises:
        CatuvacError: a wrong root, no usable file, an unusable one under `strict`, fewer training clips than clusters,
            splits that cannot be filled, or a cache that cannot be written.
    """
    cache_dir = cache_dir or default_cache_dir()
    table = index(config.corpus, data_root)
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
    """A feature set in memory. Every clip trains, and up to 1 024 of them, evenly spaced, are scored on the way.

    Args:
        x: extracted features `[N, T, F]`, T and F as `features.frames(config)` has them.
        mask: `[N, T]`, True where a frame is active.
        config: the front end that they come from.
    """
    normaliser = features.Normaliser.fit(x, mask, config)
    rows = np.arange(len(x), dtype=np.int64)
    scored = rows[:: -(-len(x) // SCORED)]
    return FeatureSet(
        x=normaliser.apply(x, mask),
        mask=mask,
        clips=pd.DataFrame(index=rows),
        splits={"train": rows, "val": scored, "test": scored},
        n_bands=features.valid_bands(config),
        normaliser=normaliser,
        note=f"{len(x)} clips in memory",
        skipped=pd.DataFrame(columns=["path", "reason"]),
        path=Path(),
    )


class DamagedError(CatuvacError):
    """An entry that does not hold what was written to it."""


def open_entry(path: Path) -> FeatureSet:
    """Opens a prepared entry, which holds all that is needed.

    Raises:
        CatuvacError: there is none, it belongs to another user, or it cannot be read.
        DamagedError: it is damaged, or something else; it was set aside, so that the next preparation builds it again.
    """
    try:
        if not (path.is_dir() and ENTRY.fullmatch(path.name)):
            raise CatuvacError(f"no prepared features in {path}: run `catuvac prepare` again")
        try:
            _check(path)
        except DamagedError as error:
            with _lock(path):
                if not _keep_whole(path):
                    raise DamagedError(f"{error}: run `catuvac prepare` again") from error
        return _load(path)
    except OSError as error:
        raise CatuvacError(f"cannot read the features in {path}: {error.strerror or error}") from error


def reopen(path: Path) -> FeatureSet | None:
    """Opens a prepared entry; None, with a line on stderr, where there is none or it is damaged: prepare it again."""
    if not os.path.isdir(path):
        return None
    try:
        return open_entry(path)
    except DamagedError:
        return None


def build_once(root: Path, key: Mapping[str, object], build: Callable[[Path], None]) -> Path:
    """Returns the folder `root/<hash of key>`, which `build` fills first where it does not exist or is damaged.

    The entry appears under its name complete and on the disk, or not at all. Processes that want the same one wait for
    its builder and use what it made; what a killed builder left is removed by the next.

    Raises:
        CatuvacError: `root` or what lies in it belongs to another user.
    """
    entry = root / _entry_name(key)
    if entry.is_dir():
        with suppress(DamagedError):
            _check(entry)
            return entry
    io.private_folder(root)
    with _lock(entry):
        if _keep_whole(entry):
            return entry
        unfinished = entry.with_suffix(".tmp")
        shutil.rmtree(unfinished, ignore_errors=True)  # the lock is ours: whoever left it is dead
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
        DamagedError: a file is not what was written, or is missing.
        CatuvacError: another user made the entry.
    """
    if entry.is_symlink() or not io.ours(entry.stat()):
        raise CatuvacError(f"another user made {entry}: choose a cache of your own, --cache-dir or $CATUVAC_CACHE")
    try:
        names = {path.name for path in entry.iterdir()}
        if CHECKSUMS not in names:
            text = (entry / "key.json").read_text(encoding="utf-8")
            if _entry_name(text) == entry.name and json.loads(text)["format"] <= UNCHECKED:
                return
        sums = json.loads((entry / CHECKSUMS).read_text(encoding="utf-8"))
        odd = [name for name, stated in sums.items() if name not in names or io.checksum(entry / name) != stated]
    except (FileNotFoundError, IsADirectoryError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"the features in {entry} are damaged (no readable {CHECKSUMS})") from error
    if odd:
        raise DamagedError(f"the features in {entry} are damaged ({', '.join(map(printable, odd))})")


def _keep_whole(entry: Path) -> bool:
    """Whether the entry is there and whole; a damaged one is set aside. Its lock must be held."""
    if not entry.is_dir():
        return False
    try:
        _check(entry)
    except DamagedError as error:
        aside = entry.with_suffix(".damaged")
        shutil.rmtree(aside, ignore_errors=True)
        entry.rename(aside)  # whoever has it open can go on: the files stay
        print(f"{error}: they were set aside as {aside.name}, which you may delete", file=sys.stderr)
        return False
    return True


def _load(path: Path) -> FeatureSet:
    """Reads a prepared entry; raises `DamagedError` for a damaged one that has no checksums."""
    try:
        meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
        with np.load(path / "splits.npz") as stored:
            parts = {name: stored[name] for name in ("train", "val", "test")}
        _say_when_cut_short(path)
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


def _say_when_cut_short(path: Path) -> None:
    """Makes one line and exit code 2 of the signal that ends a process when a file that it maps is cut short.

    Python's own handlers run after the instruction that failed, which never ends. This one runs at once, and what it
    interrupts is a read from a map, which holds no lock of Python's or of the C library's. A handler that is there
    already, such as the one by which a Ray worker says where it died, stays.
    """
    global _bus_error_handler
    if _bus_error_handler is not None or not hasattr(signal, "SIGBUS"):
        return
    text = f"error: a file in {path} was cut short or cannot be read any more: run this again, which builds it again"
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
    if CORPORA[config.corpus.corpus].needs_root:
        for path in clips["path"]:
            try:
                stat = os.stat(path)
                digest.update(f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}\n".encode())
            except OSError as error:  # extraction says why it cannot be read
                digest.update(f"{error.errno}\n".encode())
    return {"format": FORMAT, "corpus": plain(config.corpus), "files": digest.hexdigest(), "features": settings}


def _extract_all(config: Config, table: ClipTable, folder: Path, *, workers: int, strict: bool, progress: bool) -> None:
    """Fills a raw entry: x.npy, mask.npy and clips.parquet with a `reason` column, a row for every listed clip."""
    clips, count = table.clips, len(table.clips)
    time, bands = features.frames(config.features)
    masks: list[NDArray[np.bool_]] = []
    reasons: list[str] = []

    def kept(results: Iterable[Extracted]) -> Iterator[NDArray[np.float32]]:
        for x, mask, why in results:
            masks.append(mask)
            reasons.extend(why)
            if strict and any(why):
                row = next(row for row, reason in enumerate(reasons) if reason)
                _refuse(clips["path"][row], reasons[row])
            yield x

    stored = clips.assign(path=[printable(path) for path in clips["path"]])  # as tables and pages will show it
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
        "n_bands": features.valid_bands(config.features),
        "normaliser": normaliser.to_dict(),
    }
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


@contextmanager
def _threads(workers: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """Yields `map` over threads: it keeps the order, and is at most a few items ahead of whoever takes the results.

    Threads suffice: decoding, resampling and the transforms run outside the interpreter's lock. Processes would take
    seconds each to import torch.
    """
    own = torch.get_num_threads()
    torch.set_num_threads(1)  # new threads begin with this: to share out a single clip costs more than it saves
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
        torch.set_num_threads(own)


def _extract(corpus: CorpusConfig, front_end: FeatureConfig, clips: pd.DataFrame) -> Extracted:
    samples, reasons = [], []
    for path, start, duration in zip(clips["path"], starts(clips), clips["duration"], strict=True):
        try:
            samples.append(read_clip(corpus, front_end, path, start=start, duration=duration))
            reasons.append("")
        except AudioError as error:
            samples.append(torch.zeros(1))
            reasons.append(str(error))
    x, mask = features.extract_batch(samples, durations=clips["duration"].tolist(), config=front_end)
    for row in np.flatnonzero(~np.isfinite(x.numpy()).all(axis=(1, 2))):
        reasons[row] = f"samples of up to {samples[row].abs().max():.2g}, where full scale is 1: too loud for float32"
    unusable = np.array(reasons) != ""
    x[unusable], mask[unusable] = 0, False
    return x.numpy(), mask.numpy(), reasons


def read_clip(corpus: CorpusConfig, front_end: FeatureConfig, path: str, *, start: float, duration: float) -> Tensor:
    """The samples `[s]` of a clip, as far as its features need them; raises `AudioError`.

    Args:
        corpus, front_end: of the configuration.
        path, start, duration: of the clip's row in the corpus's table; start and duration in s.
    """
    seconds = min(front_end.clip_seconds, duration)  # in this order: NaN is not below anything
    return CORPORA[corpus.corpus].read(corpus, path, front_end.sample_rate, start=start, seconds=seconds)


def _write_rows(path: Path, shape: tuple[int, ...], blocks: Iterable[NDArray[np.float32]]) -> None:
    """Writes a .npy file of float32 piece by piece: a full disk is then an error, and in a memory map it is a crash."""
    header = {"descr": np.dtype(np.float32).str, "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block).data)


def _skipped(clips: pd.DataFrame) -> pd.DataFrame:
    return clips.loc[clips["reason"] != "", ["path", "reason"]].reset_index(drop=True)


def _refuse(path: str, reason: str) -> None:
    raise CatuvacError(f"{path}: {reason}; mend or remove the file, or leave out --strict")


def _codes(column: pd.Series) -> Rows:
    return np.unique(column.to_numpy(), return_inverse=True)[1].astype(np.int64)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
