"""Speed of the training step, of trials that share a device, of feature extraction and scores; overhead of a study.

    python studies/throughput.py --data-root DIR

Every figure has a baseline measured in the same run, alternating with it. The script writes OUT/throughput.md and
OUT/throughput.json, with the machine, versions and revision; studies/throughput.md contains the recorded results.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import tyro

from catuvac.config import check_threads
from catuvac.errors import CatuvacError, guarded
from catuvac.io import expand_home, write_text

Part = Literal["step", "training", "packing", "extraction", "scores", "overhead"]
Rows = list[dict[str, Any]]


@dataclass(kw_only=True)
class Throughput:
    """Measure on this machine, on its CPU and, if it has one, its GPU."""

    parts: tuple[Part, ...] = get_args(Part)
    """what to measure; training needs a GPU, extraction --data-root and librosa, overhead takes minutes"""
    repeats: int = 5
    """repeats of every timing; the median is reported"""
    threads: int = 0
    """CPU threads of torch; 0 takes every core"""
    data_root: Path | None = None
    """folder with UrbanSound8K, for extraction"""
    trivial: int = 200
    """overhead: number of trials of one epoch"""
    out: Path = field(default_factory=lambda: Path("results"))
    """folder for throughput.md and throughput.json"""

    def run(self) -> None:
        if self.repeats < 1:
            raise CatuvacError(f"repeats must be at least 1, got {self.repeats}")
        check_threads(self.threads)
        if "extraction" in self.parts and self.data_root is None:
            raise CatuvacError("extraction needs --data-root, the folder with UrbanSound8K; or leave it out of --parts")
        # Slow to import: --help and errors in flags should not wait for them.
        import os

        import torch
        from benchmarks import machine

        torch.set_num_threads(self.threads or len(os.sched_getaffinity(0)))
        measured: dict[str, Any] = {"machine": machine.describe()}
        self.out.mkdir(parents=True, exist_ok=True)
        for part in self.parts:
            measured[part] = self._measure(part)
            text = markdown(measured)
            write_text(self.out / "throughput.json", json.dumps(measured, indent=2))
            write_text(self.out / "throughput.md", text)
        print(text)

    def _measure(self, part: Part) -> Rows:
        measure: Callable[..., Rows] = importlib.import_module(f"benchmarks.{part}").measure
        match part:
            case "extraction":
                return measure(self.data_root, repeats=self.repeats)
            case "overhead":
                return measure(trivial=self.trivial)
        return measure(repeats=self.repeats)


def markdown(measured: dict[str, Any]) -> str:
    """Returns one line about the machine and one table per part that has rows."""
    lines = ["; ".join(f"{name} {value}" for name, value in measured["machine"].items())]
    for part, rows in measured.items():
        if part == "machine" or not rows:
            continue
        names = list(dict.fromkeys(name for row in rows for name in row))
        lines += ["", f"### {part}", "", f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
        lines += [f"| {' | '.join(str(row.get(name, '')) for name in names)} |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(guarded(lambda: tyro.cli(Throughput, args=expand_home(sys.argv[1:]), description=__doc__).run()))
