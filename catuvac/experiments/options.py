"""Common preparations of studies: features, and paths, which must be absolute in a Ray job."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from catuvac.config import Config, ConfigError, SplitConfig

if TYPE_CHECKING:
    from catuvac.data.store import Prepared

OBJECT_STORES = ("s3", "gs")


def in_job() -> bool:
    """Returns whether `ray job submit` started this process."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def prepare(
    config: Config, *, data_root: Path | None, cache_dir: Path | None, splits: Sequence[SplitConfig] = ()
) -> Prepared:
    """Extracts a corpus's features for the trials of a job, or finds them in the cache; prints one line about them.

    Args:
        config: its corpus, feature and split sections and its number of clusters are used.
        data_root: the folder with the recordings; None for a generated corpus.
        cache_dir: the feature cache; None: the default one.
        splits: further splits that trials train on; each has its own features, because bands are normalised on the
            training split.

    Raises:
        ConfigError: a relative --data-root or --cache-dir in a Ray job.
        CatuvacError: as `catuvac.data.store.prepare`.
    """
    from catuvac.data import store  # torch takes seconds to import, and the error for a bad flag must not wait for it

    data_root = None if data_root is None else absolute(data_root, "--data-root")
    cache_dir = absolute(cache_dir, "--cache-dir") if cache_dir else store.default_cache_dir().absolute()
    features = store.prepare(config, data_root=data_root, cache_dir=cache_dir)
    first = store.Prepared(path=features.path, config=config, data_root=data_root, cache_dir=cache_dir)
    others = []
    for other in (replace(config, split=split) for split in splits if split != config.split):
        path = store.prepare(other, data_root=data_root, cache_dir=cache_dir).path
        others.append(replace(first, path=path, config=other))
    n, frames, bands = features.x.shape
    under = f", under {len(others) + 1} splits" if others else ""
    print(f"features   {features.note}: {n} clips of [{frames}, {bands}], {len(features.skipped)} skipped{under}")
    sys.stdout.flush()
    return replace(first, others=tuple(others))


def absolute(path: Path, flag: str) -> Path:
    """Resolves a path of the command line; raises `ConfigError` naming `flag` for a relative one in a Ray job."""
    if in_job() and not path.is_absolute():
        raise ConfigError(f"{flag} {path} must be absolute in a Ray job, which runs in a copy of this folder")
    return path.absolute()


def storage(place: str) -> tuple[Path, str]:
    """Returns the folder of all studies, and the object store of their trials or "".

    Args:
        place: a path, s3://… or gs://…; "": ./results, or ~/catuvac/results in a Ray job. With an object store the
            folder is the default one, because tables and Optuna's journal need a file system.

    Raises:
        ConfigError: a relative path in a Ray job, or an address of another kind.
    """
    default = Path.home() / "catuvac" / "results" if in_job() else Path("results").absolute()
    scheme, separator, _ = place.partition("://")
    if separator:
        if scheme not in OBJECT_STORES:
            raise ConfigError(f"--storage {place} must be a path or start with s3:// or gs://")
        return default, place.rstrip("/")
    return (absolute(Path(place), "--storage"), "") if place else (default, "")


def database(url: str) -> str:
    """Returns the URL if it contains no secret; raises `ConfigError` otherwise."""
    from catuvac.experiments.database import for_flag  # SQLAlchemy takes half a second to import

    return for_flag(url)
