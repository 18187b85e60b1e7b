"""Checks on every node before the first trial starts, so that a study that cannot run fails early and in one line.

Only nodes that are up are checked, not those that an autoscaler adds later.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import math
import os
import platform
import shutil
import subprocess
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import torch
from pyarrow import fs
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import catuvac
from catuvac.config import Config
from catuvac.data import features as front_end
from catuvac.data.store import Prepared
from catuvac.errors import CatuvacError, first_line
from catuvac.experiments.base import Experiment, duration
from catuvac.training.run import MODELS, TrainingRun
from catuvac.training.step import kernels

PACKAGES = ("torch", "ray", "optuna")  # on which a trial's result, or its transfer to the driver, depends
ANSWER_SECONDS = 120.0  # for a node to start a process, import torch and check the storage
EXTRACT_SECONDS = 3600.0  # for a node that has the recordings and whose cache lacks the features
TIMING_SECONDS = 300.0  # for the timed steps to be scheduled and finished
WARM_UP_STEPS, TIMED_STEPS = 5, 10
FLOATS = 3  # per parameter in a checkpoint: its value and Adam's two moments


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node that is up."""

    id: str
    name: str  # host name and the start of the id, as in `ray list nodes`
    resources: Mapping[str, float]


def preflight(
    plan: Experiment,
    *,
    config: Config | None,
    features: Prepared | None,
    estimate: bool = False,
) -> list[str]:
    """Checks the cluster that Ray is connected to, and leaves nothing behind.

    Args:
        plan: the study that is about to start.
        config: of a representative trial; None uses the cells of a grid to estimate the disk space.
        features: opened by every trial; None uses those of a grid's cells.
        estimate: time a few training steps; needs `config` and `features`.

    Returns:
        Lines to print.

    Raises:
        CatuvacError: a check failed; the message states the problem, the node and the remedy.
    """
    entries = [features, *features.others] if features else plan.features
    configs = [config] if config else plan.configs
    check_resources(plan)
    nodes = alive()
    carriers = [node for node in nodes if slots(node.resources, plan) > 0]
    at_once = concurrent(plan, nodes) if carriers else min(plan.max_concurrent or plan.trials, plan.trials)
    lines = [_resources(plan, nodes, at_once) if carriers else f"resources  {_no_carrier(plan, nodes)} yet"]
    visited = list(zip(nodes, _visit_all(plan, nodes), strict=True))
    here = versions()
    compare(here, {node.name: visit["versions"] for node, visit in visited})
    lines.append(f"versions   {', '.join(f'{name} {version}' for name, version in here.items())} on {_count(nodes)}")
    if plan.gpus_per_trial > 0:
        lines += [
            f"gpus       {node.name}: {_gpu_names([name for name, _ in visit['gpus']])}"
            for node, visit in visited
            if node in carriers
        ]
    for node, visit in visited:
        if visit["storage"]:
            raise _unshared(f"node {node.name}: {visit['storage']}")
    lines.append(f"storage    {plan.remote or plan.storage}: written and read by {_count(nodes)}")
    if carriers:
        lines += dict.fromkeys(_same_features(entry, carriers) for entry in entries)  # splits differ only in content
    if configs:
        lines.append(disk(plan, checkpoint=max(map(checkpoint_bytes, _sizes(configs))), at_once=at_once))
    if estimate and config and features:
        lines.append(
            _time(plan, config, features, at_once)
            if carriers
            else "time       not measured: no node that can run a trial is up"
        )
    return lines


def check_resources(plan: Experiment) -> None:
    """Raises CatuvacError if no node can ever run a trial, for which Ray would wait forever."""
    nodes = alive()
    if not plan.autoscaling and not any(slots(node.resources, plan) for node in nodes):
        raise CatuvacError(f"{_no_carrier(plan, nodes)}; lower --cpus-per-trial or --gpus-per-trial")


def slots(resources: Mapping[str, float], plan: Experiment) -> int:
    """Returns how many trials a node with these resources can run at once; a share of a GPU is on one GPU."""
    count = math.floor(resources.get("CPU", 0) / plan.cpus_per_trial + 1e-9)
    if 0 < plan.gpus_per_trial < 1:
        count = min(count, int(resources.get("GPU", 0)) * math.floor(1 / plan.gpus_per_trial + 1e-9))
    elif plan.gpus_per_trial:
        count = min(count, math.floor(resources.get("GPU", 0) / plan.gpus_per_trial))
    return count


def concurrent(plan: Experiment, nodes: Sequence[Node]) -> int:
    """Returns how many trials run at once."""
    room = carried(plan, nodes)
    return min(room, plan.max_concurrent or room, plan.trials)


def carried(plan: Experiment, nodes: Sequence[Node] | None = None) -> int:
    """Returns how many trials these nodes, or all that are up, can run at once."""
    return sum(slots(node.resources, plan) for node in (alive() if nodes is None else nodes))


def versions() -> dict[str, str]:
    """Returns the versions that must match; catuvac's is a hash of its source, as a Ray job ships it without git."""
    # Build tags are removed: a head node without a GPU may have torch's CPU build.
    packages = {name: _version(name).partition("+")[0] for name in PACKAGES}
    return {"python": platform.python_version(), **packages, "catuvac": _source_hash()}


def compare(here: Mapping[str, str], nodes: Mapping[str, Mapping[str, str]]) -> None:
    """Raises CatuvacError for the first package of a node whose version is not the driver's."""
    for node, there in nodes.items():
        for package, version in here.items():
            if there[package] != version:
                raise CatuvacError(
                    f"node {node} has {package} {there[package]}, but the driver has {version}; "
                    "give every node the same environment"
                )


def gpus() -> list[tuple[str, int]]:
    """Returns names and memory in bytes of all GPUs of this machine, whatever CUDA_VISIBLE_DEVICES hides.

    The memory is 0 if nvidia-smi does not report it.
    """
    # Not with torch: it would start CUDA in a process that Ray keeps, and occupy memory.
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return []
    cards = []
    for line in lines:
        name, _, mebibytes = line.rpartition(",")
        cards.append((name.strip(), int(mebibytes) * 2**20 if mebibytes.strip().isdigit() else 0))
    return cards


def checkpoint_bytes(config: Config) -> int:
    """Returns the size of a checkpoint in bytes, computed from the model's parameters."""
    frames, bands = front_end.frames(config.features)
    settings = replace(config.model, likelihood="bernoulli")  # as many parameters, without sigma from the features
    model = MODELS[settings.method](settings, n_frames=frames, n_bands=bands)
    return sum(parameter.numel() for parameter in model.parameters()) * FLOATS * torch.float32.itemsize


def disk(plan: Experiment, *, checkpoint: int, at_once: int) -> str:
    """Describes the disk space that checkpoints need.

    Args:
        plan: the study that is about to start.
        checkpoint: size of a checkpoint in bytes.
        at_once: number of concurrent trials.

    Raises:
        CatuvacError: the storage is a folder with less free space.
    """
    finished = min(plan.keep_top or plan.trials, plan.trials)
    need = checkpoint * (2 * (at_once + finished) + plan.shared_states)  # the last one, and the best one
    filesystem, path = _filesystem(plan.remote or str(plan.storage))
    usage = f"{_gigabytes(need)} of checkpoints at most, {_gigabytes(checkpoint)} each, of "
    usage += f"{at_once} running and {finished} finished trials"
    if filesystem.type_name != "local":
        return f"disk       {usage}; the free space is not known here"
    free = shutil.disk_usage(next(folder for folder in (Path(path), *Path(path).parents) if folder.exists())).free
    # What a study to resume has written counts once, even where the last and the best state are the same file.
    stored = {status.st_ino: status.st_size for status in map(os.stat, plan.folder.rglob("*.pt"))}
    if need - sum(stored.values()) > free:
        raise CatuvacError(
            f"{path} has {_gigabytes(free)} free and may need {usage}; "
            f"lower --keep-top (now {plan.keep_top or 'all'}) or give another --storage"
        )
    return f"disk       {usage}; {_gigabytes(free)} free"


def step_seconds(config: Config, features: Prepared, *, cpus: float, gpus: float) -> tuple[float, int]:
    """Times training steps after a few warm-up steps; returns seconds per step and steps per epoch."""
    torch.set_num_threads(max(1, int(cpus)))
    device = "cuda" if gpus > 0 and torch.cuda.is_available() else "cpu"
    run = TrainingRun(config, features.open(), device=device)
    batch, steps_an_epoch = run.steps
    rows = run.train_rows[:batch].to(device)
    run.model.train()
    run.model.warm_up(False)  # most epochs come after the warm-up
    training = config.training

    def train(steps: int) -> float:
        began = time.perf_counter()
        with kernels(run.device, deterministic=training.deterministic):
            for _ in range(steps):
                run.step(rows, tau=training.tau_start, lrs=[training.lr_start] * len(run.optimizer.param_groups))
        run.step.sums.tolist()  # waits for the device
        return time.perf_counter() - began

    train(WARM_UP_STEPS)
    return train(TIMED_STEPS) / TIMED_STEPS, steps_an_epoch


def alive() -> list[Node]:
    """Returns the nodes that are up."""
    return [
        Node(
            id=node["NodeID"], name=f"{node['NodeManagerHostname']} ({node['NodeID'][:8]})", resources=node["Resources"]
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def _count(nodes: Sequence[Node]) -> str:
    return f"{len(nodes)} node{'s' * (len(nodes) != 1)}"


def _resources(plan: Experiment, nodes: Sequence[Node], at_once: int) -> str:
    cpus, cards = (sum(node.resources.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
    return (
        f"resources  {_count(nodes)} with {cpus:g} CPUs and {cards:g} GPUs: "
        f"{at_once} trials at once of {plan.cpus_per_trial:g} CPUs and {plan.gpus_per_trial:g} GPUs"
    )


def _no_carrier(plan: Experiment, nodes: Sequence[Node]) -> str:
    have = "; ".join(f"{n.resources.get('CPU', 0):g} CPUs and {n.resources.get('GPU', 0):g} GPUs" for n in nodes)
    wanted = f"{plan.cpus_per_trial:g} CPUs and {plan.gpus_per_trial:g} GPUs"
    return f"no node can run a trial with {wanted} (nodes: {have})"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _source_hash() -> str:
    root = Path(catuvac.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _gpu_names(names: Sequence[str]) -> str:
    counts = [f"{names.count(name)} × {name}" for name in dict.fromkeys(names)]
    return ", ".join(counts) or "none according to nvidia-smi; trials there train on the CPU"


def ask(function: Callable[..., Any], nodes: Sequence[Node], *args: Any, seconds: float = ANSWER_SECONDS) -> list[Any]:
    """Calls `function(*args)` on every node at once; returns the answers in the order of the nodes."""
    task = ray.remote(num_cpus=0, max_retries=0)(function)
    pinned = (NodeAffinitySchedulingStrategy(node.id, soft=False) for node in nodes)
    return _answers([task.options(scheduling_strategy=pin).remote(*args) for pin in pinned], nodes, seconds=seconds)


def _answers(references: list[Any], nodes: Sequence[Node], *, seconds: float) -> list[Any]:
    _, late = ray.wait(references, num_returns=len(references), timeout=seconds)
    if late:
        for reference in late:
            ray.cancel(reference, force=True)
        names = ", ".join(node.name for node, reference in zip(nodes, references, strict=True) if reference in late)
        raise CatuvacError(f"no answer within {seconds:.0f} s from node {names}; fix it or remove it from the cluster")
    answers = []
    for node, reference in zip(nodes, references, strict=True):
        try:
            answers.append(ray.get(reference))
        except ray.exceptions.RayError as error:
            raise CatuvacError(f"node {node.name}: {_reason(getattr(error, 'cause', None) or error)}") from error
    return answers


def _reason(error: BaseException) -> str:
    text = first_line(error)
    return text if isinstance(error, CatuvacError | OSError) else f"{type(error).__name__}: {text}"


def _visit_all(plan: Experiment, nodes: Sequence[Node]) -> list[dict[str, Any]]:
    """Returns the visit of every node, made while a probe file of the driver is in the study's storage."""
    name = f".preflight-{uuid.uuid4().hex}"
    with contextlib.ExitStack() as probes:
        # Only the driver writes the tables; trials write to the last place.
        places = [str(plan.storage), *([plan.remote] if plan.remote else [])]
        for place in places:
            probes.enter_context(_probe(place, name))
        return ask(_visit, nodes, places[-1], name, seconds=ANSWER_SECONDS)


def _visit(place: str, name: str) -> dict[str, Any]:
    """Runs on a node; returns its versions, its GPUs and a problem with its storage, or ""."""
    return {"versions": versions(), "gpus": gpus(), "storage": _storage_problem(place, name)}


def _storage_problem(place: str, name: str) -> str:
    try:
        if _read(place, name) != name:
            return f"{place} contains a different file from the driver's"
    except (OSError, pa.ArrowException) as error:
        return f"{place} is not what the driver wrote to ({_reason(error)})"
    try:
        _write(place, f"{name}-{uuid.uuid4().hex}", name)
    except (OSError, pa.ArrowException) as error:
        return f"cannot write to {place} ({_reason(error)})"
    return ""


@contextlib.contextmanager
def _probe(place: str, name: str) -> Iterator[None]:
    """Keeps a file in a place that may not exist yet, and restores the place afterwards."""
    made: list[Path] = []

    def write_probe() -> tuple[Any, str]:
        filesystem, path = _filesystem(place)
        if filesystem.type_name == "local":  # an object store has no folders
            made.extend(folder for folder in (Path(path), *Path(path).parents) if not folder.exists())
            Path(path).mkdir(parents=True, exist_ok=True)
        _write(place, name, name)
        return filesystem, path

    try:
        filesystem, path = _in_time(write_probe, seconds=ANSWER_SECONDS)
    except (OSError, pa.ArrowException) as error:
        _remove_empty(made)
        raise _unshared(f"cannot write to {place} ({_reason(error)})") from error
    try:
        yield
    finally:
        for file in filesystem.get_file_info(fs.FileSelector(path)):
            if file.base_name.startswith(name):
                filesystem.delete_file(file.path)
        _remove_empty(made)


def _in_time(function: Callable[[], Any], *, seconds: float) -> Any:
    """Calls a function; raises TimeoutError if it hangs, for example because a file server is gone."""
    outcome: Future[Any] = Future()

    def call() -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:  # handled by the caller
            outcome.set_exception(error)

    threading.Thread(target=call, daemon=True).start()  # Python would wait for an executor at exit
    try:
        return outcome.result(timeout=seconds)
    except TimeoutError as error:
        if outcome.done():  # raised by the function itself
            raise
        raise TimeoutError(f"no answer within {seconds:.0f} s") from error


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):  # it contains something else by now
            folder.rmdir()


def _unshared(problem: str) -> CatuvacError:
    return CatuvacError(f"{problem}; give --storage a folder that every node shares, or s3://…")


def _filesystem(place: str) -> tuple[Any, str]:
    """Resolves a storage path as Ray does."""
    resolved: tuple[Any, str] = fs.FileSystem.from_uri(place)
    return resolved


def _read(place: str, name: str) -> str:
    filesystem, path = _filesystem(place)
    with filesystem.open_input_stream(f"{path}/{name}") as file:
        return bytes(file.read()).decode()


def _write(place: str, name: str, text: str) -> None:
    filesystem, path = _filesystem(place)
    with filesystem.open_output_stream(f"{path}/{name}") as file:
        file.write(text.encode())


def _same_features(entry: Prepared, carriers: Sequence[Node]) -> str:
    here = _fingerprint(entry)
    for node, there in zip(carriers, ask(_fingerprint, carriers, entry, seconds=EXTRACT_SECONDS), strict=True):
        if there != here:
            raise CatuvacError(
                f"node {node.name} has other features, {there[0]} with checksum {there[1]:08x}, than the driver, "
                f"{here[0]} with {here[1]:08x}; use the same recordings on every node, or one --cache-dir for all"
            )
    n, frames, bands = here[0]
    return f"features   {n} clips of [{frames}, {bands}], the same on {_count(carriers)}"


def _fingerprint(entry: Prepared) -> tuple[list[int], int]:
    x = entry.open().x
    return list(x.shape), zlib.crc32(x.data)


def _sizes(configs: Sequence[Config]) -> list[Config]:
    """Returns one configuration per model."""
    return list({(config.features, config.model): config for config in configs}.values())


def _time(plan: Experiment, config: Config, features: Prepared, at_once: int) -> str:
    task = ray.remote(num_cpus=plan.cpus_per_trial, num_gpus=plan.gpus_per_trial, max_retries=0)(step_seconds)
    reference = task.remote(config, features, cpus=plan.cpus_per_trial, gpus=plan.gpus_per_trial)
    try:
        seconds, steps = ray.get(reference, timeout=TIMING_SECONDS)
    except ray.exceptions.GetTimeoutError:
        ray.cancel(reference, force=True)
        return f"time       not measured: no trial's resources were free for {TIMING_SECONDS:.0f} s"
    except ray.exceptions.RayError as error:
        reason = _reason(getattr(error, "cause", None) or error)
        raise CatuvacError(f"a training step fails on the cluster: {reason}") from error
    shared = math.floor(1 / plan.gpus_per_trial + 1e-9) if 0 < plan.gpus_per_trial < 1 else 1
    epochs = plan.trained_epochs(at_once)
    return (
        f"time       about {duration(epochs * steps * seconds / at_once)}: {epochs} epochs × {steps} steps × "
        f"{1000 * seconds:.3g} ms, {at_once} trials at once, plus the scores and the start of trials"
        + (f"; up to {shared} × as long if trials that share a GPU wait for each other" if shared > 1 else "")
    )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e9:.2g} GB"
