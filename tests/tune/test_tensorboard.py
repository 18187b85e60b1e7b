"""Real trials of a real Ray, without a model: what they report is what TensorBoard reads back."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from catuvac.config import Config
from catuvac.data.store import FeatureSet, Prepared
from catuvac.experiments.comparison import Cell, Comparison, cell_config
from catuvac.tune import storage
from catuvac.tune.tensorboard import TensorBoard

pytestmark = pytest.mark.slow


ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Ray's workers cannot import this file


def trial(point: dict[str, Any], *, marks: Path) -> None:
    """Three epochs; the second trial fails after two of them, once."""
    for epoch in (1, 2, 3):
        if epoch == 3 and point["number"] == 1 and not (marks / "failed").exists():
            (marks / "failed").touch()
            raise RuntimeError("lost")
        last = {"test/acc": 0.25, "test/note": "no number"} if epoch == 3 else {}
        report = {"epoch": epoch, "status": "running" if epoch < 3 else "complete", "tau": 1 / epoch, "lr": 0.1}
        scores = {"loss/total": 10.0 - epoch, "val/acc": epoch / 4, "val/elbo": None, "val/nmi": float("nan")}
        tune.report({**report, **scores, **last, "wall_seconds": 1.0})


@pytest.fixture(scope="module")
def plan(
    local_ray: None, tiny_config: Config, tiny_features: FeatureSet, tmp_path_factory: pytest.TempPathFactory
) -> Comparison:
    del local_ray  # which runs
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # Ray's own would write into the same folders
    features = Prepared(
        path=tiny_features.path, config=tiny_config, data_root=None, cache_dir=tiny_features.path.parent
    )
    cells = tuple(
        Cell("kmeans" if seed == 1 else "cat_uvac", settings, features)
        for seed in range(2)
        for settings in [cell_config(tiny_config, method="cat_uvac", epochs=3, n_clusters=3, seed=seed)]
    )
    plan = Comparison(name="a", storage=tmp_path_factory.mktemp("results"), cells=cells)
    plan.folder.mkdir()
    callback = TensorBoard(plan)
    done = tune.Tuner(
        tune.with_parameters(trial, marks=plan.folder),
        param_space={"number": tune.grid_search([0, 1])},
        tune_config=tune.TuneConfig(
            trial_dirname_creator=lambda t: storage.trial_folder(t.config["number"], t.trial_id)
        ),
        run_config=tune.RunConfig(
            name=plan.name,
            storage_path=str(plan.storage),
            callbacks=[callback],
            failure_config=tune.FailureConfig(max_failures=1),
            verbose=0,
        ),
    ).fit()
    assert done.num_errors == 0
    assert callback.writers == {}
    return plan


def read(plan: Comparison, number: int) -> EventAccumulator:
    """What lies in the one folder of a trial."""
    [folder] = plan.folder.glob(f"trial-{number:04}-*")
    assert set(folder.rglob("*tfevents*")) == set(folder.glob("*tfevents*"))  # no run below the trial's
    return EventAccumulator(str(folder)).Reload()  # type: ignore[no-untyped-call]


def test_finite_numbers_are_scalars_under_their_own_names(plan: Comparison) -> None:
    events = read(plan, 0)
    tags = events.Tags()["scalars"]
    assert set(tags) == {"tau", "lr", "loss/total", "val/acc", "test/acc"}
    assert [(event.step, event.value) for event in events.Scalars("val/acc")] == [(1, 0.25), (2, 0.5), (3, 0.75)]
    assert [event.step for event in events.Scalars("test/acc")] == [3]


def test_a_trial_that_starts_again_leaves_each_epoch_once(plan: Comparison) -> None:
    [folder] = plan.folder.glob("trial-0001-*")
    assert len(list(folder.glob("*tfevents*"))) == 2
    assert [event.step for event in read(plan, 1).Scalars("loss/total")] == [1, 2, 3]


@pytest.mark.parametrize(("number", "method"), [(0, "cat_uvac"), (1, "kmeans")])
def test_settings_are_the_hyper_parameters_of_the_trials_own_run(plan: Comparison, number: int, method: str) -> None:
    contents = read(plan, number).PluginTagToContent(metadata.PLUGIN_NAME)
    assert set(contents) >= {metadata.SESSION_START_INFO_TAG, metadata.SESSION_END_INFO_TAG}
    started = metadata.parse_session_start_info_plugin_data(contents[metadata.SESSION_START_INFO_TAG])
    found = {name: getattr(value, value.WhichOneof("kind")) for name, value in started.hparams.items()}
    settings = {name: value for name, value in plan.cells[number].config.flat().items() if value is not None}
    assert found == settings | {"method": method}
