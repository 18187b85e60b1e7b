"""When a trial's state is written, and what is then on the disk."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from catuvac.config import Config
from catuvac.data.store import FeatureSet
from catuvac.experiments.search import Arm, Search
from catuvac.training import checkpoint
from catuvac.training.run import TrainingRun
from catuvac.tune import storage, trainable
from catuvac.tune.trainable import Checkpoints


@pytest.fixture(params=["folder", "object store"])
def kept(request: pytest.FixtureRequest, tmp_path: Path, tiny_config: Config) -> tuple[Checkpoints, Path]:
    """Of trial 3, and where they lie."""
    remote = (tmp_path / "store").as_uri() if request.param == "object store" else ""
    plan = Search(name="a", storage=tmp_path, remote=remote, config=tiny_config, arms=(Arm("random", 4),))
    root = tmp_path / "store" if remote else tmp_path
    return Checkpoints(plan, 3), root / "a" / "checkpoints" / "0003"


def values(folder: Path) -> dict[str, float]:
    return {path.stem: float(checkpoint.load(path)["weight"]) for path in folder.iterdir()}


def test_the_best_state_is_that_of_its_evaluation_however_late_it_is_written(kept: tuple[Checkpoints, Path]) -> None:
    checkpoints, folder = kept
    state: dict[str, Any] = {"weight": torch.tensor(1.0)}
    checkpoints.add(state, best=True, final=False)
    assert values(folder) == {"last": 1, "best": 1}
    checkpoints.cost = math.inf  # as on a disk that never ends writing: nothing is due
    for weight, best in ((2.0, True), (3.0, False)):
        state["weight"].fill_(weight)
        checkpoints.add(state, best=best, final=False)
    assert values(folder) == {"last": 1, "best": 1}
    state["weight"].fill_(4.0)
    checkpoints.add(state, best=False, final=True)
    assert values(folder) == {"last": 4, "best": 2}


def test_what_costs_nothing_is_written_at_each_evaluation(kept: tuple[Checkpoints, Path]) -> None:
    checkpoints, folder = kept
    for weight in (1.0, 2.0):
        checkpoints.add({"weight": torch.tensor(weight)}, best=weight == 1, final=False)
        checkpoints.cost = 0.0
    assert values(folder) == {"last": 2, "best": 1}


@pytest.mark.parametrize("name", ["names.json", ""])
def test_a_trial_whose_clusters_have_names_keeps_its_states(kept: tuple[Checkpoints, Path], name: str) -> None:
    checkpoints, folder = kept
    checkpoints.add({"weight": torch.tensor(1.0)}, best=True, final=True)
    if name:
        (folder / name).write_text("{}")
    storage.delete_checkpoints(checkpoints.plan, 3)
    assert folder.exists() == bool(name)


@pytest.mark.parametrize("remote", [False, True], ids=["folder", "object store"])
def test_trials_with_one_start_train_it_once(
    remote: bool, tmp_path: Path, tiny_config: Config, tiny_features: FeatureSet
) -> None:
    start = {"cluster_init": "invariance", "warmup_share": 0.7, "n_clusters": 2, "epochs": 8, "eval_every": 1}
    plan = Search(
        name="a",
        storage=tmp_path,
        remote=(tmp_path / "store").as_uri() if remote else "",
        config=tiny_config.with_settings({**start, "batch_size": 16}),
        arms=(Arm.parse("factorial:tau_start=0.5/2", seeds=2), Arm("random", 1)),
    )
    points = [{**point, "arm": arm, "number": number} for number, (arm, point) in enumerate(plan.slots())]
    assert [plan.shares_start(point) for point in points] == [True] * 4 + [False]
    assert plan.trained_epochs(1) == plan.epochs - 2 * plan.config.training.start_epochs == 30
    assert plan.trained_epochs(2) == plan.trained_epochs(9) == plan.epochs  # the two of a block begin together
    left = (tmp_path / "store" if remote else tmp_path) / "a" / "starts"

    def trained(point: dict[str, Any]) -> list[int]:
        run = TrainingRun(plan.trial_config(point), tiny_features)
        epochs = [report["epoch"] for report in trainable.from_shared_start(run, plan)]
        alone = TrainingRun(plan.trial_config(point), tiny_features)
        assert list(alone)[-1]["val/elbo"] == run.last_report["val/elbo"]
        return epochs

    assert trained(points[0]) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert trained(points[1]) == [6, 7, 8]  # five epochs are the start
    assert trained(points[2]) == [1, 2, 3, 4, 5, 6, 7, 8]  # of another block
    assert len(list(left.iterdir())) == 2
    for damaged in left.iterdir():
        damaged.write_bytes(damaged.read_bytes()[:-1000])
    assert trained(points[1]) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert trained(points[0]) == [6, 7, 8]
