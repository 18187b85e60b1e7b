"""Reading a results folder, and rank correlation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planted import falling_with_tau_end, trial

from analysis.trials import load_all, study_name, units, within_seeds
from catuvac.config import Config
from catuvac.errors import CatuvacError
from catuvac.experiments.base import DESIGN, columns
from catuvac.results import HISTORY, TRIALS, append_trial
from catuvac.training.schedules import Shape, anneal


def test_only_complete_trials_answer(tmp_path: Path) -> None:
    study = load_all([falling_with_tau_end(tmp_path)])
    assert study.name == "planted"
    assert study.complete["number"].tolist() == [0, 1, 2, 3, 4, 5]
    assert study.counts() == {"complete": 6, "stopped": 1, "diverged": 1, "error": 1}


def test_a_bad_folder_gives_one_line(tmp_path: Path) -> None:
    with pytest.raises(CatuvacError, match="no folder"):
        load_all([tmp_path / "absent"])
    (tmp_path / TRIALS).write_bytes(b"PAR1")
    with pytest.raises(CatuvacError, match="damaged"):
        load_all([tmp_path])


def test_a_setting_that_rows_at_its_default_leave_out_is_there_beside_rows_that_have_it(tmp_path: Path) -> None:
    for number, config in enumerate((Config(), Config().with_settings({"channels": 4}))):
        append_trial(tmp_path, {**trial(number), **columns(config), "seed": number})
    trials = load_all([tmp_path]).trials
    assert trials["config/channels"].tolist() == [16, 4]
    assert len(np.unique(units(trials))) == 2


def test_a_folder_that_holds_no_study_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(CatuvacError, match="contains no study"):
        load_all([tmp_path])
    (tmp_path / DESIGN).write_text("{}")  # one that has no trial yet
    assert load_all([tmp_path]).trials.empty


def test_folders_side_by_side(tmp_path: Path) -> None:
    falling_with_tau_end(tmp_path / "a")
    append_trial(tmp_path / "b", trial(0, study="other", corpus="fsdd"))
    append_trial(tmp_path / "b", trial(1, study="other", corpus="fsdd", method="uvac"))
    study = load_all([tmp_path / "a", tmp_path / "b"])
    assert study.name == "planted, other"
    assert study.problems == ()
    panels = study.panels()
    assert list(panels) == ["fsdd, K = 5", "synthetic, K = 5"]
    assert len(panels["fsdd, K = 5"].trials) == 1  # the method without a temperature is left out
    assert panels["fsdd, K = 5"].history.empty
    assert len(panels["synthetic, K = 5"].history) == len(study.history)
    with pytest.raises(CatuvacError, match="named planted"):
        load_all([tmp_path / "a", tmp_path / "a"])


def test_a_table_that_is_half_written_is_left_out_and_named(tmp_path: Path) -> None:
    falling_with_tau_end(tmp_path)
    (tmp_path / HISTORY).write_bytes(b"PAR1")
    study = load_all([tmp_path])
    assert len(study.trials) == 9
    assert study.history.empty
    assert "history.parquet is damaged" in study.problems[0]
    (tmp_path / TRIALS).write_bytes(b"PAR1")
    append_trial(tmp_path / "b", trial(0, study="other"))
    study = load_all([tmp_path, tmp_path / "b"])
    assert study.name == "other"
    assert "trials.parquet is damaged" in study.problems[0]
    with pytest.raises(CatuvacError, match=r"trials\.parquet is damaged"):
        load_all([tmp_path])  # nothing is left to report


def test_trials_that_no_result_has_placed_are_independent(tmp_path: Path) -> None:
    for number, arm in enumerate(("tpe", "qmc", "random", "confirm")):
        append_trial(tmp_path, trial(number, arm=arm))
    append_trial(tmp_path, trial(4, arm="qmc", status="stopped"))
    assert load_all([tmp_path]).independent["arm"].tolist() == ["qmc", "random"]


def test_the_seeds_of_one_setting_are_one_unit(tmp_path: Path) -> None:
    for number, tau in enumerate((1.0, 1.0, 0.5, 0.5)):
        append_trial(
            tmp_path, trial(number, arm="confirm", seed=number, **{"config/tau_start": tau, "config/seed": number})
        )
    append_trial(tmp_path, trial(4, study="zeta", seed=4, **{"config/tau_start": 1.0, "config/seed": 4}))
    codes = units(load_all([tmp_path]).trials)
    assert codes[0] == codes[1] != codes[2] == codes[3]
    assert len(set(codes)) == 3


def test_scores_are_relative_to_the_mean_of_their_seed_where_settings_share_seeds(tmp_path: Path) -> None:
    for number, (seed, tau, ami) in enumerate(((0, 1.0, 0.1), (0, 0.5, 0.3), (1, 1.0, 0.6), (1, 0.5, 0.6))):
        append_trial(tmp_path, trial(number, seed=seed, **{"config/tau_start": tau, "val/ami": ami}))
    trials = load_all([tmp_path]).trials
    assert within_seeds(trials, "val/ami")[0] == pytest.approx([-0.1, 0.1, 0.0, 0.0])
    assert within_seeds(trials.iloc[:3], "val/ami")[0] == pytest.approx(
        [0.1, 0.3, 0.6]
    )  # the last seed has one setting


def test_a_folder_that_was_renamed_keeps_its_studys_name(tmp_path: Path) -> None:
    append_trial(tmp_path, trial(0, study="zeta"))
    assert study_name(tmp_path) == "zeta"
    (tmp_path / "new").mkdir()
    assert study_name(tmp_path / "new") == "new"


def test_studies_that_trained_otherwise_are_panels_of_their_own(tmp_path: Path) -> None:
    """Other epochs part two studies; what one of them searches, or the other does not record, does not."""
    for name, epochs in (("short", 4), ("long", 8), ("again", 8)):
        for number, sigma in enumerate((0.1, 0.2)):
            settings = {"config/epochs": epochs, "config/beta": 0.1 if name == "again" else sigma}
            settings |= {} if name == "again" else {"config/sigma": 0.5}
            append_trial(tmp_path / name, trial(number, study=name, **settings))
    found = load_all([tmp_path / name for name in ("short", "long", "again")]).panels()
    assert {title: sorted(panel.trials["study"].unique()) for title, panel in found.items()} == {
        "synthetic, K = 5 (epochs 4)": ["short"],
        "synthetic, K = 5 (epochs 8)": ["again", "long"],
    }


def test_a_schedule_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    append_trial(tmp_path, trial(0, **{"config/tau_schedule": "sawtooth"}))
    with pytest.raises(CatuvacError, match="unknown tau_schedule"):
        load_all([tmp_path])


@pytest.mark.parametrize("shape", ["linear", "cosine", "exponential"])
@pytest.mark.parametrize("end", [0.1, 2.0])
def test_the_mean_temperature_is_that_of_the_schedule(shape: Shape, end: float, tmp_path: Path) -> None:
    settings = {"config/tau_start": 2.0, "config/tau_end": end, "config/tau_schedule": shape}
    append_trial(tmp_path, trial(0, **settings))
    fine = [anneal(2.0, end, progress=p, shape=shape) for p in np.linspace(0, 1, 20_001)]
    assert load_all([tmp_path]).trials["config/tau_mean"][0] == pytest.approx(np.mean(fine), rel=1e-4)
