"""How many trials Ray is given: no more than the cluster carries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from ray.tune.search import Searcher

from catuvac.config import Config
from catuvac.experiments.search import Arm, Search
from catuvac.experiments.trial_queue import TrialQueue
from catuvac.tune import searcher
from catuvac.tune.searcher import SlotSearch


@pytest.fixture
def plan(tmp_path: Path, tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> Search:
    """Four trials, on a cluster that carries two."""
    monkeypatch.setattr(searcher, "carried", lambda _: 2)
    made = Search(name="a", storage=tmp_path, config=tiny_config, arms=(Arm("random", 4),))
    made.folder.mkdir()
    TrialQueue.create(made)
    return made


def given(asked: SlotSearch, *, first: int = 0) -> list[int]:
    """The numbers of the trials that it gives before it wants to be asked later."""
    numbers: list[int] = []
    while isinstance(point := asked.suggest(f"ray{first + len(numbers)}"), dict):
        numbers.append(point["number"])
    return numbers


def test_a_trial_is_given_once_there_is_room_for_it(plan: Search) -> None:
    asked = SlotSearch(plan)
    assert given(asked) == [0, 1]
    asked.on_trial_complete("ray0")
    assert given(asked, first=2) == [2]
    asked.on_trial_complete("ray1", error=True)
    asked.on_trial_complete("ray2")
    assert given(asked, first=3) == [3]
    assert asked.suggest("ray4") is None
    asked.on_trial_complete("ray3")
    assert asked.suggest("ray4") == Searcher.FINISHED


def test_one_trial_waits_for_the_node_that_an_autoscaler_adds(plan: Search) -> None:
    assert given(SlotSearch(replace(plan, autoscaling=True))) == [0, 1, 2]


def test_the_users_limit(plan: Search) -> None:
    assert given(SlotSearch(replace(plan, max_concurrent=1))) == [0]
