"""What an older study teaches a new one, from tables that were written as a study writes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from catuvac import results
from catuvac.config import Config
from catuvac.errors import CatuvacError
from catuvac.experiments import warm_start
from catuvac.experiments.search import Arm, Search
from catuvac.experiments.search_space import SearchSpace
from catuvac.experiments.trial_queue import TrialQueue

OBJECTIVE = "val/objective_invariant_information"


def record(study: Search, *, status: str = "complete") -> None:
    """Rows of all trials of a study, with objectives 0, 0.01, 0.02, …"""
    for number, (arm, point) in enumerate(study.slots()):
        facts = study.identify({**point, "number": number, "arm": arm}, f"old{number}")
        row: dict[str, Any] = {
            "study": study.name,
            **facts,
            "status": status,
            "started_at": "2026-01-01T00:00:00+00:00",
        }
        if status == "complete":
            row |= {"objective": number / 100, OBJECTIVE: number / 100}
        results.append_trial(study.folder, row)


@pytest.fixture
def old(tmp_path: Path, tiny_config: Config) -> Search:
    made = Search(name="old", storage=tmp_path, config=tiny_config, arms=(Arm("paper", 1), Arm("random", 6)))
    record(made)
    return made


@pytest.fixture
def new(tmp_path: Path, tiny_config: Config, old: Search) -> Search:
    config = tiny_config.with_settings({"epochs": 3})
    made = Search(name="new", storage=tmp_path, config=config, arms=(Arm("tpe", 2),), warm_start=old.folder)
    made.folder.mkdir()
    return made


def test_complete_trials_enter_with_their_settings_and_objectives(old: Search, new: Search) -> None:
    found = warm_start.read(new)
    assert (len(found.trials), found.outside, found.unscored) == (6, 0, 0)
    assert found.differences == ("epochs 2 → 3",)
    points = [point for arm, point in old.slots() if arm == "random"]
    assert [trial.values for trial in found.trials] == [[number / 100] for number in range(1, 7)]
    for trial, point in zip(found.trials, points, strict=True):
        assert trial.params == {name: pytest.approx(value) for name, value in point.items()}


def test_what_lies_outside_of_the_new_ranges_is_counted(old: Search, new: Search) -> None:
    taus = sorted(point["tau_start"] for arm, point in old.slots() if arm == "random")
    narrow = replace(new, space=SearchSpace({"tau_start": (taus[2], 5.0)}))
    found = warm_start.read(narrow)
    assert (len(found.trials), found.outside) == (4, 2)
    # Trials whose estimator is another one cannot be those of a study that does not search it.
    exact = replace(new, config=new.config.with_settings({"y_estimator": "exact"}))
    assert (len(warm_start.read(exact).trials), warm_start.read(exact).outside) == (0, 6)
    searched = replace(exact, space=SearchSpace({"y_estimator": ("gumbel", "exact")}))
    assert {trial.params["y_estimator"] for trial in warm_start.read(searched).trials} == {"gumbel"}


def test_both_ends_of_a_ratio_survive_the_division(tmp_path: Path, tiny_config: Config, new: Search) -> None:
    arm = Arm.parse("factorial:tau_ratio=0.05/0.3/1+tau_start=0.7/1.3/3.1", seeds=1)
    other = Search(name="other", storage=tmp_path, config=tiny_config, arms=(arm,))
    record(other)
    found = warm_start.read(replace(new, warm_start=other.folder))
    assert (len(found.trials), found.outside) == (9, 0)


def test_a_trial_without_the_objective_teaches_nothing(new: Search) -> None:
    found = warm_start.read(replace(new, objectives=("silhouette_x",)))
    assert (len(found.trials), found.unscored) == (0, 6)


def test_a_folder_without_a_complete_trial_is_one_line(tmp_path: Path, tiny_config: Config, new: Search) -> None:
    failed = Search(name="failed", storage=tmp_path, config=tiny_config, arms=(Arm("random", 1),))
    record(failed, status="error")
    with pytest.raises(CatuvacError, match="give --warm-start another study's folder"):
        warm_start.read(replace(new, warm_start=failed.folder))
    with pytest.raises(CatuvacError, match=r"no trials\.parquet"):
        warm_start.read(replace(new, warm_start=tmp_path / "nowhere"))


def test_trials_of_a_warm_start_are_no_slots_and_enter_once(new: Search) -> None:
    slots = TrialQueue.create(new)
    TrialQueue.create(new, exist_ok=True)  # a driver died right after it
    stored = slots.optuna.get_trials()
    assert [trial.state.name for trial in stored] == ["COMPLETE"] * 6 + ["WAITING"] * 2
    point = slots.ask("ray0")
    assert point is not None
    assert point["number"] == 0
    slots.resume({})  # the next driver brings the slots in line
    states = [trial.state.name for trial in slots.optuna.get_trials()]
    assert states == ["COMPLETE"] * 6 + ["FAIL", "WAITING", "WAITING"]
    cold = replace(new, name="cold", warm_start=None)
    cold.folder.mkdir()
    unaware = TrialQueue.create(cold).ask("ray0")
    assert unaware != point  # six trials that it has learned from
