"""`catuvac replay`: repeats one trial of a study without Ray and compares the metrics."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table
from threadpoolctl import threadpool_limits

from catuvac import results
from catuvac.artifacts import read_json
from catuvac.config import Config, ConfigError
from catuvac.data import store
from catuvac.data.store import FeatureSet
from catuvac.errors import CatuvacError, printable
from catuvac.evaluation.objectives import scored
from catuvac.experiments.base import BRANCH, DESIGN, recorded_features, settings_of
from catuvac.experiments.comparison import VARIATIONAL
from catuvac.training import run_dir
from catuvac.training.run import Report, TrainingRun


def replay(
    folder: Path, trial: str, *, data_root: Path | None, cache_dir: Path | None, device: str, tolerance: float
) -> None:
    """Trains a trial for as many epochs as it had and prints the metrics that differ, or one line if none does.

    Args:
        folder: of a study.
        trial: number or trial_id.
        data_root: the folder with the recordings, in case the features have to be extracted again.
        cache_dir: the feature cache, likewise; None: the default one.
        device: of torch; "auto": CUDA if the study used it and it is available, else the CPU.
        tolerance: largest accepted relative difference; 0 requires equality.

    Raises:
        CatuvacError: there is no such trial, it cannot be repeated, or it is from another version of catuvac.
        SystemExit: with code 1 and one line on stderr if a metric differs.
    """
    if not tolerance >= 0:
        raise CatuvacError(f"--tolerance must not be negative, got {tolerance}")
    row = _row(folder, trial)
    config = _config(row)
    study = _study(folder)
    features = _features(study, config, data_root, cache_dir)
    if device == "auto":
        device = "cuda" if study["gpus_per_trial"] > 0 and torch.cuda.is_available() else "cpu"
    threads = row["threads"] or max(1, int(study["cpus_per_trial"]))  # an earlier version recorded only the study's
    torch.set_num_threads(threads)
    with threadpool_limits(threads):  # also for scikit-learn: Ray sets OMP_NUM_THREADS for a trial
        report = _train(config, features, device=device, epochs=row["epochs"])
    metrics = {**report, **scored(report, n_clusters=config.model.n_clusters)}

    recorded = {name: value for name, value in row.items() if name.startswith(("val/", "loss/")) and value is not None}
    # A trial that a scheduler stopped did not end by itself.
    recorded_end = {"status": row["status"], "epochs": row["epochs"]}
    end = {"status": row["status"] if row["status"] == "stopped" else report["status"], "epochs": report["epoch"]}
    pairs = {name: (value, metrics.get(name)) for name, value in recorded.items()}
    pairs |= {name: (value, end[name]) for name, value in recorded_end.items()}
    differing = {name: pair for name, pair in pairs.items() if not _equal(*pair, tolerance)}
    if not differing:
        within = f" within {tolerance:g}" if tolerance else ""
        print(f"trial {trial}: all {len(recorded)} metrics equal{within}")
        return
    _print(differing, title=f"{folder}, trial {trial}")
    sys.exit(
        f"trial {trial}: {len(differing)} of {len(pairs)} values differ; recorded with revision "
        f"{row['revision'] or 'unknown'}, now {run_dir.revision() or 'unknown'}, {device}, {threads} threads"
    )


def _row(folder: Path, trial: str) -> dict[str, Any]:
    """Returns a trial's row with None for null; raises `CatuvacError` if there is none that can be repeated."""
    trials = results.read_trials(folder)
    rows = trials[(trials["trial_id"] == trial) | (trials["number"].astype(str) == trial)]
    if rows.empty:
        numbers = trials["number"]
        raise CatuvacError(
            f"{folder} has no trial {trial}; it has {len(trials)}, with numbers from {numbers.min()} to {numbers.max()}"
        )
    if len(rows) > 1:
        raise CatuvacError(f"trial {trial} is in {folder} {len(rows)} times; give one of {', '.join(rows['trial_id'])}")
    row = results.records(rows)[0]
    if row["status"] == "error":
        why = f" ({row['failure']})" if row.get("failure") else ""
        raise CatuvacError(f"trial {trial} ended in an error{why}: it has no metrics to compare")
    if row["arm"] == BRANCH:
        raise CatuvacError(f"trial {trial} is a branch of another training run; branches cannot be replayed")
    if row["method"] not in VARIATIONAL:
        raise CatuvacError(f"trial {trial} is {row['method']}; only {', '.join(VARIATIONAL)} can be replayed")
    return row


def _config(row: Mapping[str, Any]) -> Config:
    advice = f"it is from another version of catuvac; replay it with revision {row['revision'] or 'unknown'}"
    try:
        config = Config().with_settings(settings_of(row))
    except ConfigError as error:
        raise CatuvacError(f"the trial's settings cannot be read ({error}): {advice}") from error
    if config.hash() != row["config_hash"]:
        raise CatuvacError(f"the trial's settings give {config.hash()}, but {row['config_hash']} is recorded: {advice}")
    return config


def _study(folder: Path) -> dict[str, Any]:
    return read_json(folder / DESIGN, {"cpus_per_trial": int | float, "gpus_per_trial": int | float})


def _features(study: Mapping[str, Any], config: Config, data_root: Path | None, cache_dir: Path | None) -> FeatureSet:
    """Opens the cache entry that the study recorded, if this machine has it, else looks for it as `prepare` does."""
    recorded = recorded_features(study, config)
    features = store.reopen(recorded) if recorded else None
    if features is not None:
        return features
    return store.prepare(config, data_root=data_root, cache_dir=cache_dir)


def _train(config: Config, features: FeatureSet, *, device: str, epochs: int) -> Report:
    """Returns the report of the evaluation after `epochs`, or of an earlier divergence."""
    run = TrainingRun(config, features, device=run_dir.pick_device(device))
    report: Report = {}
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("training", total=epochs)
        for report in run:
            progress.update(task, completed=run.epoch)
            if report["epoch"] >= epochs:
                break
    return report


def _equal(recorded: Any, replayed: Any, tolerance: float) -> bool:
    if recorded == replayed:
        return True
    numbers = isinstance(recorded, float) and isinstance(replayed, int | float)
    return numbers and math.isclose(recorded, replayed, rel_tol=tolerance)


def _print(pairs: Mapping[str, tuple[Any, Any]], *, title: str) -> None:
    table = Table(Column("metric", no_wrap=True), "recorded", "replayed", "relative", title=printable(title))
    for name, (recorded, replayed) in pairs.items():
        gap = ""
        if isinstance(recorded, float) and isinstance(replayed, int | float):
            gap = f"{abs(recorded - replayed) / max(abs(recorded), abs(replayed)):.1e}"
        table.add_row(name, str(recorded), "–" if replayed is None else str(replayed), gap)
    Console(markup=False, emoji=False).print(table)
