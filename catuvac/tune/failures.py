"""The cause of a trial's failure, derived from its error message."""

from __future__ import annotations

import re
from pathlib import Path

from ray.tune.experiment import Trial

STORAGE = "storage"
FAILURES = (  # patterns in a trial's error message; the first match applies
    (STORAGE, r"No space left on device|Read-only file system|Disk quota exceeded|Permission denied"),
    ("out of memory", r"OutOfMemory|out of memory|MemoryError"),
    ("node lost", r"actor died unexpectedly|node has died|actor is temporarily unavailable|ActorDiedError"),
)
GPU_MEMORY = r"torch\.(cuda\.)?OutOfMemoryError|CUDA out of memory|CUDA error: out of memory|_STATUS_ALLOC_FAILED"


def failure(error: str) -> str:
    """Classifies the cause of a failure: storage, memory, node, or a crash with its last line."""
    for name, pattern in FAILURES:
        if found := re.search(pattern, error):
            return f"{name}: {found.group()}" if name == STORAGE else name
    lines = [line for line in error.splitlines() if line.strip()]
    return f"crash: {lines[-1].strip()[:200]}" if lines else "crash"


def out_of_gpu_memory(error: str) -> bool:
    """Returns whether the GPU ran out of memory, rather than the machine."""
    return re.search(GPU_MEMORY, error) is not None


def last_words(trial: Trial) -> str:
    """Returns the traceback of a trial's latest failure from the local file to which Ray appends them."""
    try:
        return Path(trial.error_file).read_text(encoding="utf-8").rpartition("Failure #")[2]
    except (OSError, TypeError):  # no file was written
        return ""
