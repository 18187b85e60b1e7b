"""Trainings that share their first epochs: the same bits where nothing changes, and a temperature that never jumps."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from catuvac.config import Config
from catuvac.data.store import FeatureSet
from catuvac.errors import CatuvacError
from catuvac.training import checkpoint
from catuvac.training.run import Report, TrainingRun

AT = 4  # epochs, of which 2 are the warm-up


@pytest.fixture
def parent(tiny_config: Config) -> Config:
    start = {"cluster_init": "kmeans", "warmup_share": 0.25, "lr_y_scale": 0.5}
    return tiny_config.with_settings({"epochs": 8, "eval_every": 3, "tau_start": 2.0, "tau_end": 0.25, **start})


@pytest.fixture
def state(parent: Config, tiny_features: FeatureSet, tmp_path: Path) -> dict[str, Any]:
    """Of the parent after `AT` epochs, between two evaluations, as it comes from a file."""
    run = TrainingRun(parent, tiny_features)
    assert [report["epoch"] for report in run.until(AT)] == [3]
    checkpoint.save(tmp_path / "trunk.pt", run.state())
    return checkpoint.load(tmp_path / "trunk.pt")


def branch(parent: Config, features: FeatureSet, state: dict[str, Any], **changes: Any) -> TrainingRun:
    run = TrainingRun(parent.with_settings(changes), features)
    run.branch(state, parent)
    return run


def untimed(report: Report) -> Report:
    return report | {"wall_seconds": 0.0, "train_seconds": 0.0}


def same(a: TrainingRun, b: TrainingRun) -> bool:
    ours, theirs = a.model.state_dict(), b.model.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_training_in_parts_is_the_whole_one(parent: Config, tiny_features: FeatureSet) -> None:
    whole, parts = TrainingRun(parent, tiny_features), TrainingRun(parent, tiny_features)
    expected = list(whole)
    found = [report for epoch in (0, 1, AT, 7, 8) for report in parts.until(epoch)]
    assert [untimed(report) for report in found] == [untimed(report) for report in expected]
    assert same(whole, parts)


@pytest.mark.parametrize("schedule", ["exponential", "cosine"])
def test_a_branch_that_changes_nothing_is_the_unbranched_training_bit_for_bit(
    schedule: str, parent: Config, tiny_features: FeatureSet
) -> None:
    settings = parent.with_settings({"tau_schedule": schedule})
    whole, trunk = TrainingRun(settings, tiny_features), TrainingRun(settings, tiny_features)
    expected = list(whole)[-1]
    list(trunk.until(AT))
    run = branch(settings, tiny_features, trunk.state())
    assert untimed(list(run)[-1]) == untimed(expected)
    assert same(whole, run)
    assert all(torch.equal(a, b) for a, b in zip(whole.state()["order"], run.state()["order"], strict=True))


@pytest.mark.parametrize("tau_end", [0.05, 0.9])
def test_the_temperature_goes_on_from_where_it_was(
    tau_end: float, parent: Config, tiny_features: FeatureSet, state: dict[str, Any]
) -> None:
    whole = TrainingRun(parent, tiny_features)
    list(whole.until(AT))
    run = branch(parent, tiny_features, state, tau_end=tau_end)
    steps = run.steps[1]
    assert run._tau(0) == whole._tau(0)  # nothing jumps
    taus = []
    for epoch in range(AT, 8):
        run.epoch = epoch
        taus += [run._tau(step) for step in range(steps)]
    assert taus[-1] == tau_end
    assert all(later < earlier for earlier, later in itertools.pairwise(taus))


def test_another_end_changes_the_result_and_only_after_the_branch(
    parent: Config, tiny_features: FeatureSet, state: dict[str, Any]
) -> None:
    low, high = (branch(parent, tiny_features, state, tau_end=tau) for tau in (0.05, 0.9))
    assert same(low, high)
    assert [list(run)[-1]["tau"] for run in (low, high)] == [0.05, 0.9]
    assert not same(low, high)


def test_a_branch_that_is_killed_goes_on_where_it_was(
    parent: Config, tiny_features: FeatureSet, state: dict[str, Any], tmp_path: Path
) -> None:
    changes = {"tau_end": 0.05, "tau_schedule": "linear"}
    whole, cut = (branch(parent, tiny_features, state, **changes) for _ in range(2))
    expected = list(whole)[-1]
    list(cut.until(6))
    checkpoint.save(tmp_path / "branch.pt", cut.state())
    resumed = TrainingRun(parent.with_settings(changes), tiny_features)
    resumed.load_state(checkpoint.load(tmp_path / "branch.pt"))
    assert untimed(list(resumed)[-1]) == untimed(expected)
    assert same(whole, resumed)


def test_the_time_of_a_branch_is_its_own(parent: Config, tiny_features: FeatureSet, state: dict[str, Any]) -> None:
    assert state["seconds"] > 0
    assert branch(parent, tiny_features, {**state, "seconds": 1e6}).seconds == 0.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tau_end": 0.05, "beta": 0.5}, "changes beta"),
        ({"seed": 3}, "changes seed"),
        ({"tau_end": 1.9}, "temperature only falls"),
    ],
)
def test_what_is_no_branch_is_refused(
    changes: dict[str, Any], words: str, parent: Config, tiny_features: FeatureSet, state: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=words):
        branch(parent, tiny_features, state, **changes)


def test_states_that_cannot_be_branched_from(parent: Config, tiny_features: FeatureSet, state: dict[str, Any]) -> None:
    run = branch(parent, tiny_features, state, tau_end=0.05)
    with pytest.raises(ValueError, match="the parent has"):
        branch(parent.with_settings({"beta": 0.5}), tiny_features, state)
    with pytest.raises(ValueError, match="not a branch itself"):
        branch(run.config, tiny_features, run.state())
    list(run)
    with pytest.raises(ValueError, match="has not ended"):
        branch(run.config, tiny_features, run.state())


@pytest.fixture
def invariant(tiny_config: Config) -> Config:
    """Four epochs of a start, two others and two of the ELBO."""
    start = {"cluster_init": "invariance", "warmup_share": 0.7, "n_init": 2, "invariance": 1.0, "n_clusters": 2}
    return tiny_config.with_settings({"epochs": 8, "eval_every": 3, "batch_size": 16, **start})


AFTER_THE_START = [{"tau_start": 3.0, "tau_end": 0.2}, {"beta": 0.01, "invariance": 0.0}, {"y_estimator": "exact"}]


@pytest.mark.parametrize("changes", AFTER_THE_START)
def test_a_training_from_the_start_of_another_is_the_whole_one_bit_for_bit(
    changes: dict[str, Any], invariant: Config, tiny_features: FeatureSet, tmp_path: Path
) -> None:
    first, config = TrainingRun(invariant, tiny_features), invariant.with_settings(changes)
    assert first.start_state() is None
    list(first.until(invariant.training.start_epochs))
    checkpoint.save(tmp_path / "start.pt", first.start_state() or {})
    whole, run = TrainingRun(config, tiny_features), TrainingRun(config, tiny_features)
    run.take_start(checkpoint.load(tmp_path / "start.pt"))
    assert untimed(list(run)[-1]) == untimed(list(whole)[-1])
    assert same(whole, run)
    assert run.train_seconds < whole.train_seconds


def test_trainings_whose_start_is_a_single_epoch_are_the_whole_ones_bit_for_bit(
    invariant: Config, tiny_features: FeatureSet
) -> None:
    """The best of three starts is chosen only after that epoch."""
    config = invariant.with_settings({"epochs": 3, "n_init": 3})
    assert config.training.start_epochs == config.training.trial_epochs == 1
    starts: list[Mapping[str, Any]] = []
    whole = TrainingRun(config, tiny_features)
    last = untimed(list(whole)[-1])
    for _ in range(2):
        run = TrainingRun(config, tiny_features)
        reports = list(run.from_shared_start(lambda: starts[-1] if starts else None, starts.append))
        assert untimed(reports[-1]) == last
        assert same(whole, run)


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"n_init": 1}, {"epochs": 10}, {"views": "speech"}, {"latent_dim": 3}]
)
def test_another_start_is_refused_and_leaves_the_training_as_it_is(
    changes: dict[str, Any], invariant: Config, tiny_features: FeatureSet
) -> None:
    first = TrainingRun(invariant, tiny_features)
    list(first.until(invariant.training.start_epochs))
    run = TrainingRun(invariant.with_settings(changes), tiny_features)
    with pytest.raises(CatuvacError, match="not belong to this start"):
        run.take_start(first.start_state() or {})
    assert run.epoch == 0
    assert same(run, TrainingRun(run.config, tiny_features))
