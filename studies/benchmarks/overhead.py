"""Overhead of a study: real studies on their own Ray instance, two trials at once, one core each.

    python studies/benchmarks/overhead.py --trivial 2000

One study has trials of a chosen length, evaluated as in the preset; its overhead is what `tau_sweep.py` reports at its
end. The other has many trials of one epoch on eight clips per class, and is timed by the line printed at the end of
each: bookkeeping that grows with the number of trials shows in the last tenth of them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import tyro

from catuvac import results

SWEEP = Path(__file__).parents[1] / "tau_sweep.py"
AT_ONCE = 2  # trials
TIMED_EPOCHS = 8  # of the trials that measure how long an epoch takes
WARM = 2 * AT_ONCE  # trials after which every process has been started
TRIVIAL = """
preset: synthetic
settings:
  corpus: {clips_per_class: 8, n_classes: 3}
  features: {n_bands: 16}
  model: {n_clusters: 3}
  training: {cluster_init: random, warmup_share: 0.0, invariance: 0.0, batch_size: 8, eval_every: 1, epochs: 1}
  split: {val_fraction: 0.25, test_fraction: 0.25}
trials: 16
objectives: [silhouette_x]
"""


def measure(*, seconds: float = 30.0, trials: int = 6, trivial: int = 200, repeats: int = 1) -> list[dict[str, Any]]:
    """Runs both studies.

    Args:
        seconds: approximate training time of a long trial.
        trials: number of long trials.
        trivial: number of trials of one epoch, 60 or more.
        repeats: number of runs of both studies.

    Returns:
        Two rows per repeat, one per study.
    """
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(repeats):
            rows += [
                _long(Path(folder) / f"long{repeat}", seconds=seconds, trials=trials),
                _trivial(Path(folder) / f"trivial{repeat}", trials=trivial),
            ]
    return rows


def _long(folder: Path, *, seconds: float, trials: int) -> dict[str, Any]:
    timed = ("--trials", str(AT_ONCE), "--epochs", str(TIMED_EPOCHS), "--eval-every", str(TIMED_EPOCHS))
    _sweep(folder / "timed", *timed)
    table = results.read_trials(folder / "timed" / "a")
    epochs = max(1, round(seconds * TIMED_EPOCHS / table["train_seconds"].mean()))
    lines, wall = _sweep(folder / "study", "--trials", str(trials), "--epochs", str(epochs))
    text = "\n".join(lines)
    shares = r"^overhead +([\d.]+) % of .* metrics ([\d.]+) %, the rest .*\) ([\d.]+) %, of which ([\d.]+) %"
    match = re.search(shares, text, re.MULTILINE)
    if match is None:
        raise RuntimeError(f"the output does not state the overhead:\n{text}")
    overhead, metrics, rest, start = map(float, match.groups())
    return {
        "study": f"{trials} trials of {epochs} epochs",
        "training s/trial": round(float(results.read_trials(folder / "study" / "a")["train_seconds"].mean()), 1),
        "overhead %": overhead,
        "metrics %": metrics,
        "the rest %": rest,
        "of which before the first trials %": start,
        "wall s, with the start of Ray": round(wall, 1),
    }


def _trivial(folder: Path, *, trials: int) -> dict[str, Any]:
    tenth = trials // 10
    if tenth <= WARM + 1:
        raise ValueError(f"trivial must be at least {10 * (WARM + 2)}, got {trials}")
    folder.mkdir(parents=True)
    preset = folder / "trivial.yaml"
    preset.write_text(TRIVIAL)
    ends: list[float] = []  # s
    _, wall = _sweep(folder / "study", "--preset", str(preset), "--trials", str(trials), ends=ends)
    first = (ends[tenth - 1] - ends[WARM - 1]) / (tenth - WARM)
    last = (ends[-1] - ends[-1 - tenth]) / tenth
    return {
        "study": f"{trials} trivial trials",
        "first tenth s/trial": round(first, 3),
        "last tenth s/trial": round(last, 3),
        "ratio last to first": round(last / first, 2),
        "wall s, with the start of Ray": round(wall, 1),
    }


def _sweep(folder: Path, *flags: str, ends: list[float] | None = None) -> tuple[list[str], float]:
    """Runs `tau_sweep.py`; returns its output and its seconds, and adds to `ends` the time of each trial's end in s."""
    fixed = ("--sampler", "random", "--name", "a", "--storage", str(folder), "--cache-dir", str(folder / "cache"))
    packing = ("--no-report", "--cpus-per-trial", "1", "--max-concurrent", str(AT_ONCE))
    began = time.monotonic()
    lines = []
    with subprocess.Popen(
        [sys.executable, str(SWEEP), *fixed, *packing, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"RAY_ADDRESS": "local", "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            if ends is not None and line.startswith("trial "):
                ends.append(time.monotonic() - began)
    if process.returncode:
        raise RuntimeError("\n".join(lines))
    return lines, time.monotonic() - began


def main(*, seconds: float = 30.0, trials: int = 6, trivial: int = 200, repeats: int = 1) -> None:
    """Prints the overhead of a study.

    Args:
        seconds: approximate training time of a long trial.
        trials: number of long trials.
        trivial: number of trials of one epoch, 60 or more.
        repeats: number of runs of both studies.
    """
    for row in measure(seconds=seconds, trials=trials, trivial=trivial, repeats=repeats):
        print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)


if __name__ == "__main__":
    tyro.cli(main)
