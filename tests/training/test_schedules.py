from __future__ import annotations

import itertools
from typing import get_args

import numpy as np
import pytest

from catuvac.config import preset
from catuvac.training.schedules import SCHEDULES, Schedule, Shape, anneal, anneal_on


@pytest.mark.parametrize("shape", get_args(Shape))
def test_ends_are_exact_and_the_way_is_monotone(shape: Shape) -> None:
    values = [anneal(1.0, 0.3, progress=i / 100, shape=shape) for i in range(101)]
    assert values[0] == 1.0
    assert values[-1] == (1.0 if shape == "constant" else 0.3)
    assert all(later <= earlier for earlier, later in itertools.pairwise(values))


def test_every_shape_is_registered() -> None:
    assert tuple(SCHEDULES) == get_args(Shape)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_the_mean_of_a_schedule_is_that_of_its_values(schedule: Schedule) -> None:
    start, end = np.array([5.0, 1.0, 0.5]), np.array([0.1, 0.9, 0.5])
    fine = [schedule.between(start, end, schedule.fraction(p)) for p in (np.arange(20_000) + 0.5) / 20_000]
    assert schedule.mean(start, end) == pytest.approx(np.mean(fine, axis=0), rel=1e-7)


def test_midpoints_by_hand() -> None:
    assert anneal(1.0, 0.25, progress=0.5, shape="exponential") == pytest.approx(0.5)
    assert anneal(1.0, 0.5, progress=0.5, shape="linear") == pytest.approx(0.75)
    assert anneal(1.0, 0.5, progress=0.5, shape="cosine") == pytest.approx(0.75)
    assert anneal(1.0, 0.0, progress=0.25, shape="cosine") == pytest.approx(0.8535534)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"got 1\.1"):
        anneal(1.0, 0.5, progress=1.1, shape="linear")
    with pytest.raises(ValueError, match="positive ends"):
        anneal(1.0, 0.0, progress=0.5, shape="exponential")


@pytest.mark.parametrize("shape", ["exponential", "linear", "cosine"])
def test_the_rest_of_a_schedule_is_the_schedule_itself(shape: Shape) -> None:
    reached = anneal(2.0, 0.1, progress=0.3, shape=shape)
    for progress in (0.3, 0.5, 0.99, 1.0):
        found = anneal_on(reached, 0.1, since=0.3, progress=progress, shape=shape)
        assert found == pytest.approx(anneal(2.0, 0.1, progress=progress, shape=shape), rel=1e-12)


@pytest.mark.parametrize("shape", ["exponential", "linear", "cosine"])
@pytest.mark.parametrize("end", [0.01, 0.5])
def test_another_end_is_reached_without_a_jump(shape: Shape, end: float) -> None:
    values = [anneal_on(0.5, end, since=0.4, progress=0.4 + 0.6 * i / 50, shape=shape) for i in range(50)]
    values.append(anneal_on(0.5, end, since=0.4, progress=1.0, shape=shape))
    assert (values[0], values[-1]) == (0.5, end)
    assert all(later <= earlier for earlier, later in itertools.pairwise(values))
    assert len(set(values)) == (1 if end == 0.5 else 51)


def test_the_way_on_of_a_constant_and_bad_progress() -> None:
    assert anneal_on(0.5, 0.5, since=0.4, progress=0.7, shape="constant") == 0.5
    with pytest.raises(ValueError, match=r"must lie in \[0\.4, 1\]"):
        anneal_on(0.5, 0.1, since=0.4, progress=0.3, shape="linear")


def test_the_temperature_waits_for_the_warm_up() -> None:
    training = preset("synthetic").with_settings({"epochs": 10, "warmup_share": 0.4, "tau_start": 2.0}).training
    progress = [training.annealing_progress(epoch=epoch, step=0, steps=5) for epoch in (0, 4, 7)]
    assert progress == [0.0, 0.0, 15 / 29]
    assert training.annealing_progress(epoch=9, step=4, steps=5) == 1.0
    assert [training.tau_at(epoch=epoch, steps=5) for epoch in (0, 4)] == [2.0, 2.0]
    assert training.tau_at(epoch=9, step=4, steps=5) == training.tau_end
