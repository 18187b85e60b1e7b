"""Complete trainings on a GPU, with evaluations, on random features of the size of the paper's corpora."""

from __future__ import annotations

from typing import Any

from rich.progress import track

from benchmarks import machine
from catuvac.training.run import TrainingRun

CORPORA = {"AudioMNIST": ("digits", 24_000, 3_000), "UrbanSound8K": ("UrbanSound8K", 6_986, 873)}  # train, validation
EPOCHS, BATCH = 500, 64


def measure(*, repeats: int, epochs: int = EPOCHS) -> list[dict[str, Any]]:
    """Returns one row per corpus and repeat; none without a GPU, since on two cores the first would take days."""
    if "cuda" not in machine.devices():
        return []
    rows: list[dict[str, Any]] = []
    for name, (shape, clips, val) in track(CORPORA.items(), "training"):
        features = machine.generated(clips, machine.SHAPES[shape], val=val)
        config = machine.settings(machine.SHAPES[shape], batch_size=BATCH, epochs=epochs)
        for _ in range(repeats):
            report = list(TrainingRun(config, features, device="cuda"))[-1]
            wall, steps = report["wall_seconds"], report["train_seconds"]
            rows.append(
                {
                    "corpus": name,
                    "clips": clips,
                    "epochs": report["epoch"],
                    "status": report["status"],
                    "wall, s": round(wall, 1),
                    "of it in steps, s": round(steps, 1),
                    "clips/s": round(clips * report["epoch"] / wall),
                }
            )
    return rows
