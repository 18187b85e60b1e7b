"""The feature cache: content-addressed, atomic, memory-mapped, shared between processes.

Two kinds of entry lie side by side under the cache folder. A raw one holds the extracted features of every listed file;
a prepared one, derived from it, holds the usable clips in [0, 1] with their splits, and is all that a trial opens.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from catuvac.config import Config, CorpusConfig, FeatureConfig, SplitConfig
from catuvac.data import features, splits
from catuvac.data.audio import AudioError
from catuvac.data.corpora import COMMON, CORPORA, ClipTable, index
from catuvac.errors import CatuvacError

FORMAT = 3  # raise it when extraction, the generated corpus or the entries change: older entries are then not found
PREPARED = 2  # raise it when prepared entries alone change
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
    path: Path  # the entry's folder; `open_entry` takes it

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
            CatuvacError: neither the entry nor the recordings are on this node.
        """
        if self.path.is_dir():
            return open_entry(self.path)
        return prepare(self.config, data_root=self.data_root, cache_dir=self.cache_dir, progress=False)


def default_cache_dir() -> Path:
    """$CATUVAC_CACHE, or ~/.cache/catuvac."""
    return Path(os.environ.get("CATUVAC_CACHE") or Path.home() / ".cache" / "catuvac")


def prepare(
    config: Config,
    *,
    data_root: Path | None,
    cache_dir: Path,
    workers: int = 0,
    strict: bool = False,
    progress: bool = True,
) -> FeatureSet:
    """Lists a corpus, extracts and normalises its features, or opens them where the cache has them.

    Args:
        config: its corpus, feature and split sections, and the number of clusters, matter here.
        data_root: the folder with the recordings; None for a generated corpus.
        cache_dir: where the entries lie.
        workers: threads that extract; 0 takes all cores.
        strict: a file that cannot be used is an error, not a skipped row.
        progress: a progress bar on stderr.

    Raises:
        CatuvacError: a wrong root, no usable file, an unusable one under `strict`, fewer training clips than clusters,
            splits that cannot be filled, or a cache that cannot be written.
    """
    table = index(config.corpus, data_root)
    workers = workers or _cores()
    try:
        raw = build_once(
            cache_dir,
            _raw_key(config, table.clips),
            partial(_extract_all, config, table, workers=workers, strict=strict, progress=progress),
        )
        skipped = _skipped(pd.read_parquet(raw / "clips.parquet"))
        if strict and len(skipped):
            _refuse(skipped["path"][0], skipped["reason"][0])
        key = {
            "format": FORMAT,
            "prepared": PREPARED,
            "raw": raw.name,
            "corpus_norm": config.features.corpus_norm,
            "split": asdict(config.split),
        }
        entry = open_entry(build_once(cache_dir, key, partial(_normalise, config, table.note, raw, workers=workers)))
    except OSError as error:
        raise CatuvacError(
            f"cannot use the cache {cache_dir}: {error.strerror or error}; free some space or choose another folder"
        ) from error
    if config.model.n_clusters > len(entry.splits["train"]):
        raise CatuvacError(
            f"n_clusters={config.model.n_clusters} exceeds the {len(entry.splits['train'])} training clips: "
            "give more clips or fewer clusters"
        )
    return entry


def open_entry(path: Path) -> FeatureSet:
    """Opens a prepared entry, which holds all that is needed; raises `CatuvacError` where there is none."""
    if not (path / "meta.json").is_file():
        raise CatuvacError(f"no prepared features in {path}: run `catuvac prepare` again")
    meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
    with np.load(path / "splits.npz") as stored:
        parts = {name: stored[name] for name in ("train", "val", "test")}
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


def build_once(root: Path, key: Mapping[str, object], build: Callable[[Path], None]) -> Path:
    """Returns the folder `root/<hash of key>`, which `build` fills first where it does not exist.

    The entry appears under its name complete or not at all. Processes that want the same one wait for its builder and
    use what it made; what a killed builder left is removed by the next.
    """
    text = json.dumps(key, sort_keys=True, separators=(",", ":"))
    entry = root / hashlib.sha256(text.encode()).hexdigest()[:16]
    if entry.is_dir():
        return entry
    root.mkdir(parents=True, exist_ok=True)
    with entry.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel lets go of it when its process ends, however it ends
        if entry.is_dir():
            return entry
        unfinished = entry.with_suffix(".tmp")
        shutil.rmtree(unfinished, ignore_errors=True)  # the lock is ours: whoever left it is dead
        unfinished.mkdir()
        try:
            build(unfinished)
            (unfinished / "key.json").write_text(text, encoding="utf-8")
            os.replace(unfinished, entry)
        except BaseException:  # Ctrl-C too
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
    return entry


def _raw_key(config: Config, clips: pd.DataFrame) -> dict[str, object]:
    settings = asdict(config.features)
    del settings["corpus_norm"]  # applied in the prepared entry
    digest = hashlib.sha256(clips.to_csv(index=False).encode())
    if CORPORA[config.corpus.corpus].needs_root:
        for path in clips["path"]:
            stat = os.stat(path)
            digest.update(f"{stat.st_size} {stat.st_mtime_ns}\n".encode())
    return {"format": FORMAT, "corpus": asdict(config.corpus), "files": digest.hexdigest(), "features": settings}


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

    chunks = [clips[start : start + CHUNK] for start in range(0, count, CHUNK)]
    with _threads(workers) as mapped:
        results = mapped(partial(_extract, config.corpus, config.features), chunks)
        shown = track(results, "features", total=len(chunks), console=Console(stderr=True), disable=not progress)
        _write_rows(folder / "x.npy", (count, time, bands), kept(shown))
    np.save(folder / "mask.npy", np.concatenate(masks))
    skipped = _skipped(clips.assign(reason=reasons))
    if len(skipped) == count:
        raise CatuvacError(
            f"none of the {count} files can be used; the first: {skipped['path'][0]}: {skipped['reason'][0]}"
        )
    clips.assign(reason=reasons).to_parquet(folder / "clips.parquet")


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
    for path, duration in zip(clips["path"], clips["duration"], strict=True):
        try:
            seconds = min(front_end.clip_seconds, duration)  # in this order: NaN is not below anything
            samples.append(CORPORA[corpus.corpus].read(corpus, path, front_end.sample_rate, seconds=seconds))
            reasons.append("")
        except AudioError as error:
            samples.append(torch.zeros(1))
            reasons.append(str(error))
    x, mask = features.extract_batch(samples, durations=clips["duration"].tolist(), config=front_end)
    unusable = np.array(reasons) != ""
    x[unusable], mask[unusable] = 0, False
    return x.numpy(), mask.numpy(), reasons


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
