"""A real study on a real Ray, in one process started once for all of these tests."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from catuvac import results, runs, tune
from catuvac.config import Config, ConfigError, load_yaml
from catuvac.data.store import FeatureSet, open_entry
from catuvac.errors import CatuvacError
from catuvac.training import TrainingRun

SWEEP = Path(__file__).parents[1] / "studies" / "tau_sweep.py"


def study(storage: Path, config: Config, **settings: object) -> tune.Study:
    defaults: dict[str, object] = {"name": "a", "trials": 3, "space": tune.SearchSpace(), "sampler": "random"}
    return tune.Study(storage=storage, config=config, **(defaults | settings))  # type: ignore[arg-type]


class TestSettings:
    def test_every_point_of_the_search_is_a_valid_setting(self, tmp_path: Path, tiny_config: Config) -> None:
        made = study(tmp_path, tiny_config)
        sampled = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        for _ in range(200):
            trial = sampled.ask()
            constants = made.space.suggest(trial, seed=7)
            training = made.trial_config({**trial.params, **constants}).training
            assert 0 < training.tau_end <= training.tau_start
            assert training.seed == 7 + trial.number

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"trials": 0}, "trials must be at least 1"),
            ({"name": "a/b"}, "plain folder name"),
            ({"name": ""}, "plain folder name"),
            ({"storage": Path("results")}, "absolute"),
            ({"objectives": ("acc",)}, "unknown objective 'acc'"),
            ({"objectives": ()}, "at least one objective"),
            ({"sampler": "grid"}, "sampler must be one of"),
            ({"gpus_per_trial": -1.0}, "gpus_per_trial"),
        ],
    )
    def test_bad_studies(self, settings: dict[str, object], words: str, tmp_path: Path, tiny_config: Config) -> None:
        with pytest.raises(ConfigError, match=words):
            study(**({"storage": tmp_path, "config": tiny_config} | settings))  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("ranges", "words"),
        [
            ({"tau_stat": [1, 2]}, "did you mean 'tau_start'"),
            ({"beta": [2, 1]}, "low <= high"),
            ({"tau_start": [-1, 1]}, "0 < low"),
            ({"tau_ratio": [0.5, 2.0]}, "end at 1"),
            ({"tau_schedule": ["steps"]}, "tau_schedule must be some of"),
        ],
    )
    def test_bad_search_ranges(self, ranges: dict[str, object], words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            tune.SearchSpace.from_dict(ranges)

    def test_durations(self) -> None:
        assert [tune.duration(s) for s in (40.2, 200, 7500)] == ["40 s", "3 min 20 s", "2 h 05 min"]


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    import ray

    os.environ["RAY_AUTH_MODE"] = "disabled"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def finished(
    local_ray: None, tiny_config: Config, tiny_features: FeatureSet, tmp_path_factory: pytest.TempPathFactory
) -> tune.Study:
    del local_ray
    made = study(tmp_path_factory.mktemp("results"), tiny_config)
    tune.run_study(made, tiny_features)
    tune.finish(made)
    return made


@pytest.mark.slow
class TestStudy:
    def test_tables(self, finished: tune.Study) -> None:
        trials, history = results.read_trials(finished.folder), results.read_history(finished.folder)
        assert sorted(trials["number"]) == [0, 1, 2]
        assert set(trials["status"]) == {"complete"}
        assert set(trials["arm"]) == {"random"}
        assert trials["config/tau_end"].le(trials["config/tau_start"]).all()
        assert trials["objective"].map(math.isfinite).all()
        assert sorted(history.groupby("trial_id")["epoch"].apply(list)) == [[1, 2]] * 3

    def test_a_trial_is_what_the_training_function_gives_without_ray(
        self, finished: tune.Study, tiny_features: FeatureSet
    ) -> None:
        row = results.read_trials(finished.folder).iloc[0]
        settings = {n.removeprefix("config/"): row[n] for n in row.index if n.startswith("config/")}
        config = finished.config.with_settings(settings)
        assert config.hash() == row["config_hash"]
        report = list(TrainingRun(config, open_entry(tiny_features.path)))[-1]
        for name in ("val/acc", "val/silhouette_p", "val/elbo", "loss/total"):
            assert report[name] == row[name], name

    def test_optuna_storage_holds_every_trial(self, finished: tune.Study) -> None:
        backend = optuna.storages.journal.JournalFileBackend(str(finished.folder / "optuna.journal"))
        storage = optuna.storages.JournalStorage(backend)
        stored = optuna.load_study(study_name=finished.optuna_name, storage=storage)
        trials = results.read_trials(finished.folder).sort_values("number")
        assert [t.state.name for t in stored.trials] == ["COMPLETE"] * 3
        assert [t.value for t in stored.trials] == trials["objective"].tolist()

    def test_best_settings_load_back(self, finished: tune.Study) -> None:
        trials = results.read_trials(finished.folder)
        best = trials.loc[trials["objective"].astype(float).idxmax()]
        assert load_yaml(finished.folder / "best.yaml").hash() == best["config_hash"]

    def test_tensorboard_events_and_one_checkpoint_a_trial(self, finished: tune.Study) -> None:
        for folder in finished.folder.glob("trial-*"):
            assert list(folder.glob("events.out.tfevents.*"))
            assert len(list(folder.glob("checkpoint_*"))) == 1

    def test_an_existing_name_is_refused(self, finished: tune.Study, tiny_features: FeatureSet) -> None:
        with pytest.raises(CatuvacError, match="give another --name"):
            tune.run_study(finished, tiny_features)

    def test_resuming_with_other_flags_is_refused(self, finished: tune.Study) -> None:
        with pytest.raises(CatuvacError, match="seed 0 → 5"):
            tune.check_folder(replace(finished, seed=5), resume=True)
        tune.check_folder(replace(finished, cpus_per_trial=2.0), resume=True)

    @pytest.mark.usefixtures("local_ray")
    def test_a_request_that_no_node_can_meet_is_refused(
        self, tmp_path: Path, tiny_config: Config, tiny_features: FeatureSet
    ) -> None:
        with pytest.raises(CatuvacError, match="no node can carry a trial of 1 CPUs and 2 GPUs"):
            tune.run_study(study(tmp_path, tiny_config, gpus_per_trial=2.0), tiny_features)
        assert not (tmp_path / "a").exists()

    @pytest.mark.usefixtures("local_ray")
    def test_several_objectives(self, tmp_path: Path, tiny_config: Config, tiny_features: FeatureSet) -> None:
        made = study(tmp_path, tiny_config, sampler="tpe", trials=2, objectives=("silhouette_x", "mutual_information"))
        tune.run_study(made, tiny_features)
        trials = results.read_trials(made.folder)
        assert trials["objective"].tolist() == trials["val/objective_silhouette_x"].tolist()
        assert "best" in tune.finish(made)


def sweep(storage: Path, cache_dir: Path, *flags: str) -> list[str]:
    return [
        *(sys.executable, str(SWEEP), "--preset", "synthetic", "--name", "a", "--storage", str(storage)),
        *("--cache-dir", str(cache_dir), *flags),
    ]


@pytest.mark.slow
def test_a_killed_driver_is_resumed(tmp_path: Path, cache_dir: Path) -> None:
    command = sweep(tmp_path, cache_dir, "--trials", "3", "--epochs", "2", "--max-concurrent", "1")
    with (tmp_path / "log").open("w") as log:
        driver = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 180
        while not (tmp_path / "a" / "trials.parquet").exists():
            assert driver.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.05)
        os.killpg(driver.pid, signal.SIGKILL)  # with its own Ray, as when the machine goes
        driver.wait()
    assert len(results.read_trials(tmp_path / "a")) < 3
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    trials = results.read_trials(tmp_path / "a")
    assert set(trials["status"]) == {"complete"}
    assert len(trials) == trials["number"].nunique() == 3
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "a" / "optuna.journal"))
    stored = optuna.load_study(study_name="synthetic-k5-a", storage=optuna.storages.JournalStorage(backend))
    states = [trial.state.name for trial in stored.trials]
    assert sorted(set(states)) in (["COMPLETE"], ["COMPLETE", "FAIL"])  # none is left running
    assert states.count("COMPLETE") == 3
    assert (tmp_path / "a" / "report.html").exists()
    assert re.search(r"trial\s+\d+  τ", done.stdout)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--preset", "fsd"], "did you mean 'fsdd'"),
        (["--trials", "0"], "trials must be at least 1"),
        (["--resume"], "nothing to resume"),
        (["--preset", "fsdd"], "give --data-root"),
        (["--objectives", "acc"], "unknown objective 'acc'"),
    ],
)
def test_bad_flags_are_one_line_and_exit_code_2(
    flags: list[str], words: str, tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = sweep(tmp_path, cache_dir, *flags)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert words in done.stderr
    assert not (tmp_path / "a").exists()


def test_revision_is_the_submitters_else_the_commit_of_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CATUVAC_REVISION", raising=False)
    assert runs.revision() is None or re.fullmatch(r"[0-9a-f]{12,}(\+dirty)?", runs.revision() or "")
    monkeypatch.setenv("CATUVAC_REVISION", "abc")
    assert runs.revision() == "abc"
