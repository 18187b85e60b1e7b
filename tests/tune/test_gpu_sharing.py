"""Shares of a GPU: chosen from its memory, and doubled for a trial that runs out of it. The GPUs are pretended."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray import tune as ray_tune

from catuvac import results
from catuvac.config import Config, preset
from catuvac.data.store import FeatureSet, Prepared
from catuvac.experiments.search import Arm, Search
from catuvac.training.cost import training_bytes
from catuvac.training.run import TrainingRun
from catuvac.tune import driver, gpu_sharing
from catuvac.tune.failures import out_of_gpu_memory
from catuvac.tune.trainable import train_trial

GIGABYTE = 10**9
ENOUGH = 0.5  # share of a GPU below which the unlucky trial runs out of memory
UNLUCKY = 1  # its number


@pytest.mark.parametrize(
    ("need", "wanted", "count"),
    [
        (30, 100, 2),  # a third one would not fit into 90 %
        (11, 100, 6),
        (1, 100, gpu_sharing.MOST),
        (90, 100, 1),  # not even one: perhaps the estimate is wrong
        (1, 3, 3),
        (1, 5, 6),
        (20, 4, 3),
    ],
)
def test_trials_on_a_card_of_80_gigabytes(need: int, wanted: int, count: int) -> None:
    found = gpu_sharing.trials_on_a_card(need=need * GIGABYTE, memory=80 * GIGABYTE, wanted=wanted)
    assert found == count
    assert found * gpu_sharing.share_of(found) <= 1


def test_memory_of_a_training_follows_batch_and_shape() -> None:
    small = preset("synthetic")
    frames = small.with_settings({"clip_seconds": 2 * small.features.clip_seconds})
    sizes = [
        training_bytes(config.with_settings({"batch_size": n})) for config in (small, frames) for n in (32, 64, 96)
    ]
    assert sizes[1] - sizes[0] == sizes[2] - sizes[1] > 0
    assert sizes[4] - sizes[3] == pytest.approx(2 * (sizes[1] - sizes[0]), rel=0.15)
    weights = sum(parameter.numel() * 4 for parameter in _model(small).parameters())
    assert 2 * sizes[0] - sizes[1] == pytest.approx(4 * weights, rel=0.01)  # a batch of no clips


def _model(config: Config) -> torch.nn.Module:
    from catuvac.data import features
    from catuvac.training.run import MODELS

    frames, bands = features.frames(config.features)
    return MODELS[config.model.method](replace(config.model, sigma=1.0), n_frames=frames, n_bands=bands)


def test_the_gpus_memory_is_told_from_the_machines() -> None:
    assert out_of_gpu_memory("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB")
    assert out_of_gpu_memory("RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED")
    assert not out_of_gpu_memory(
        "ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory"
    )
    assert not out_of_gpu_memory("MemoryError")


@pytest.fixture(scope="module")
def pretended_gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ray with four cores and one pretended GPU of 80 GB, which the nvidia-smi that the workers find describes."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "nvidia-smi").write_text("#!/bin/sh\necho NVIDIA H100, 81559\n")
    (folder / "nvidia-smi").chmod(0o755)
    before = os.environ["PATH"]
    os.environ |= {"PATH": f"{folder}:{before}"}
    ray.init(
        address="local", num_cpus=4, num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    ray.cloudpickle.register_pickle_by_value(__import__(__name__))  # the workers have no tests to import
    yield
    ray.shutdown()
    os.environ["PATH"] = before


@pytest.fixture
def plan(tmp_path: Path, tiny_config: Config) -> Search:
    config = tiny_config.with_settings({"epochs": 4})
    return Search(
        name="a",
        storage=tmp_path / "results",
        config=config,
        arms=(Arm("random", 4),),
        objectives=("silhouette_x",),  # by which ASHA lets the unlucky trial go on after its first epoch
        gpus_per_trial=0.25,
    )


@pytest.fixture
def prepared(tiny_config: Config, tiny_features: FeatureSet, cache_dir: Path) -> Prepared:
    return Prepared(path=tiny_features.path, config=tiny_config, data_root=None, cache_dir=cache_dir)


def train_with_little_memory(point: dict[str, Any], *, study: Search, features: Prepared) -> None:
    """Trains as ever, but the unlucky trial's second epoch needs half a GPU; leaves each epoch's share in a file."""
    share = ray_tune.get_context().get_trial_resources().required_resources["GPU"]
    undisturbed = TrainingRun.__iter__

    def disturbed(run: TrainingRun) -> Iterator[dict[str, Any]]:
        for report in undisturbed(run):
            if point["number"] == UNLUCKY and report["epoch"] > 1 and share < ENOUGH:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            with (study.storage / f"epochs-{point['number']}").open("a") as file:
                file.write(f"{report['epoch']} {share}\n")
            yield report

    TrainingRun.__iter__ = disturbed  # type: ignore[method-assign]
    try:
        train_trial(point, study=study, features=features)
    finally:
        TrainingRun.__iter__ = undisturbed  # type: ignore[method-assign]


def epochs(plan: Search, number: int) -> list[tuple[int, float]]:
    lines = (plan.storage / f"epochs-{number}").read_text().splitlines()
    return [(int(epoch), float(share)) for epoch, share in map(str.split, lines)]


@pytest.mark.slow
@pytest.mark.usefixtures("pretended_gpu")
class TestOnAGpu:
    @pytest.mark.parametrize(("share", "scheduler"), [(0.25, "fifo"), (0.125, "asha")])
    def test_a_trial_that_runs_out_of_memory_goes_on_with_twice_its_share(
        self,
        share: float,
        scheduler: str,
        plan: Search,
        prepared: Prepared,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(driver, "train_trial", train_with_little_memory)
        # ASHA's first rung is the first epoch: all four trials are to pass it.
        config = plan.config.with_settings({"eval_every": 1})
        asked = replace(plan, config=config, gpus_per_trial=share, scheduler=scheduler, max_failures=1)
        driver.run_study(asked, prepared)
        printed = capfd.readouterr().out
        table = results.read_trials(asked.folder).set_index("number")
        assert sorted(table.index) == [0, 1, 2, 3]
        assert table.loc[UNLUCKY, "status"] in ("complete", "stopped")
        others = [number for number in range(4) if number != UNLUCKY]
        for number in others:
            assert {given for _, given in epochs(asked, number)} == {share}
        now = share
        while now < ENOUGH:
            assert f"continues from its last checkpoint, with {2 * now:g} of a GPU instead of {now:g}" in printed
            now *= 2
        trained = epochs(asked, UNLUCKY)
        assert trained[0] == (1, share)
        assert [epoch for epoch, _ in trained] == list(range(1, len(trained) + 1))  # none twice
        if scheduler == "fifo":
            assert trained[1:] == [(2, ENOUGH), (3, ENOUGH), (4, ENOUGH)]
            assert set(table["status"]) == {"complete"}

    def test_a_share_chosen_from_the_cards_memory(self, plan: Search, prepared: Prepared) -> None:
        share, line = gpu_sharing.choose(plan, prepared)
        assert share == 0.25  # four trials, and four cores to feed them
        assert line.startswith("packing    4 per GPU: 1")
        share, _ = gpu_sharing.choose(replace(plan, max_concurrent=2), prepared)
        assert share == 0.5


def test_no_gpu_no_share(plan: Search, prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_sharing, "alive", list)
    assert gpu_sharing.choose(plan, prepared) == (0.0, "packing    no GPU in the cluster: trials train on the CPU")
