"""What a driver that died leaves for the next to write."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

from catuvac import results
from catuvac.config import Config
from catuvac.data.store import FeatureSet, Prepared
from catuvac.experiments.comparison import Cell, Comparison
from catuvac.experiments.search import Arm, Search
from catuvac.tune import driver, storage
from catuvac.tune.results_callback import EVALUATIONS, ResultsCallback, finished
from catuvac.tune.trainable import AGAIN


def test_evaluations_that_a_dead_driver_had_not_filed_enter_the_history(tmp_path: Path, tiny_config: Config) -> None:
    study = Search(name="a", storage=tmp_path, config=tiny_config, arms=(Arm("random", 1),))
    ((arm, point),) = study.slots()
    known = study.identify({**point, "number": 0, "arm": arm}, "ray0")
    ended = {"status": "complete", "objective": 0.5, "epochs": 2, "wall_seconds": 1.0, "started_at": "2026-01-01"}
    folder = study.folder / storage.trial_folder(0, "ray0")
    folder.mkdir(parents=True)
    results.append_trial(study.folder, {"study": "a", **known, **ended})
    # A scheduler stopped the trial earlier than before the driver died.
    lines = [json.dumps({"study": "a", "trial_id": "ray0", "epoch": epoch, "tau": 1.0}) for epoch in (1, 2, 3)]
    (folder / EVALUATIONS).write_text("\n".join([*lines, lines[0][:20]]))  # the last line was cut short

    ResultsCallback(study, finished(study), study).on_experiment_end([])

    assert results.read_history(study.folder)["epoch"].tolist() == [1, 2]
    assert not (folder / EVALUATIONS).exists()


def test_a_grid_without_remaining_cells_files_what_a_dead_driver_had_not(
    tmp_path: Path, tiny_config: Config, tiny_features: FeatureSet
) -> None:
    features = Prepared(path=tiny_features.path, config=tiny_config, data_root=None, cache_dir=tmp_path)
    grid = Comparison(name="a", storage=tmp_path, cells=(Cell("cat_uvac", tiny_config, features),))
    known = grid.identify({"number": 0}, "ray0")
    folder = grid.folder / storage.trial_folder(0, "ray0")
    folder.mkdir(parents=True)
    ended = {"status": "complete", "epochs": 1, "started_at": "2026-01-01"}
    results.append_trial(grid.folder, {"study": "a", **known, **ended})
    line = {"study": "a", "trial_id": known["trial_id"], "epoch": 1, "tau": 1.0}
    (folder / EVALUATIONS).write_text(json.dumps(line))

    driver._fit(grid, None, None)

    assert results.read_history(grid.folder)["epoch"].tolist() == [1]


def test_only_epochs_that_are_trained_now_count_for_the_remaining_time(tmp_path: Path, tiny_config: Config) -> None:
    study = Search(name="a", storage=tmp_path, config=tiny_config, arms=(Arm("random", 1),))
    made = ResultsCallback(study, {}, None)
    trial = SimpleNamespace(config={"number": 0}, trial_id="ray0", status="RUNNING")
    for report in ({"epoch": 10, AGAIN: True}, {"epoch": 30, AGAIN: True}, {"epoch": 35}):
        made.on_trial_result(0, [trial], trial, report)
    assert (sum(made.epochs.values()), made.epochs_before) == (35, 30)
