"""Drivers of real studies as processes, for tests that do them harm."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import optuna
from ray._private import state
from ray.cluster_utils import Cluster

from catuvac import results

SWEEP = Path(__file__).parents[2] / "studies" / "tau_sweep.py"
PRESET = """
preset: synthetic
settings:
  corpus: {clips_per_class: CLIPS, n_classes: 3}
  features: {n_bands: 16}
  model: {n_clusters: 3, channels: 4, gru_size: 16, sigma: 3.3, beta: 0.1}
  training: {cluster_init: random, warmup_share: 0.0, invariance: 0.0, batch_size: 8, eval_every: 1, epochs: 4}
  split: {val_fraction: 0.25, test_fraction: 0.25}
trials: 16
objectives: [silhouette_x]
"""


class Driver:
    """`python studies/tau_sweep.py` as a process on a cluster."""

    def __init__(self, cluster: Cluster, folder: Path, cache_dir: Path, *flags: str, clips_per_class: int = 16) -> None:
        preset = folder.with_suffix(".yaml")
        preset.write_text(PRESET.replace("CLIPS", str(clips_per_class)))
        places = ("--no-report", "--preset", str(preset), "--storage", str(folder), "--cache-dir", str(cache_dir))
        self.log = folder.with_suffix(".log")
        self.command = [sys.executable, str(SWEEP), *places, *flags]
        self.env = os.environ | {"RAY_ADDRESS": cluster.address, "PYTHONUNBUFFERED": "1"}
        with self.log.open("a") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, start_new_session=True, env=self.env)

    def text(self) -> str:
        """What it, and its predecessors on the same folder, have printed."""
        return self.log.read_text()

    def wait_for(self, happened: Callable[[], bool], *, seconds: float = 240) -> None:
        """Until something is so."""
        deadline = time.monotonic() + seconds
        while not happened():
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.1)

    def end(self) -> int:
        """Waits for the end and returns the exit code."""
        return self.process.wait(timeout=230)

    def kill(self) -> None:
        """As the kernel does when memory runs out: no warning, nothing tidied up."""
        self.process.kill()
        self.process.wait()


def rows(folder: Path) -> int:
    """How many trials are in the table."""
    return len(results.read_trials(folder / "a")) if (folder / "a" / "trials.parquet").exists() else 0


def stored(folder: Path, *, name: str = "a") -> list[optuna.trial.FrozenTrial]:
    backend = optuna.storages.journal.JournalFileBackend(str(folder / name / "optuna.journal"))
    study = optuna.load_study(study_name=f"synthetic-k3-{name}", storage=optuna.storages.JournalStorage(backend))
    return study.get_trials()


def check_complete(folder: Path, *, trials: int, last: int = 4) -> None:
    """Every trial once in the table and once complete in Optuna's history, and none left running or waiting."""
    table = results.read_trials(folder / "a")
    assert sorted(table["number"]) == list(range(trials))
    assert set(table["status"]) == {"complete"}
    history = stored(folder)
    complete = [trial.user_attrs["number"] for trial in history if trial.state.name == "COMPLETE"]
    assert sorted(complete) == list(range(trials))
    assert {trial.state.name for trial in history} <= {"COMPLETE", "FAIL"}
    epochs = results.read_history(folder / "a").groupby("trial_id")["epoch"].apply(list)
    assert all(epochs[trial_id] == list(range(1, last + 1)) for trial_id in table["trial_id"])


def busy_nodes() -> Counter[str]:
    """How many trials each node runs, by its id; this process must be connected."""
    alive = [actor for actor in state.actors().values() if actor["State"] == "ALIVE"]
    return Counter(actor["Address"]["NodeID"] for actor in alive)
