"""Several trials on one device: one process per trial, or on CUDA one process with one stream per trial."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Barrier
from typing import Any

import torch
from rich.progress import track

from benchmarks import machine
from catuvac.errors import CatuvacError
from catuvac.training.run import TrainingRun

BATCH = 64
SECONDS = 8.0  # for which the trials of a cell train concurrently
STEPS = {"cpu": 4, "cuda": 200}  # per epoch: the clock is read between epochs


def measure(
    *, repeats: int, shapes: Sequence[str] = tuple(machine.SHAPES), trials: Sequence[int] = (1, 2, 4, 8, 16)
) -> list[dict[str, Any]]:
    """Returns one row per device, shape, way of packing and number of trials; a CPU's trials share its cores."""
    cores = len(os.sched_getaffinity(0))
    rows: list[dict[str, Any]] = []
    for device in machine.devices():
        ways = ["processes", *(["streams"] if device == "cuda" else [])]
        counts = [count for count in trials if device == "cuda" or count <= cores]
        for shape in shapes:
            cells = [(way, count) for way in ways for count in counts if way == "processes" or count > 1]
            speeds = {}
            for way, count in track(cells, f"packing, {device}, {shape}"):
                run = _processes if way == "processes" else _streams
                runs = sorted(run(device, shape, count, threads=max(1, cores // count)) for _ in range(repeats))
                speed, memory = runs[len(runs) // 2]
                speeds[way, count] = speed
                alone = speeds["processes", 1]
                rows.append(
                    {
                        "device": device,
                        "shape": shape,
                        "packed as": way,
                        "MPS": "yes" if os.environ.get("CUDA_MPS_PIPE_DIRECTORY") else "no",
                        "trials": count,
                        "clips/s, all": round(speed),
                        "of one alone": round(speed / alone, 2),
                        "memory, MiB": round(memory),
                    }
                )
    return rows


def _processes(device: str, shape: str, count: int, *, threads: int) -> tuple[float, float]:
    """Returns clips per second of all trials together, and MiB."""
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    barrier, answers = context.Barrier(count), context.SimpleQueue()
    workers = [
        context.Process(target=_trial, args=(device, shape, threads, barrier, answers), daemon=True)
        for _ in range(count)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        if worker.exitcode:
            raise CatuvacError(f"a trial of {count} at once on {device} ended with code {worker.exitcode}")
    speeds, memories = zip(*(answers.get() for _ in workers), strict=True)
    # Each process sees the whole GPU's memory, but only its own main memory.
    return sum(speeds), max(memories) if device == "cuda" else sum(memories)


def _trial(device: str, shape: str, threads: int, barrier: Barrier, answers: Any) -> None:
    torch.set_num_threads(threads)
    run = _run(device, shape)
    run._train_epoch()
    barrier.wait()
    began, epochs = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        run._train_epoch()
        run._losses()  # waits for the device
        epochs += 1
    speed = epochs * len(run.train_rows) / (time.perf_counter() - began)
    memory = _gpu_memory() if device == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    barrier.wait()  # no process frees its memory before all have measured theirs
    answers.put((speed, memory))


def _streams(device: str, shape: str, count: int, *, threads: int) -> tuple[float, float]:
    """Returns clips per second and MiB of trials in this process, whose CUDA graphs are replayed in turns."""
    del threads
    trials = [(_run(device, shape), torch.cuda.Stream()) for _ in range(count)]  # type: ignore[no-untyped-call]
    rows = torch.arange(BATCH, device=device)

    def turn() -> None:
        for run, stream in trials:
            with torch.cuda.stream(stream):
                run.step(rows, tau=1.0, lrs=[1e-3] * len(run.optimizer.param_groups))

    for run, _ in trials:
        run.model.train()
    for _ in range(10):  # until every graph is captured
        turn()
    torch.cuda.synchronize()
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        for _ in range(STEPS[device]):
            turn()
        torch.cuda.synchronize()
        steps += STEPS[device]
    return steps * count * BATCH / (time.perf_counter() - began), _gpu_memory()


def _run(device: str, shape: str) -> TrainingRun:
    features = machine.generated(BATCH * STEPS[device], machine.SHAPES[shape])
    return TrainingRun(machine.settings(machine.SHAPES[shape], batch_size=BATCH), features, device=device)


def _gpu_memory() -> float:
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 2**20
