"""How fast: the training step, trials that share a device, feature extraction, scores, and what a study costs beside.

    python studies/throughput.py --data-root DIR

Every figure has its yardstick beside it, measured in the same run and in turns with it. It leaves OUT/throughput.md and
OUT/throughput.json, with the machine, versions and revision; studies/throughput.md is what was recorded.
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

from catuvac.errors import CatuvacError, guarded
from catuvac.io import expand_home, write_text

Part = Literal["step", "training", "packing", "extraction", "scores", "overhead"]
Rows = list[dict[str, Any]]


@dataclass(kw_only=True)
class Throughput:
    """Measure on this machine, on its CPU and, where there is one, its GPU."""

    parts: tuple[Part, ...] = get_args(Part)
    """what to measure; training needs a GPU, extraction --data-root and librosa, overhead minutes"""
    repeats: int = 5
    """of everything that is timed; the median counts"""
    threads: int = 0
    """CPU threads of torch; 0 takes every core"""
    data_root: Path | None = None
    """folder with UrbanSound8K, for extraction"""
    trivial: int = 200
    """overhead: trials of one epoch"""
    out: Path = field(default_factory=lambda: Path("results"))
    """folder of throughput.md and throughput.json"""

    def run(self) -> None:
        if self.repeats < 1:
            raise CatuvacError(f"repeats must be at least 1, got {self.repeats}")
        if "extraction" in self.parts and self.data_root is None:
            raise CatuvacError("extraction needs --data-root, the folder with UrbanSound8K; or leave it out of --parts")
        # Heavy: --help and a bad flag must not wait for them.
        import os

        import torch
        from benchmarks import machine

        torch.set_num_threads(self.threads or len(os.sched_getaffinity(0)))
        found: dict[str, Any] = {"machine": machine.describe()}
        self.out.mkdir(parents=True, exist_ok=True)
        for part in self.parts:
            found[part] = self._measure(part)
            text = markdown(found)
            write_text(self.out / "throughput.json", json.dumps(found, indent=2))
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


def markdown(found: dict[str, Any]) -> str:
    """The machine in a line and a table for each part that has rows."""
    lines = ["; ".join(f"{name} {value}" for name, value in found["machine"].items())]
    for part, rows in found.items():
        if part == "machine" or not rows:
            continue
        names = list(dict.fromkeys(name for row in rows for name in row))
        lines += ["", f"### {part}", "", f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
        lines += [f"| {' | '.join(str(row.get(name, '')) for name in names)} |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(guarded(lambda: tyro.cli(Throughput, args=expand_home(sys.argv[1:]), description=__doc__).run()))
