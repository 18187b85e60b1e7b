"""The benchmark's yardstick computes what catuvac computes, and the benchmark runs."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from benchmarks import machine, plain_loop
from benchmarks.apart import apart
from throughput import Throughput
from torch.utils.data import DataLoader

from catuvac.errors import CatuvacError
from catuvac.training.run import TrainingRun

STUDIES = Path(__file__).parents[2] / "studies"
SHAPE, BATCH, STEPS = (32, 32), 8, 50


def test_fifty_steps_have_the_losses_of_the_plain_loop() -> None:
    features = machine.generated(BATCH * 4, SHAPE)
    # At a smaller sigma rounding grows faster: two plain loops whose weights differ in the last bit part as fast.
    config = machine.settings(SHAPE, batch_size=BATCH).with_settings({"precision": "float32", "sigma": 3.3})
    run = TrainingRun(config, features)
    plain = plain_loop.PlainCatUVAC(machine.CLUSTERS, machine.LATENT, *SHAPE)
    plain.load_state_dict(run.model.state_dict())
    losses = plain_loop.train(
        plain,
        torch.from_numpy(features.x),
        torch.from_numpy(features.mask).float(),
        batch_size=BATCH,
        tau=0.8,
        beta=config.model.beta,
        sigma=config.model.sigma,
        lr=1e-3,
        grad_clip=config.training.grad_clip,
        noise=torch.Generator().manual_seed(config.training.seed + 1),
        order=torch.Generator().manual_seed(0),
    )
    order = torch.Generator().manual_seed(0)
    same_rows = DataLoader(range(len(features.x)), BATCH, shuffle=True, drop_last=True, generator=order)
    run.model.train()
    for rows in itertools.islice(itertools.chain.from_iterable(itertools.repeat(same_rows)), STEPS):
        run.step.sums.zero_()
        run.step(rows, tau=0.8, lrs=[1e-3, 1e-3])
        assert run.step.sums[0].item() == pytest.approx(next(losses), rel=1e-5)


def test_the_command_writes_both_files(tmp_path: Path) -> None:
    command = [sys.executable, str(STUDIES / "throughput.py"), "--parts", "training", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "throughput.json").read_text())
    assert set(found) == {"machine", "training"}
    assert found["machine"]["torch"] in (tmp_path / "throughput.md").read_text()


@pytest.mark.parametrize(
    ("flags", "words"), [(["--repeats", "0"], "repeats must be at least 1"), (["--parts", "extraction"], "--data-root")]
)
def test_bad_flags_are_one_line_and_exit_code_2(
    flags: list[str], words: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    errors = refused(Throughput, [*flags, "--out", str(tmp_path)])
    assert words in errors
    assert len(errors.strip().splitlines()) == 1


def kept(log: Path) -> Callable[[], object]:
    """Work that notes its process, and keeps 64 MiB."""
    memory = torch.ones(2**26, dtype=torch.uint8)

    def work() -> None:
        with log.open("a") as file:
            file.write(f"{os.getpid()} {memory[-1]}\n")

    return work


def test_work_apart_is_made_once_in_another_process_and_its_memory_seen(tmp_path: Path) -> None:
    with apart(partial(kept, tmp_path / "log"), "cpu") as (work, memory):
        work()
    assert 64 <= memory < 80
    first, second = (tmp_path / "log").read_text().splitlines()
    assert first == second != f"{os.getpid()} 1"


def ended() -> Callable[[], object]:
    """Work that ends its process."""
    return partial(os._exit, 1)


def test_a_process_that_is_ended_is_one_line() -> None:
    with pytest.raises(CatuvacError, match="was ended"), apart(ended, "cpu"):
        pass
