"""One driver at a time in a study's folder, and the best that a trial can be restored from."""

from __future__ import annotations

from pathlib import Path

import pytest

from catuvac import artifacts
from catuvac.config import Config
from catuvac.data.store import FeatureSet
from catuvac.errors import CatuvacError
from catuvac.experiments.search import Arm, Search
from catuvac.training import checkpoint
from catuvac.training.run import TrainingRun
from catuvac.tune import driver, storage
from catuvac.tune.trainable import _restore


@pytest.fixture
def study(tmp_path: Path, tiny_config: Config) -> Search:
    return Search(name="a", storage=tmp_path, config=tiny_config, arms=(Arm("random", 1),))


def test_a_second_driver_is_refused_and_a_killed_ones_leftovers_go(study: Search) -> None:
    study.folder.mkdir()
    (study.folder / ".study.json.99999999").touch()
    with driver._alone(study):
        assert {path.name for path in study.folder.iterdir()} == {artifacts.LOCK}
        driver.check_folder(study, resume=False)  # the lock alone makes no study
        with pytest.raises(CatuvacError, match="another process runs study"), driver._alone(study):
            pass
    with driver._alone(study):
        pass


def test_a_damaged_design_is_not_resumed(study: Search) -> None:
    study.folder.mkdir()
    driver._start_folder(study, {"features": ""})
    driver.check_folder(study, resume=True)
    path = study.folder / "study.json"
    path.write_text(path.read_text().replace('"margin": 0.03', '"margin": 0.05'))
    with pytest.raises(CatuvacError, match=r"study\.json is damaged"):
        driver.check_folder(study, resume=True)


def test_a_trial_goes_on_from_its_best_state_where_the_last_is_no_good(
    study: Search, tiny_features: FeatureSet
) -> None:
    run = TrainingRun(study.config, tiny_features)
    report = next(iter(run))
    for kind in ("last", "best"):
        storage.save_checkpoint(study, 0, kind, {"run": run.state(), "reports": [report]})
    folder = study.folder / "checkpoints" / "0000"
    whole = (folder / "last.pt").read_bytes()
    other = {"run": {**run.state(), "format": 1}, "reports": [report]}
    for damage in (
        lambda: (folder / "last.pt").write_bytes(whole[:-9]),
        lambda: checkpoint.save(folder / "last.pt", other),
    ):
        damage()
        restored = TrainingRun(study.config, tiny_features)
        assert _restore(restored, study, 0) == [report]
        assert restored.epoch == 1
    (folder / "best.pt").write_bytes(b"")
    assert _restore(anew := TrainingRun(study.config, tiny_features), study, 0) == []
    assert anew.epoch == 0
