"""Several trials on one device: a process each, or on CUDA all in one process on streams of their own."""

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
SECONDS = 8.0  # that the trials of a cell train for, together
STEPS = {"cpu": 4, "cuda": 200}  # of an epoch: how often the clock is read


def measure(
    *, repeats: int, shapes: Sequence[str] = tuple(machine.SHAPES), trials: Sequence[int] = (1, 2, 4, 8, 16)
) -> list[dict[str, Any]]:
    """A row for each device, shape, way of packing and number of trials; a CPU's trials share its cores."""
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
                found = sorted(run(device, shape, count, threads=max(1, cores // count)) for _ in range(repeats))
                speed, memory = found[len(found) // 2]
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
    """Clips a second of all trials, and MiB."""
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
    found = [answers.get() for _ in workers]
    # A GPU's memory is seen as a whole, that of processes by each of them.
    memory = max(each[1] for each in found) if device == "cuda" else sum(each[1] for each in found)
    return sum(each[0] for each in found), memory


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
    barrier.wait()  # nobody's memory goes before all have looked
    answers.put((speed, memory))


def _streams(device: str, shape: str, count: int, *, threads: int) -> tuple[float, float]:
    """Clips a second and MiB of trials in this process, whose graphs are replayed in turns."""
    del threads
    trials = [(_run(device, shape), torch.cuda.Stream()) for _ in range(count)]  # type: ignore[no-untyped-call]
    rows = torch.arange(BATCH, device=device)

    def turn() -> None:
        for run, stream in trials:
            with torch.cuda.stream(stream):
                run.step(rows, tau=1.0, lrs=[1e-3] * len(run.optimizer.param_groups))

    for run, _ in trials:
        run.model.train()
    for _ in range(10):  # past every capture
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
