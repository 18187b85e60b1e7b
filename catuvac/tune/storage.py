"""The storage of a study's trials: a path that every node shares, or an object store."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs
import torch
from numpy.typing import NDArray

from catuvac import artifacts, results
from catuvac.errors import CatuvacError, first_line
from catuvac.experiments.base import CHECKPOINTS, DESIGN, JOURNAL, PARTITIONS, STARTS, Experiment
from catuvac.training import checkpoint

Kind = str  # of a checkpoint: last, best, or the name of a branching point

BEST = "best.yaml"
REPORT = "report.html"
TABLES = (DESIGN, results.TRIALS, results.HISTORY, JOURNAL, BEST, REPORT)  # copied to and from an object store


def trial_folder(number: int, ray_trial: str) -> str:
    """Returns the name of a trial's folder, such as trial-0007-3f1c2d_00000."""
    return f"trial-{number:04}-{ray_trial}"


def number_of(folder: Path) -> int:
    """Returns the number of the trial in a folder."""
    return int(folder.name.split("-")[1])


def where(plan: Experiment) -> tuple[pyarrow.fs.FileSystem, str]:
    """Returns the file system of the folder with the trials, and its path there.

    Raises:
        CatuvacError: the address of the object store cannot be used.
    """
    if not plan.remote:
        return pyarrow.fs.LocalFileSystem(), str(plan.folder)
    try:
        system, path = pyarrow.fs.FileSystem.from_uri(plan.remote)
    except (ValueError, OSError) as error:
        raise CatuvacError(f"cannot use --storage {plan.remote}: {first_line(error)}") from error
    return system, f"{path.rstrip('/')}/{plan.name}"


def listed(plan: Experiment, path: str = "") -> list[pyarrow.fs.FileInfo]:
    """Lists the study's folder or a sub-folder; returns an empty list if it does not exist."""
    system, root = where(plan)
    selector = pyarrow.fs.FileSelector(f"{root}/{path}".rstrip("/"), allow_not_found=True)
    infos: list[pyarrow.fs.FileInfo] = system.get_file_info(selector)
    return infos


def save_checkpoint(plan: Experiment, number: int, kind: Kind, state: Mapping[str, Any]) -> None:
    """Writes a trial's last or best state, completely or not at all.

    Ray does not get the state: it would take a snapshot of the whole study for each checkpoint.
    """
    _save_state(plan, f"{CHECKPOINTS}/{number:04}", kind, state)


def save_start(plan: Experiment, start_hash: str, state: Mapping[str, Any]) -> None:
    """Writes a start for all trials that share it, completely or not at all."""
    _save_state(plan, STARTS, start_hash, state)


def _save_state(plan: Experiment, folder: str, name: str, state: Mapping[str, Any]) -> None:
    system, root = where(plan)
    if not plan.remote:
        checkpoint.save(Path(root) / folder / f"{name}.pt", state)
        return
    with tempfile.TemporaryDirectory() as local:
        checkpoint.save(Path(local) / "state.pt", state)
        system.create_dir(f"{root}/{folder}")
        _copy(pyarrow.fs.LocalFileSystem(), f"{local}/state.pt", system, f"{root}/{folder}/{name}.pt")


def remove_leftovers(plan: Experiment, number: int) -> None:
    """Removes unfinished files of a killed process of the trial; an object store contains only whole files."""
    if not plan.remote:
        artifacts.remove_leftovers(plan.folder / CHECKPOINTS / f"{number:04}")


def last_is_best(plan: Experiment, number: int) -> None:
    """Makes the last state, just written, also the best one without writing it twice."""
    system, root = where(plan)
    folder = f"{root}/{CHECKPOINTS}/{number:04}"
    if plan.remote:
        _copy(system, f"{folder}/last.pt", system, f"{folder}/best.pt")
        return
    temporary = Path(folder) / f".best.pt.{os.getpid()}"
    try:
        try:
            # Two names for one file: neither is ever written to, only replaced.
            os.link(Path(folder) / "last.pt", temporary)
        except OSError:  # no hard links on this file system, or a file of a killed writer
            shutil.copyfile(Path(folder) / "last.pt", temporary)
        os.replace(temporary, Path(folder) / "best.pt")
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(plan: Experiment, number: int, kind: Kind, *, device: torch.device) -> dict[str, Any] | None:
    """Reads a trial's state; returns None if there is none or it is damaged."""
    return _load_state(plan, f"{CHECKPOINTS}/{number:04}/{kind}.pt", device=device)


def load_start(plan: Experiment, start_hash: str, *, device: torch.device) -> dict[str, Any] | None:
    """Reads a start; returns None if no trial has stored one or it is damaged."""
    return _load_state(plan, f"{STARTS}/{start_hash}.pt", device=device)


def _load_state(plan: Experiment, name: str, *, device: torch.device) -> dict[str, Any] | None:
    system, root = where(plan)
    path = f"{root}/{name}"
    try:
        if not plan.remote:
            return checkpoint.load(Path(path), device=device)
        with tempfile.TemporaryDirectory() as local:
            _copy(system, path, pyarrow.fs.LocalFileSystem(), f"{local}/state.pt")
            return checkpoint.load(Path(local) / "state.pt", device=device)
    except (CatuvacError, OSError):
        return None


def save_partitions(plan: Experiment, trial_id: str, partitions: NDArray[np.int64]) -> None:
    """Writes the clusters that a trial has assigned to its clips, completely or not at all."""
    system, root = where(plan)
    system.create_dir(f"{root}/{PARTITIONS}")
    path = f"{root}/{PARTITIONS}/{trial_id}.npz"
    with system.open_output_stream(f"{path}.tmp") as file:
        buffer = io.BytesIO()
        np.savez(buffer, clusters=partitions)  # an archive, whose checksum is verified on reading
        file.write(buffer.getvalue())
    system.move(f"{path}.tmp", path)


def pull_partitions(plan: Experiment) -> None:
    """Fetches all partitions from the object store, if there is one: the analysis reads them next to the tables."""
    if plan.remote:
        system, root = where(plan)
        (plan.folder / PARTITIONS).mkdir(exist_ok=True)
        _copy(system, f"{root}/{PARTITIONS}", pyarrow.fs.LocalFileSystem(), str(plan.folder / PARTITIONS))


def delete_checkpoints(plan: Experiment, number: int) -> None:
    """Deletes the checkpoints of a finished trial to free space, unless its clusters have been named or exported."""
    system, root = where(plan)
    names = [info.base_name for info in listed(plan, f"{CHECKPOINTS}/{number:04}")]
    if any(not name.startswith(".") and not name.endswith(".pt") for name in names):
        return
    with contextlib.suppress(FileNotFoundError):
        system.delete_dir(f"{root}/{CHECKPOINTS}/{number:04}")


def push(plan: Experiment) -> None:
    """Copies the tables to the object store, if there is one: the driver's machine may be lost with its disk."""
    if not plan.remote:
        return
    system, root = where(plan)
    system.create_dir(root)
    for name in TABLES:
        if (plan.folder / name).exists():
            _copy(pyarrow.fs.LocalFileSystem(), str(plan.folder / name), system, f"{root}/{name}")


def pull(plan: Experiment) -> None:
    """Fetches the tables of a study that another machine has started, or continued further than this one."""
    if not plan.remote:
        return
    names = [info.base_name for info in listed(plan) if info.base_name in TABLES]
    if (plan.folder / DESIGN).exists():
        with tempfile.TemporaryDirectory() as there:
            _fetch(plan, [name for name in names if name == results.TRIALS], Path(there))
            if _progress(Path(there)) <= _progress(plan.folder):
                return
        print("storage    the tables in the bucket go further than those of this machine and replace them", flush=True)
    # The trials come last: if this process is killed, they do not go further yet, and all tables are fetched again.
    _fetch(plan, sorted(names, key=lambda name: name == results.TRIALS), plan.folder)


def _fetch(plan: Experiment, names: list[str], to: Path) -> None:
    system, root = where(plan)
    for name in names:
        to.mkdir(parents=True, exist_ok=True)
        _copy(system, f"{root}/{name}", pyarrow.fs.LocalFileSystem(), str(to / name))


def _progress(folder: Path) -> tuple[int, int]:
    """Returns how many trials in a folder's table need not run again, and how many it has; 0 if it is unusable."""
    try:
        statuses = results.read_trials(folder)["status"]
    except CatuvacError:
        return 0, 0
    return int((statuses != "error").sum()), len(statuses)


def _copy(source: pyarrow.fs.FileSystem, path: str, target: pyarrow.fs.FileSystem, to: str) -> None:
    pyarrow.fs.copy_files(path, to, source_filesystem=source, destination_filesystem=target)
