"""Where a study's paths lie: a Ray job runs in a copy of the working folder, and what is relative is lost with it."""

from __future__ import annotations

import os
from pathlib import Path

from catuvac.config import ConfigError


def in_job() -> bool:
    """Whether `ray job submit` started this process."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def absolute(path: Path, flag: str) -> Path:
    """Resolves a path of the command line; raises `ConfigError` naming `flag` for a relative one in a Ray job."""
    if in_job() and not path.is_absolute():
        raise ConfigError(f"{flag} {path} must be absolute in a Ray job, which runs in a copy of this folder")
    return path.absolute()


def storage(path: Path | None) -> Path:
    """The folder of all studies: `path`, else ./results, or ~/catuvac/results in a Ray job."""
    if path is not None:
        return absolute(path, "--storage")
    return Path.home() / "catuvac" / "results" if in_job() else Path("results").absolute()
