"""The folder of one training outside Ray: its files, and how it is written, resumed and scored.

.lock            held by the process that trains
config.yaml      every setting
run.json         path of the features, command, revision, start time
checkpoint.pt    the last evaluated epoch, to resume from
history.parquet  one row per evaluation
metrics.json     the last report; status complete or diverged once training has ended
weights.pt       the model alone
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from catuvac import artifacts, results
from catuvac.config import Config, differences, load_yaml
from catuvac.data import store
from catuvac.data.store import FeatureSet
from catuvac.errors import CatuvacError, first_line, printable
from catuvac.evaluation import metrics
from catuvac.io import write_text
from catuvac.models.shallow import Assignment, kmeans
from catuvac.training import checkpoint
from catuvac.training.run import Report, TrainingRun, mean_probabilities

METHODS = {"cat_uvac": "Cat. UVAC", "uvac": "UVAC"}
WEIGHTS = "weights.pt"
HISTORY_COLUMNS = ("epoch", "tau", "lr")  # besides loss/… and val/…


def revision() -> str | None:
    """Returns the source's git commit, with "+dirty" if files differ from it.

    A Ray job runs in a copy without git, so $CATUVAC_REVISION, set by the submitter, comes first; None without either.
    """
    if given := os.environ.get("CATUVAC_REVISION"):
        return given
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+dirty", "--abbrev=12"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def processor() -> str:
    """Returns the name of this machine's processor."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine() -> str:
    """Returns a line with the processor, accelerator and versions that decide a result's bits, and the core count."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    cores = f"{len(os.sched_getaffinity(0))} cores of {processor()}{gpu}"
    return f"{cores}; {platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"


def history_row(report: Report, *, study: str, trial_id: str) -> dict[str, Any]:
    """Returns a report as a row of `history.parquet`."""
    values = {
        name: value for name, value in report.items() if name in HISTORY_COLUMNS or name.startswith(("loss/", "val/"))
    }
    return {"study": study, "trial_id": trial_id, **values}


def check(folder: Path, config: Config, *, resume: bool) -> None:
    """Rejects an unsuitable folder before any work is done for it.

    Raises:
        CatuvacError: it already contains a run and `resume` is false, a run with other settings, or a model that was
            fitted in Python.
    """
    path = folder / "config.yaml"
    if not path.exists():
        return
    if not resume:
        raise CatuvacError(f"{folder} already contains a run; give another --out, or --resume to continue it")
    _recorded_features(folder)
    changed = [f"{name} {old} → {new}" for name, (old, new) in differences(load_yaml(path), config).items()]
    if changed:
        raise CatuvacError(f"{folder} was started with other settings ({', '.join(changed)}); give another --out")


def _start(folder: Path, config: Config, features: FeatureSet) -> None:
    """Creates a run's folder; config.yaml, written last, marks it as one."""
    record = {
        "features": str(features.path),
        "command": sys.argv,
        "revision": revision(),
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        artifacts.write_json(folder / "run.json", record)
        artifacts.write_yaml(folder / "config.yaml", config.to_yaml())
    except OSError as error:
        raise artifacts.not_writable(folder, error, "--out") from error


def config(folder: Path) -> Config:
    """Reads a run's settings; raises `CatuvacError` if the folder contains no run."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise CatuvacError(f"{folder} contains no run; give a folder that `catuvac train --out` wrote")
    return load_yaml(path)


def features(folder: Path) -> FeatureSet | None:
    """Opens the features that the run was trained on; returns None if the cache has no intact copy.

    Raises:
        CatuvacError: run.json, which states their path, is damaged, or the model was fitted in Python, on no corpus.
    """
    recorded = _recorded_features(folder)
    return None if recorded is None else store.reopen(recorded)


def _recorded_features(folder: Path) -> Path | None:
    """Returns the features' path from run.json, or None if there is no run or no record; raises as `features` does."""
    path = folder / "run.json"
    if not (path.exists() and (folder / "config.yaml").exists()):
        return None
    advice = f"{artifacts.ADVICE}, or delete it: the features are then prepared again"
    recorded = artifacts.read_json(path, {"features": str}, advice=advice)["features"]
    if not recorded:
        raise CatuvacError(
            f"{folder} contains a model that was fitted in Python, without its training: it can assign recordings, but "
            "cannot be resumed or evaluated"
        )
    return Path(recorded)


def _check_features(folder: Path, features: FeatureSet) -> None:
    """Raises `CatuvacError` for other features than the run has recorded, whose splits may differ as well."""
    recorded = _recorded_features(folder)
    if recorded is not None and recorded.name != features.path.name:
        raise CatuvacError(
            f"the recordings, or how their features are extracted, have changed since {folder} was started: undo that, "
            "or train again into another folder"
        )


def weights(folder: Path) -> Path:
    """Returns the file with a finished run's weights; raises `CatuvacError` if the run has not ended."""
    path = folder / WEIGHTS
    if not path.exists():
        raise CatuvacError(f"{folder} has no weights yet; finish it with `catuvac train --resume --out {folder} …`")
    return path


def load_weights(folder: Path, run: TrainingRun) -> None:
    """Loads the weights of a finished training into its model.

    Raises:
        CatuvacError: there are none yet, or they are damaged or belong to another model.
    """
    advice = f"delete it, and write it again from the checkpoint with `catuvac train --resume --out {folder} …`"
    checkpoint.load_weights(weights(folder), run.model, advice=advice)


def pick_device(device: str) -> torch.device:
    """Resolves "auto"; raises `CatuvacError` for a device that torch does not have."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise CatuvacError(f"device {device!r} cannot be used: {first_line(error)}") from error


def train(
    folder: Path, config: Config, features: FeatureSet, *, device: str = "auto", threads: int = 0, resume: bool = True
) -> Report:
    """Trains to the end with a progress bar, from the folder's checkpoint if there is one.

    Args:
        folder: of the run; no other process can train in it until this one ends.
        config: every setting.
        features: what `catuvac.prepare` returned for the same settings.
        device: of torch; "auto" uses CUDA if available.
        threads: of torch on a CPU; 0 keeps torch's default.
        resume: whether the folder may already contain a run.

    Returns:
        The last report. A killed training loses at most the epochs since its last evaluation.

    Raises:
        CatuvacError: as `check`; the run was started with other features; another process trains in the folder, or
            its checkpoint is damaged or another run's.
        OSError: the disk is full, or fails.
    """
    if threads > 0:
        torch.set_num_threads(threads)
    run = TrainingRun(config, features, device=pick_device(device))
    busy = f"another process is training in {folder}; wait until it ends, or give another --out"
    with artifacts.alone(folder, busy=busy, flag="--out"):
        check(folder, config, resume=resume)
        _check_features(folder, features)
        return _train(folder, run)


def _train(folder: Path, run: TrainingRun) -> Report:
    if not (folder / "config.yaml").exists():
        _start(folder, run.config, run.features)
    last, shown = folder / "checkpoint.pt", printable(str(folder))
    if last.exists():
        state = checkpoint.load(last, device=run.device)
        try:
            run.load_state(state)
        except CatuvacError as error:
            raise CatuvacError(f"cannot resume from {last}: {error}; {checkpoint.ADVICE}") from error
        print(f"resuming {shown} after epoch {run.epoch}", file=sys.stderr)
    columns = (
        TextColumn("epoch"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    report: Report = {}
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=run.config.training.epochs, completed=run.epoch)
        for report in run:
            # The checkpoint comes last: what a kill before it loses is computed again, and replaced in the history.
            results.append_history(folder, [history_row(report, study=_name(folder), trial_id="train")])
            write_text(folder / "metrics.json", json.dumps(report, indent=2))
            checkpoint.save(last, run.state())
            progress.update(task, completed=run.epoch, description=f"τ {report['tau']:.2f}, {summary(report)}")
    checkpoint.save(folder / WEIGHTS, run.model.state_dict())
    print(f"{report['status']} after {run.epoch} epochs, {run.seconds:.0f} s: {summary(report)}; see {shown}")
    return report


def _name(folder: Path) -> str:
    """Returns the folder's own name, also for "." and "..", as text that a table can store."""
    return printable(Path(os.path.abspath(folder)).name)


def summary(report: Report) -> str:
    """Summarises a report in a few words; never shows the p-space Silhouette without the clusters used."""
    if "val/clusters_used" not in report:
        return str(report["status"])
    in_p = f" p {report['val/silhouette_p']:.2f}" if "val/silhouette_p" in report else ""
    undecided = "" if report.get("val/y_decided", True) else " (undecided)"
    words = [
        f"clusters used {report['val/clusters_used']:.0f}{undecided}",
        f"silhouette x {report['val/silhouette_x']:.2f}{in_p}",
    ]
    if "val/acc" in report:
        words.append(f"acc {report['val/acc']:.2f}")
    return ", ".join(words)


def evaluate(folder: Path, features: FeatureSet, *, split: str = "val") -> dict[str, dict[str, Any]]:
    """Scores a run's weights and, on the same features, k-means.

    Returns:
        Method → scores, each with the keys of the first; None where a method has no such score.

    Raises:
        CatuvacError: the folder contains no finished run, or one that was started with other features.
    """
    settings = config(folder)
    _check_features(folder, features)
    run = TrainingRun(settings, features)
    load_weights(folder, run)
    scores = run.evaluate(split)
    baseline = kmeans_scores(settings, features, split=split)
    return {METHODS[settings.model.method]: scores, "k-means": {name: baseline.get(name) for name in scores}}


def kmeans_scores(config: Config, features: FeatureSet, *, split: str) -> dict[str, Any]:
    """Scores k-means, fitted on the training split."""
    train = features.x[features.splits["train"]]
    assign = kmeans(train, n_clusters=config.model.n_clusters, seed=config.training.seed)
    return assignment_scores(assign(features.x[features.splits[split]]), features, split=split)


def assignment_scores(assignment: Assignment, features: FeatureSet, *, split: str) -> dict[str, Any]:
    """Scores a method's assignment of one split; a missing z or missing probabilities have no scores.

    A clip of several windows has their mean probabilities, or the cluster of most of them.
    """
    rows = features.splits[split]
    x = features.x[rows]
    if clips := features.by_clip(rows):
        q, z = assignment.probabilities, assignment.z
        votes = np.eye(int(assignment.clusters.max()) + 1)[assignment.clusters] if q is None else q
        assignment = Assignment(
            clusters=clips.means(votes).argmax(axis=1),
            probabilities=None if q is None else mean_probabilities(clips, q),
            z=None if z is None else clips.means(z),
        )
        x, rows = clips.means(x), clips.rows
    return metrics.evaluate(
        x=x,
        clusters=assignment.clusters,
        probabilities=assignment.probabilities,
        z=assignment.z,
        labels=features.labels(rows),
        nuisances=features.nuisances(rows),
    )
