"""What ended a trial, told from its last words."""

from __future__ import annotations

import re
from pathlib import Path

from ray.tune.experiment import Trial

STORAGE = "storage"
FAILURES = (  # what to look for in a trial's last words, the first that is found
    (STORAGE, r"No space left on device|Read-only file system|Disk quota exceeded|Permission denied"),
    ("out of memory", r"OutOfMemory|out of memory|MemoryError"),
    ("node lost", r"actor died unexpectedly|node has died|actor is temporarily unavailable|ActorDiedError"),
)
GPU_MEMORY = r"torch\.(cuda\.)?OutOfMemoryError|CUDA out of memory|CUDA error: out of memory|_STATUS_ALLOC_FAILED"


def failure(error: str) -> str:
    """Tells apart what ended a trial: the storage, the memory, the node, or a crash with its last line."""
    for name, pattern in FAILURES:
        if found := re.search(pattern, error):
            return f"{name}: {found.group()}" if name == STORAGE else name
    lines = [line for line in error.splitlines() if line.strip()]
    return f"crash: {lines[-1].strip()[:200]}" if lines else "crash"


def out_of_gpu_memory(error: str) -> bool:
    """Whether the GPU's memory ran out, and not the machine's."""
    return re.search(GPU_MEMORY, error) is not None


def last_words(trial: Trial) -> str:
    """The trace of a trial's latest failure; Ray appends each to one file, which has not reached the storage yet."""
    try:
        return Path(trial.error_file).read_text(encoding="utf-8").rpartition("Failure #")[2]
    except (OSError, TypeError):  # no file was written
        return ""
