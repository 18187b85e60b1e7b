"""The machine of a benchmark, timing and memory, and features that need no recordings."""

from __future__ import annotations

import ctypes
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from catuvac.config import Config
from catuvac.data.features import Normaliser
from catuvac.data.store import FeatureSet
from catuvac.training import run_dir

PRODUCT = {"cpu": 4096, "cuda": 8192}  # rows and columns of the matrix product that is the upper bound
SHAPES = {"digits": (64, 128), "UrbanSound8K": (144, 128), "TAU": (336, 128)}  # frames, bands
CLUSTERS, LATENT = 10, 10


def describe() -> dict[str, str | int]:
    """Returns processor, accelerator, versions and the source's revision."""
    return {
        "processor": run_dir.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "AMX": "yes" if torch.cpu._is_amx_tile_supported() else "no",
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "revision": run_dir.revision() or "unknown",
    }


def devices() -> list[str]:
    """Returns the CPU, and CUDA if there is a GPU."""
    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def seconds(work: Callable[[], object], device: str) -> float:
    """Returns the seconds that `work` takes until the device has finished it."""
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def alternating(works: dict[str, Callable[[], object]], *, device: str, repeats: int) -> dict[str, float]:
    """Returns median seconds of each, after a warm-up run; runs alternate, so that other load affects all alike."""
    for work in works.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            times[name].append(seconds(work, device))
    return {name: statistics.median(runs) for name, runs in times.items()}


def product(device: str) -> tuple[Callable[[], object], float]:
    """Returns a bfloat16 matrix product, the upper bound of the arithmetic, and its floating-point operations."""
    n = PRODUCT[device]
    a, b = (torch.randn(n, n, device=device).bfloat16() for _ in range(2))
    return lambda: a @ b, 2.0 * n**3


def generated(clips: int, shape: tuple[int, int], *, val: int = 0) -> FeatureSet:
    """Returns random features `[clips + val, T, F]`, without labels: `clips` for training, the rest for validation."""
    rows = np.arange(clips + val, dtype=np.int64)
    x = np.random.default_rng(0).random((len(rows), *shape), dtype=np.float32)
    none = pd.DataFrame({"path": [], "reason": []})
    return FeatureSet(
        x=x,
        mask=np.ones(x.shape[:2], dtype=np.bool_),
        clips=pd.DataFrame({"path": [str(row) for row in rows], "duration": 1.0}),
        splits={"train": rows[:clips], "val": rows[clips:], "test": rows[:0]},
        n_bands=shape[1],
        normaliser=Normaliser(np.zeros(shape[1]), np.ones(shape[1]), 0.0, 1.0),
        note="random numbers",
        skipped=none,
        path=Path(),
    )


def settings(shape: tuple[int, int], *, batch_size: int, epochs: int = 500) -> Config:
    """Returns the benchmarks' settings: K = 10, d = 10, a Gaussian likelihood; T and F as front end settings."""
    frames, bands = shape
    return Config().with_settings(
        {
            "n_clusters": CLUSTERS,
            "latent_dim": LATENT,
            "likelihood": "gaussian",
            "batch_size": batch_size,
            "epochs": epochs,
            "n_bands": bands,
            "time_fit": "stretch",
            "stretch_frames": frames,
        }
    )


def peak_memory(work: Callable[[], object], device: str) -> float:
    """Returns the peak MiB that `work` allocates in addition to what is allocated before, the features included."""
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        allocated = torch.cuda.memory_allocated()
        work()
        return float(torch.cuda.max_memory_allocated() - allocated) / 2**20
    ctypes.CDLL(None).malloc_trim(0)  # freed memory no longer counts
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = _status("VmRSS")
    work()
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> float:
    """Returns one line of this process's memory status, in KiB; Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(name)).split()[1])
