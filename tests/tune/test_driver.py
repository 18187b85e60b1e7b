"""A real study on a real Ray, in one process started once for all of these tests."""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tyro
from tau_sweep import TauSweep

from catuvac import results, trained
from catuvac.config import Config, load_yaml
from catuvac.data import store
from catuvac.data.store import FeatureSet, Prepared, open_entry
from catuvac.errors import CatuvacError
from catuvac.experiments import options
from catuvac.experiments.base import settings_of
from catuvac.experiments.replay import replay
from catuvac.experiments.search import Arm, Search
from catuvac.experiments.trial_queue import TrialQueue
from catuvac.training import checkpoint, run_dir
from catuvac.training.run import TrainingRun
from catuvac.tune import driver, results_callback, storage
from catuvac.tune.failures import failure

SWEEP = Path(__file__).parents[2] / "studies" / "tau_sweep.py"


def study(storage: Path, config: Config, **settings: object) -> Search:
    defaults: dict[str, object] = {"name": "a", "arms": (Arm("random", 2), Arm("tpe", 1))}
    return Search(storage=storage, config=config, **(defaults | settings))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def prepared(tiny_config: Config, tiny_features: FeatureSet) -> Prepared:
    return Prepared(path=tiny_features.path, config=tiny_config, data_root=None, cache_dir=tiny_features.path.parent)


@pytest.fixture(scope="module")
def finished(
    local_ray: None, tiny_config: Config, prepared: Prepared, tmp_path_factory: pytest.TempPathFactory
) -> Search:
    del local_ray
    made = study(tmp_path_factory.mktemp("results"), tiny_config, keep_top=2)
    driver.run_study(made, prepared)
    driver.finish(made)
    return made


@pytest.mark.slow
class TestStudy:
    def test_tables(self, finished: Search) -> None:
        trials, history = results.read_trials(finished.folder), results.read_history(finished.folder)
        assert sorted(trials["number"]) == [0, 1, 2]
        assert set(trials["status"]) == {"complete"}
        assert trials.sort_values("number")["arm"].tolist() == ["random", "random", "tpe"]
        assert trials["config/tau_end"].le(trials["config/tau_start"]).all()
        assert trials["objective"].map(math.isfinite).all()
        assert sorted(history.groupby("trial_id")["epoch"].apply(list)) == [[1, 2]] * 3
        assert not list(finished.folder.glob("trial-*/evaluations.jsonl"))

    def test_a_trial_is_what_the_training_function_gives_without_ray(
        self, finished: Search, tiny_features: FeatureSet
    ) -> None:
        row = results.read_trials(finished.folder).iloc[0]
        settings = {n.removeprefix("config/"): row[n] for n in row.index if n.startswith("config/")}
        config = finished.config.with_settings(settings)
        assert config.hash() == row["config_hash"]
        report = list(TrainingRun(config, open_entry(tiny_features.path)))[-1]
        for name in ("val/acc", "val/silhouette_p", "val/elbo", "loss/total"):
            assert report[name] == row[name], name

    def test_optuna_storage_holds_every_trial(self, finished: Search) -> None:
        stored = TrialQueue(finished).optuna.get_trials()
        trials = results.read_trials(finished.folder).sort_values("number")
        assert [t.state.name for t in stored] == ["COMPLETE"] * 3
        assert [t.value for t in stored] == trials["objective"].tolist()
        assert [t.user_attrs["ray_trial"] for t in stored] == trials["trial_id"].tolist()

    def test_best_settings_load_back(self, finished: Search) -> None:
        trials = results.read_trials(finished.folder)
        best = trials.loc[trials["objective"].astype(float).idxmax()]
        assert load_yaml(finished.folder / "best.yaml").hash() == best["config_hash"]

    def test_the_best_trials_keep_their_last_and_best_checkpoint(self, finished: Search) -> None:
        objectives = results.read_trials(finished.folder).set_index("number")["objective"]
        kept = sorted(folder.name for folder in (finished.folder / "checkpoints").iterdir())
        assert len(kept) == 2
        assert min(objectives[int(name)] for name in kept) >= objectives.min()
        for name in kept:
            state = checkpoint.load(finished.folder / "checkpoints" / name / "last.pt")
            assert state["run"]["epoch"] == 2
            assert (finished.folder / "checkpoints" / name / "best.pt").exists()

    def test_tensorboard_events(self, finished: Search) -> None:
        folders = list(finished.folder.glob("trial-*"))
        assert len(folders) == 3
        assert all(list(folder.glob("events.out.tfevents.*")) for folder in folders)

    def test_an_existing_name_is_refused(self, finished: Search, prepared: Prepared) -> None:
        with pytest.raises(CatuvacError, match="give another --name"):
            driver.run_study(finished, prepared)

    def test_resuming_with_other_flags_is_refused(self, finished: Search) -> None:
        with pytest.raises(CatuvacError, match="seed 0 → 5"):
            driver.check_folder(replace(finished, seed=5), resume=True)
        driver.check_folder(replace(finished, cpus_per_trial=2.0), resume=True)

    def test_a_finished_study_resumed_repeats_nothing(self, finished: Search, prepared: Prepared) -> None:
        before = results.read_trials(finished.folder)
        driver.run_study(finished, prepared, resume=True)
        assert results.read_trials(finished.folder).equals(before)
        assert len(TrialQueue(finished).optuna.get_trials()) == 3

    @pytest.mark.parametrize(
        ("arms", "words"),
        [
            ((Arm("random", 1), Arm("tpe", 1)), "the study has random:2: give the arm again"),
            ((Arm("random", 3), Arm("tpe", 1)), ""),
        ],
    )
    def test_a_study_may_grow_and_not_shrink(self, arms: tuple[Arm, ...], words: str, finished: Search) -> None:
        changed = replace(finished, arms=arms)
        if words:
            with pytest.raises(CatuvacError, match=words):
                driver.check_folder(changed, resume=True)
        else:
            driver.check_folder(changed, resume=True)
            assert driver.continued(changed).trials == finished.trials + 1

    @pytest.mark.usefixtures("local_ray")
    def test_an_extension_by_seed_blocks_leaves_what_is_finished_and_trains_on_their_own_splits(
        self, tmp_path: Path, tiny_config: Config, cache_dir: Path
    ) -> None:
        made = study(tmp_path, tiny_config, arms=(Arm("random", 2),))
        driver.run_study(made, options.prepare(made.config, data_root=None, cache_dir=cache_dir))
        first = results.read_trials(made.folder).sort_values("number", ignore_index=True)  # not as they ended
        factorial = Arm.parse("factorial:y_estimator=gumbel/exact", seeds=2)
        wider = replace(made, arms=(Arm("random", 2), factorial))
        prepared = options.prepare(wider.config, data_root=None, cache_dir=cache_dir, splits=wider.splits())
        driver.run_study(wider, prepared, resume=True)
        trials = results.read_trials(made.folder).set_index("number")
        assert trials.loc[[0, 1]].reset_index()[first.columns].equals(first)
        assert trials.sort_index()["arm"].tolist() == ["random"] * 2 + ["factorial"] * 4
        assert trials.sort_index()["config/split_seed"].tolist() == [0, 0, 0, 0, 1, 1]
        assert trials.sort_index()["config/y_estimator"].tolist() == ["gumbel"] * 3 + ["exact", "gumbel", "exact"]
        stages = json.loads((made.folder / "study.json").read_text())["stages"]
        assert [stage["trials"] for stage in stages] == [2, 6]
        assert [stage["arms"] for stage in stages] == [["random:2"], ["random:2", str(factorial)]]
        with pytest.raises(CatuvacError, match="the study has factorial"):
            driver.check_folder(made, resume=True)

        # The trial of the second block is what training on its split gives, and replay and viewer open that split.
        row = trials.loc[4]
        config = made.config.with_settings({"split_seed": 1, "seed": 1})
        other = store.prepare(config, data_root=None, cache_dir=cache_dir)
        assert row["config_hash"] == wider.trial_config({**wider.slots()[4][1], "number": 4}).hash()
        settings = settings_of(row.dropna().to_dict())
        report = list(TrainingRun(config.with_settings(settings), other))[-1]
        assert report["val/elbo"] == row["val/elbo"]
        opened = trained.open_trial(made.folder, 4)
        assert opened.features.path == other.path != prepared.path
        replay(
            made.folder, "4", data_root=None, cache_dir=cache_dir, device="cpu", tolerance=0.0
        )  # exits with 1 where a metric differs

    @pytest.mark.usefixtures("local_ray")
    def test_a_request_that_no_node_can_meet_is_one_line_and_exit_code_2(
        self, tmp_path: Path, cache_dir: Path, refused: Callable[..., str]
    ) -> None:
        errors = refused(TauSweep, sweep(tmp_path, cache_dir, "--gpus-per-trial", "0.25")[2:])
        assert "no node can run a trial with 1 CPUs and 0.25 GPUs" in errors
        assert not (tmp_path / "a").exists()

    @pytest.mark.usefixtures("local_ray")
    def test_several_objectives(self, tmp_path: Path, tiny_config: Config, prepared: Prepared) -> None:
        made = study(tmp_path, tiny_config, arms=(Arm("tpe", 2),), objectives=("silhouette_x", "mutual_information"))
        driver.run_study(made, prepared)
        trials = results.read_trials(made.folder)
        assert trials["objective"].tolist() == trials["val/objective_silhouette_x"].tolist()
        assert [len(trial.values) for trial in TrialQueue(made).optuna.get_trials()] == [2, 2]
        assert "best" in driver.finish(made)

    @pytest.mark.usefixtures("local_ray")
    def test_trials_that_a_scheduler_stops_are_marked_and_pruned(
        self, tmp_path: Path, tiny_config: Config, prepared: Prepared
    ) -> None:
        config = tiny_config.with_settings({"epochs": 12})
        made = study(tmp_path, config, arms=(Arm("random", 6),), scheduler="asha", max_concurrent=1)
        driver.run_study(made, prepared)
        trials = results.read_trials(made.folder).set_index("trial_id")
        stopped = trials[trials["status"] == "stopped"]
        assert set(trials["status"]) == {"complete", "stopped"}
        assert stopped["epochs"].lt(12).all()
        states = {trial.user_attrs["ray_trial"]: trial.state.name for trial in TrialQueue(made).optuna.get_trials()}
        assert {states[trial_id] for trial_id in stopped.index} == {"PRUNED"}
        numbers = {int(folder.name) for folder in (made.folder / "checkpoints").iterdir()}
        assert numbers == set(trials["number"])  # keep_top 0 keeps all

    @pytest.mark.usefixtures("local_ray")
    def test_a_diverged_trial_is_recorded_and_failed(
        self, tmp_path: Path, tiny_config: Config, prepared: Prepared
    ) -> None:
        config = tiny_config.with_settings({"lr_start": 1e30, "lr_end": 1e30, "grad_clip": 1e30})
        made = study(tmp_path, config, arms=(Arm("random", 1),))
        driver.run_study(made, prepared)
        trial = results.read_trials(made.folder).iloc[0]
        assert (trial["status"], trial["objective"]) == ("diverged", 0.0)
        assert TrialQueue(made).optuna.get_trials()[0].state.name == "FAIL"

    @pytest.mark.usefixtures("local_ray")
    def test_a_trial_that_crashes_is_retried_and_recorded_and_run_again_by_a_resumption(
        self, tmp_path: Path, tiny_config: Config, prepared: Prepared, capfd: pytest.CaptureFixture[str]
    ) -> None:
        made = study(tmp_path, tiny_config, arms=(Arm("random", 1),), max_failures=1)
        nowhere = replace(prepared, path=tmp_path / "nowhere", cache_dir=SWEEP)  # a file: no cache can be made there
        driver.run_study(made, nowhere)
        trial = results.read_trials(made.folder).iloc[0]
        assert trial["status"] == "error"
        assert "cannot use the cache" in trial["failure"]
        printed = capfd.readouterr()
        assert printed.out.count("continues from its last checkpoint") == 1
        assert "Traceback" not in printed.out + printed.err
        assert ", in train_trial" in next(made.folder.glob("trial-*/error.txt")).read_text()  # the frames
        with pytest.raises(CatuvacError, match="no trial of"):
            driver.finish(made)
        driver.run_study(replace(made, max_failures=2), nowhere, resume=True)  # a resumption follows its own flags
        assert capfd.readouterr().out.count("continues from its last checkpoint") == 2
        driver.run_study(made, prepared, resume=True)
        assert results.read_trials(made.folder)["status"].tolist() == ["complete"]
        assert [trial.state.name for trial in TrialQueue(made).optuna.get_trials()] == ["FAIL", "FAIL", "COMPLETE"]

    @pytest.mark.usefixtures("local_ray")
    def test_a_database_that_fails_is_one_line_and_the_study_goes_on_after_it(
        self,
        tmp_path: Path,
        tiny_config: Config,
        prepared: Prepared,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        path = tmp_path / "optuna.db"
        made = study(tmp_path, tiny_config, optuna_url=f"sqlite:///{path}")
        append, saved = results.append_trial, list[bytes]()

        def appended(folder: Path, row: dict[str, object]) -> None:
            append(folder, row)
            if not saved:
                saved.append(path.read_bytes())
                path.write_bytes(b"no database")

        monkeypatch.setattr(results, "append_trial", appended)
        with pytest.raises(CatuvacError, match=r"the Optuna storage sqlite database .* --resume") as caught:
            driver.run_study(made, prepared)
        assert "\n" not in str(caught.value)
        assert "Traceback" not in "".join(capfd.readouterr())
        path.write_bytes(saved[0])
        driver.run_study(made, prepared, resume=True)
        assert results.read_trials(made.folder)["status"].tolist() == ["complete"] * 3

    def test_an_object_store_holds_trials_and_copies_of_the_tables_though_the_clock_is_set_back_by_a_day(
        self,
        finished: Search,
        tmp_path: Path,
        tiny_config: Config,
        prepared: Prepared,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        made = study(tmp_path / "here", tiny_config, remote=(tmp_path / "store").as_uri())
        now, push, copied = time.time, storage.push, list[int]()

        def pushed(plan: Search) -> None:
            push(plan)
            copied.append(len(results.read_trials(plan.folder)) if (plan.folder / results.TRIALS).exists() else 0)

        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: now() - (86_400 if 1 in copied else 0))
            patch.setattr(storage, "push", pushed)
            patch.setattr(results_callback, "PUSH_SECONDS", 0.0)
            driver.run_study(made, prepared)
        assert {1, 2, 3} <= set(copied)
        trials, undisturbed = (results.read_trials(each.folder).set_index("number") for each in (made, finished))
        assert trials.loc[[0, 1], "val/elbo"].tolist() == undisturbed.loc[[0, 1], "val/elbo"].tolist()
        assert (trials["wall_seconds"] >= trials["train_seconds"]).all()
        assert (trials["train_seconds"] > 0).all()

        driver.finish(made)
        storage.push(made)
        assert not list(made.folder.glob("checkpoints"))
        assert (tmp_path / "store" / "a" / "checkpoints" / "0000" / "last.pt").exists()
        elsewhere = replace(made, storage=tmp_path / "there")  # another machine goes on
        driver.check_folder(elsewhere, resume=True)
        for name in ("trials.parquet", "history.parquet", "best.yaml", "optuna.journal", "study.json"):
            assert (elsewhere.folder / name).read_bytes() == (made.folder / name).read_bytes()
        driver.run_study(elsewhere, prepared, resume=True)
        assert len(results.read_trials(elsewhere.folder)) == 3


@pytest.mark.parametrize("scheduler", ["asha", "median"])
@pytest.mark.parametrize("epochs", [1, 2, 30])
def test_no_scheduler_stops_a_trial_before_a_quarter_of_its_epochs(
    scheduler: str, epochs: int, tmp_path: Path, tiny_config: Config
) -> None:
    config = tiny_config.with_settings({"epochs": epochs, "eval_every": 10})
    made = driver._scheduler(study(tmp_path, config, scheduler=scheduler))
    grace = made._grace_period if scheduler == "median" else made._brackets[0]._rungs[-1][0]  # type: ignore[attr-defined]
    assert grace == min(epochs, 10)


def test_the_blocks_of_an_earlier_version_all_had_one_split(tmp_path: Path, tiny_config: Config) -> None:
    made = study(tmp_path, tiny_config, arms=(Arm.parse("factorial:tau_start=1/2", seeds=2),))
    official = replace(made, name="b", config=tiny_config.with_settings({"split": "official"}))
    for each in (made, official):
        design = {name: value for name, value in each.design().items() if name != "blocks"}
        each.folder.mkdir()
        (each.folder / "study.json").write_text(json.dumps({"design": design}))
    with pytest.raises(CatuvacError, match="blocks weights and order → weights, order and split"):
        driver.check_folder(made, resume=True)
    driver.check_folder(official, resume=True)
    assert driver.continued(official) == official


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "out of memory"),
        ("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 9 GiB\nMemoryError", "out of memory"),
        ("The actor died unexpectedly before finishing this task.", "node lost"),
        ("OSError: [Errno 28] No space left on device: '/x'", "storage: No space left on device"),
        ("Traceback\nValueError: no such thing\n", "crash: ValueError: no such thing"),
        ("", "crash"),
    ],
)
def test_failures_are_told_apart(words: str, kind: str) -> None:
    assert failure(words) == kind


def sweep(storage: Path, cache_dir: Path, *flags: str) -> list[str]:
    return [
        *(sys.executable, str(SWEEP), "--preset", "synthetic", "--name", "a", "--storage", str(storage)),
        *("--cache-dir", str(cache_dir), *flags),
    ]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--preset", "fsd"], "did you mean 'fsdd'"),
        (["--resume"], "nothing to resume"),
        (["--preset", "fsdd"], "give --data-root"),
        (["--tau-start", "-1", "2"], "0 < low <= high"),
        (["--tau-ratio", "0.5", "1.5"], "tau_end / tau_start, must end at 1 or below"),
        (["--beta", "-0.1", "1"], "0 < low <= high"),
        (["--n-clusters", "1"], "n_clusters must be at least 2"),
        (["--n-clusters", "5", "60"], "batch_size must be at least 120"),
        (["--n-clusters", "5", "6", "7"], "n_clusters must be two numbers"),
        (["--invariance", "-1"], "invariance must be finite and not negative"),
        (["--warm-start", "nowhere", "--sampler", "tpe"], "no trials.parquet in"),
        (["--warm-start", "nowhere"], "--warm-start teaches the tpe arm"),
        (["--tau-start", "0.1", "10"], "--tau-start is a range, and no arm searches"),
        (["--n-clusters", "5", "6"], "--n-clusters is a range, and no arm searches"),
        (["--sampler", "tpe", "--seeds", "2"], "--seeds repeats a factorial"),
        (["--arms", "qmc:4", "--trials", "4"], "leave out --trials"),
        (["--arms", "qmc:4", "--sampler", "grid"], "leave out --sampler"),
        (["--seed", "-1"], "seed must not be negative"),
        (["--gpus-per-trial", "1.5"], "must be a whole number"),
        (["--storage", "ftp://host/x"], "must be a path or start with s3:// or gs://"),
        (["--optuna-storage", "postgresql://me:secret@host/x"], "$CATUVAC_OPTUNA_STORAGE"),
        (["--preset", "absent.yaml"], "cannot read absent.yaml"),
    ],
)
def test_bad_flags_are_one_line_and_exit_code_2(
    flags: list[str],
    words: str,
    tmp_path: Path,
    cache_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: Callable[..., str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in refused(TauSweep, sweep(tmp_path / "results", cache_dir, *flags)[2:])
    assert not (tmp_path / "results" / "a").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("search: {tau_start: 1.0}", "search range tau_start must be a list, got 1.0"),
        ("search: {tau_schedule: [[linear]]}", "tau_schedule must be some of"),
        ("objectives: [[silhouette_x]]", "objectives must be a list of names"),
    ],
)
def test_a_bad_preset_file_is_one_line(
    line: str, words: str, tmp_path: Path, cache_dir: Path, refused: Callable[..., str]
) -> None:
    file = tmp_path / "a.yaml"
    objectives = "" if "objectives" in line else "objectives: [silhouette_x]"
    file.write_text("\n".join(["preset: synthetic", "trials: 1", objectives, line]))
    assert words in refused(TauSweep, sweep(tmp_path, cache_dir, "--preset", str(file))[2:])


def test_a_factorial_uses_a_range_that_admits_its_levels() -> None:
    flags = ["--arms", "factorial:tau_start=0.1/10", "--tau-start", "0.1", "10"]
    assert tyro.cli(TauSweep, args=flags)._study().space.ranges["tau_start"] == (0.1, 10.0)


@pytest.mark.parametrize("sampler", ["tpe", "qmc"])
def test_a_sampler_replaces_the_arms_of_the_preset(sampler: str) -> None:
    flags = tyro.cli(TauSweep, args=["--preset", "fsdd", "--paper", "0", "--sampler", sampler])
    assert [str(arm) for arm in flags._study().arms] == [f"{sampler}:40"]


def test_revision_is_the_submitters_else_the_commit_of_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CATUVAC_REVISION", raising=False)
    assert run_dir.revision() is None or re.fullmatch(r"[0-9a-f]{12,}(\+dirty)?", run_dir.revision() or "")
    monkeypatch.setenv("CATUVAC_REVISION", "abc")
    assert run_dir.revision() == "abc"
