"""Classes that are there are found: the real script on the preset as it is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from ablation import ARMS, Ablation
from throughput import Throughput

from catuvac.config import preset

SCRIPT = Path(__file__).parents[2] / "studies" / "ablation.py"


def test_an_unknown_arm_is_one_line(refused: Callable[..., str]) -> None:
    errors = refused(Ablation, ["--arms", "paperr"])
    assert errors.strip().splitlines() == ["error: unknown arm 'paperr'; did you mean 'paper'?"]


def test_a_negative_number_of_threads_is_one_line(refused: Callable[..., str], tmp_path: Path) -> None:
    expected = ["error: --threads must not be negative, got -1"]
    for script in (Ablation, Throughput):
        assert refused(script, ["--threads", "-1", "--out", str(tmp_path)]).strip().splitlines() == expected
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["synthetic", "fsdd", "arabic_digits", "urbansound8k_k10"])
@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_is_a_valid_setting_of_every_preset(arm: str, name: str) -> None:
    base = preset(name)
    same = arm == "start+term" or arm == f"n-init-{base.training.n_init}"
    assert (base.with_settings(ARMS[arm]) == base) == same


@pytest.mark.slow
def test_five_separate_classes_are_found_and_finished_cells_are_kept(tmp_path: Path) -> None:
    cell = ["--classes", "5", "--overlaps", "0", "--seeds", "2", "--threads", "1"]
    command = [sys.executable, str(SCRIPT), *cell, "--out", str(tmp_path)]
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    cells = pd.read_csv(tmp_path / "ablation.csv")
    assert cells["acc"].item() >= 0.95
    assert cells["clusters_used"].item() == 5
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "1/1" not in again.stdout  # not trained again
    assert "ACC median" in again.stdout
