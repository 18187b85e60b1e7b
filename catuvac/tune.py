"""The training function as a Ray Tune trainable, and the study around it: the only file that knows Ray.

Ray schedules, Optuna samples. What is ours: the search space, the trial, the two tables, and one line a trial.
"""

from __future__ import annotations

import functools
import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self, get_args

import optuna
import ray
import torch
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from catuvac import checkpoint, results, runs
from catuvac.config import Config, ConfigError, Shape, unknown
from catuvac.data.store import FeatureSet, open_entry
from catuvac.errors import CatuvacError
from catuvac.grid import VARIATIONAL, Grid, test_scores
from catuvac.objective import OBJECTIVES, objective
from catuvac.plan import Plan, columns
from catuvac.training import Report, TrainingRun

Sampler = Literal["tpe", "random", "qmc"]
CHECKPOINT = "checkpoint.pt"
DESIGN = "study.json"
DONE_BEFORE = "done before"  # of a cell that a resumed grid need not run again
PROGRESS_SECONDS = 15.0  # s between progress lines


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """Ranges, ends included. tau_end is searched as tau_start × tau_ratio, so it never exceeds tau_start."""

    tau_start: tuple[float, float] = (0.5, 5.0)  # logarithmic
    tau_ratio: tuple[float, float] = (0.05, 1.0)  # tau_end / tau_start, logarithmic
    tau_schedule: tuple[Shape, ...] = ("exponential", "linear", "cosine")
    beta: tuple[float, float] = (0.01, 1.0)  # logarithmic
    latent_dim: tuple[int, int] = (1, 16)  # logarithmic

    def __post_init__(self) -> None:
        for name in ("tau_start", "tau_ratio", "beta", "latent_dim"):
            ends = getattr(self, name)
            if len(ends) != 2 or not 0 < ends[0] <= ends[1]:
                raise ConfigError(f"search range {name} must be two numbers, 0 < low <= high; got {list(ends)}")
        if self.tau_ratio[1] > 1:
            raise ConfigError(f"search range tau_ratio must end at 1 or below, got {self.tau_ratio[1]}")
        known = ("exponential", "linear", "cosine")
        if not self.tau_schedule or not set(self.tau_schedule) <= set(known):
            raise ConfigError(f"tau_schedule must be some of {', '.join(known)}; got {', '.join(self.tau_schedule)}")

    @classmethod
    def from_dict(cls, ranges: Mapping[str, Any]) -> Self:
        """Takes ranges as YAML lists; raises `ConfigError` for an unknown name or a bad range."""
        names = [field.name for field in fields(cls)]
        for name in ranges:
            if name not in names:
                raise ConfigError(unknown("search range", name, names))
        return cls(**{name: tuple(ends) for name, ends in ranges.items()})

    def suggest(self, trial: optuna.Trial, *, seed: int) -> dict[str, Any]:
        """Asks Optuna for one point; a define-by-run function, so it also returns what follows from the point.

        Each trial trains with a seed of its own, `seed` plus its number: seeds matter as much as most settings, and a
        search on one seed would tune to it.
        """
        trial.suggest_float("tau_start", *self.tau_start, log=True)
        trial.suggest_float("tau_ratio", *self.tau_ratio, log=True)
        trial.suggest_categorical("tau_schedule", self.tau_schedule)
        trial.suggest_float("beta", *self.beta, log=True)
        trial.suggest_int("latent_dim", *self.latent_dim, log=True)
        return {"seed": seed + trial.number, "number": trial.number}


@dataclass(frozen=True, kw_only=True)
class Study(Plan):
    """What to search, on what, and with which resources."""

    config: Config  # the settings that the search does not touch
    space: SearchSpace
    trials: int
    sampler: Sampler = "tpe"
    objectives: tuple[str, ...] = ("silhouette_x",)  # keys of catuvac.objective.OBJECTIVES; the first one ranks
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        known = get_args(Sampler)
        self._check(
            {
                f"trials must be at least 1, got {self.trials}": self.trials >= 1,
                "give at least one objective": len(self.objectives) > 0,
                f"sampler must be one of {', '.join(known)}; got {self.sampler!r}": self.sampler in known,
            }
        )
        for name in self.objectives:
            if name not in OBJECTIVES:
                raise ConfigError(unknown("objective", name, OBJECTIVES))

    @property
    def optuna_name(self) -> str:
        """One name per corpus, K and study: Optuna would silently merge two studies of one name."""
        return f"{self.config.corpus.corpus}-k{self.config.model.n_clusters}-{self.name}"

    def design(self) -> dict[str, Any]:
        """What must not change when the study is resumed, as plain values; resources may."""
        chosen = {name: getattr(self, name) for name in ("trials", "sampler", "objectives", "seed")}
        plain: dict[str, Any] = json.loads(json.dumps({**self.config.flat(), **asdict(self.space), **chosen}))
        return plain

    @property
    def epochs(self) -> int:
        """Of all trials together."""
        return self.trials * self.config.training.epochs

    def identify(self, point: Mapping[str, Any], trial_id: str) -> dict[str, Any]:
        """The columns of a trial's row that do not depend on how it went."""
        config = self.trial_config(point)
        return {
            "trial_id": trial_id,
            "number": point["number"],
            "method": config.model.method,
            "arm": self.sampler,
            **columns(config),
        }

    def describe(self, point: Mapping[str, Any]) -> str:
        """A trial's settings in a few words."""
        training, model = (config := self.trial_config(point)).training, config.model
        return (
            f"{point['number']:>3}  τ {training.tau_start:.2f}→{training.tau_end:.2f} {training.tau_schedule}, "
            f"β {model.beta:.3g}, d {model.latent_dim}"
        )

    def objective(self, report: Report) -> float | None:
        """What ranks the trials."""
        return float(report[f"val/objective_{self.objectives[0]}"])

    def trial_config(self, point: Mapping[str, Any]) -> Config:
        """The settings of one trial from what `SearchSpace.suggest` gave."""
        settings = {name: value for name, value in point.items() if name not in ("tau_ratio", "number")}
        # The product of the two can exceed tau_start by rounding.
        settings["tau_end"] = min(point["tau_start"], point["tau_start"] * point["tau_ratio"])
        return self.config.with_settings(settings)


Trials = Study | Grid


def train_trial(point: dict[str, Any], *, study: Study, features: str) -> None:
    """One trial: trains from the last checkpoint, if any, and reports every evaluation with a new one.

    Args:
        point: from the search.
        study: what the trial belongs to.
        features: prepared entry of the feature cache; trials of one node share its pages.
    """
    torch.set_num_threads(max(1, int(study.cpus_per_trial)))
    config = study.trial_config(point)
    device = "cuda" if study.gpus_per_trial > 0 and torch.cuda.is_available() else "cpu"
    run = TrainingRun(config, open_entry(Path(features)), device=device)
    _load_checkpoint(run)
    for report in run:
        scores = {name.removeprefix("val/"): value for name, value in report.items() if name.startswith("val/")}
        objectives = {
            f"val/objective_{name}": objective(scores, name=name, n_clusters=config.model.n_clusters)
            for name in OBJECTIVES
        }
        _report({**report, **objectives}, run)


def run_cell(point: dict[str, Any], *, grid: Grid) -> None:
    """One cell of a grid, from its last checkpoint if it has any; one that is in the table already is not repeated."""
    torch.set_num_threads(max(1, int(grid.cpus_per_trial)))
    cell = grid.cells[point["number"]]
    device = "cuda" if grid.gpus_per_trial > 0 and torch.cuda.is_available() else "cpu"
    if cell.trial_id in grid.finished():
        tune.report({"epoch": cell.epochs, "status": DONE_BEFORE})
    elif cell.method in VARIATIONAL:
        run = cell.training(device)
        _load_checkpoint(run)
        for report in run:
            _report({**report, **(test_scores(run) if run.finished else {})}, run)
    else:
        tune.report(cell.fit(device))


def _load_checkpoint(run: TrainingRun) -> None:
    stored = tune.get_checkpoint()
    if stored is not None:
        with stored.as_directory() as folder:
            run.load_state(checkpoint.load(Path(folder) / CHECKPOINT, device=run.device))


def _report(report: Report, run: TrainingRun) -> None:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder) / CHECKPOINT, run.state())
        tune.report(report, checkpoint=tune.Checkpoint.from_directory(folder))


class Search(OptunaSearch):  # type: ignore[misc]
    """Ray's Optuna search, for studies that are resumed."""

    def on_trial_result(self, trial_id: str, result: Report) -> None:
        """Tells Optuna nothing before a trial's end.

        Only pruners read intermediate values, and there is none here. A trial that ended after Ray's last snapshot runs
        again when the study is resumed; Optuna, where it is finished, would abort the study over its reports.
        """
        del trial_id, result


class Tables(tune.Callback):  # type: ignore[misc]
    """Writes the two tables as trials go, and prints one line a trial and a line of progress."""

    def __init__(self, plan: Trials) -> None:
        self.plan = plan
        self.revision = runs.revision()
        self.started: dict[str, float] = {}  # time of the first start, by trial
        self.histories: dict[str, list[dict[str, Any]]] = {}  # rows not yet written, by trial
        self.epochs: dict[str, int] = {}  # epochs done, by trial
        self.ended: set[str] = set()
        self.began = time.time()
        self.epochs_before = 0  # done before a resumption: they say nothing of today's speed
        self.printed = 0.0

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Notes the time."""
        del iteration, trials, info
        self.started.setdefault(trial.trial_id, time.time())

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Report, **info: Any) -> None:
        """Keeps an evaluation."""
        del iteration, info
        self.epochs[trial.trial_id] = result["epoch"]
        if "loss/total" in result:  # only what trains has a history
            trial_id = self.plan.identify(trial.config, trial.trial_id)["trial_id"]
            row = runs.history_row(result, study=self.plan.name, trial_id=trial_id)
            self.histories.setdefault(trial.trial_id, []).append(row)
        if time.time() - self.printed > PROGRESS_SECONDS:
            self.printed = time.time()
            print(self._progress(trials), flush=True)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Writes a finished trial."""
        del iteration, info
        report = trial.last_result
        if report["status"] == DONE_BEFORE:
            self.ended.add(trial.trial_id)
            self._print(trials, trial, "finished before", None)
            return
        row = self._row(trial, status=report["status"])
        row |= {name: value for name, value in report.items() if name.startswith(("val/", "test/", "loss/"))}
        row |= {
            "objective": self.plan.objective(report),
            "epochs": report["epoch"],
            "wall_seconds": report["wall_seconds"],
        }
        self._write(trial, row)
        objective = "" if row["objective"] is None else f", objective {row['objective']:.3f}"
        self._print(trials, trial, runs.summary(report) + objective, row["wall_seconds"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Writes a trial that failed for good."""
        del iteration, info
        self._write(trial, self._row(trial, status="error"))
        self._print(trials, trial, f"ERROR, see {trial.error_file}", None)

    def _row(self, trial: Any, *, status: str) -> dict[str, Any]:
        return {
            "study": self.plan.name,
            **self.plan.identify(trial.config, trial.trial_id),
            "status": status,
            "revision": self.revision,
            "started_at": datetime.fromtimestamp(self.started[trial.trial_id], UTC).isoformat(timespec="seconds"),
        }

    def _write(self, trial: Any, row: dict[str, Any]) -> None:
        results.append_history(self.plan.folder, self.histories.pop(trial.trial_id, []))
        results.append_trial(self.plan.folder, row)
        self.ended.add(trial.trial_id)

    def _print(self, trials: list[Any], trial: Any, outcome: str, seconds: float | None) -> None:
        took = "" if seconds is None else f" ({seconds:.0f} s)"
        print(f"trial {self.plan.describe(trial.config)}: {outcome}{took}", flush=True)
        self.printed = time.time()
        print(self._progress(trials), flush=True)

    def _progress(self, trials: list[Any]) -> str:
        ended = len(self.ended)
        running = sum(trial.status == "RUNNING" and trial.trial_id not in self.ended for trial in trials)
        total = max(1, self.plan.epochs)
        done = sum(self.epochs.values())
        fresh = done - self.epochs_before
        eta = duration((time.time() - self.began) / fresh * (total - done)) if fresh else "?"
        share = f"{100 * done / total:.0f} % of the epochs"
        return f"progress   {ended}/{self.plan.trials} trials, {running} running, {share}, ETA {eta}"

    def get_state(self) -> dict[str, Any]:
        """What Ray stores with its snapshots of the study."""
        return {name: getattr(self, name) for name in ("started", "histories", "epochs", "ended")}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues in a resumed study, whose clock starts anew."""
        self.__dict__.update(state)
        self.began, self.epochs_before = time.time(), sum(self.epochs.values())


def duration(seconds: float) -> str:
    """Seconds as "2 h 05 min", "3 min 20 s" or "40 s"."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def connect() -> None:
    """Joins the cluster of the environment (a job's, or RAY_ADDRESS), else starts Ray on this machine, on loopback."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # unset, a local start would write a token to the home folder
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # Tune's own tables; `Tables` prints one line a trial instead
    # Reports are seconds apart in short trials; Ray would warn about the snapshots that they trigger.
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if ray.is_initialized():
        return
    try:
        ray.init(dashboard_host="127.0.0.1", log_to_driver=False, logging_level="WARNING")
    except ConnectionError as error:
        where = os.environ.get("RAY_ADDRESS", "this machine")
        raise CatuvacError(f"no Ray cluster answers at {where}: {str(error).splitlines()[0]}") from error


def run_study(study: Study, features: FeatureSet, *, resume: bool = False) -> tune.ResultGrid:
    """Runs a study to its end, or continues one, and leaves its tables, Optuna storage and TensorBoard events.

    Returns:
        Ray's results; trials that failed are among them, and in the table with status "error".

    Raises:
        CatuvacError: the folder is taken, there is nothing to resume, or no node can ever carry a trial.
    """
    check_folder(study, resume=resume)
    connect()
    _check_resources(study)
    trainable = tune.with_parameters(train_trial, study=study, features=str(features.path))
    if resume and _has_snapshot(study):
        done = _restore(study, trainable)
        _fail_orphans(study)
        return done
    _start_folder(study)
    metrics = [f"val/objective_{name}" for name in study.objectives]
    single = len(metrics) == 1
    search = Search(
        functools.partial(study.space.suggest, seed=study.seed),
        metric=metrics[0] if single else metrics,
        mode="max" if single else ["max"] * len(metrics),
        sampler=_sampler(study),
        study_name=study.optuna_name,
        storage=_optuna_storage(study),
    )
    return _fit(study, trainable, search_alg=search, num_samples=study.trials)


def run_grid(grid: Grid, *, resume: bool = False) -> tune.ResultGrid:
    """Runs the cells of a grid, or those that an interrupted one left; as `run_study` otherwise."""
    check_folder(grid, resume=resume)
    connect()
    _check_resources(grid)
    trainable = tune.with_parameters(run_cell, grid=grid)
    if resume and _has_snapshot(grid):
        return _restore(grid, trainable)
    _start_folder(grid)
    return _fit(grid, trainable, param_space={"number": tune.grid_search(list(range(grid.trials)))})


def _start_folder(plan: Trials) -> None:
    plan.folder.mkdir(parents=True, exist_ok=True)
    runs.write_text(plan.folder / DESIGN, json.dumps(plan.design(), indent=2))


def _fit(plan: Trials, trainable: Any, *, param_space: dict[str, Any] | None = None, **search: Any) -> tune.ResultGrid:
    tuner = tune.Tuner(
        _with_resources(plan, trainable),
        param_space=param_space,
        tune_config=tune.TuneConfig(
            max_concurrent_trials=plan.max_concurrent or None,
            trial_dirname_creator=_trial_folder,
            reuse_actors=True,  # importing torch takes seconds; a trial reseeds everything it draws from
            **search,
        ),
        run_config=tune.RunConfig(
            name=plan.name,
            storage_path=str(plan.storage),
            callbacks=[Tables(plan)],
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            failure_config=tune.FailureConfig(max_failures=2),
            verbose=0,
        ),
    )
    return tuner.fit()


def _restore(plan: Trials, trainable: Any) -> tune.ResultGrid:
    trainable = _with_resources(plan, trainable)
    return tune.Tuner.restore(str(plan.folder), trainable, resume_unfinished=True, restart_errored=True).fit()


def _with_resources(plan: Trials, trainable: Any) -> Any:
    return tune.with_resources(trainable, {"cpu": plan.cpus_per_trial, "gpu": plan.gpus_per_trial})


def finish(study: Study) -> str:
    """Writes `best.yaml`, the settings of the best complete trial, for `catuvac train --config`.

    Returns:
        A line for each status and one for the best trial.

    Raises:
        CatuvacError: no trial is complete.
    """
    trials = results.read_trials(study.folder)
    counts = [f"{count} {status}" for status, count in trials["status"].value_counts().items()]
    complete = trials[trials["status"] == "complete"]
    if complete.empty:
        raise CatuvacError(f"no trial of {study.folder} is complete: see error.txt in its trial folders")
    best = complete.loc[[complete["objective"].astype(float).idxmax()]].to_dict("records")[0]
    settings = {str(n).removeprefix("config/"): value for n, value in best.items() if str(n).startswith("config/")}
    config = study.config.with_settings(settings)
    runs.write_text(study.folder / "best.yaml", config.to_yaml())
    return (
        f"trials     {', '.join(counts)}\n"
        f"best       trial {best['number']}: objective {best['objective']:.3f}, "
        f"clusters used {best['val/clusters_used']:.0f}/{best['n_clusters']}; settings in {study.folder / 'best.yaml'}"
    )


def check_folder(plan: Trials, *, resume: bool) -> None:
    """Raises CatuvacError where a new study would overwrite an old one, or where there is nothing to resume."""
    if not resume:
        if plan.folder.exists() and any(plan.folder.iterdir()):
            raise CatuvacError(f"study {plan.folder} exists; give another --name, or --resume to continue it")
        return
    if not (plan.folder / DESIGN).exists():
        raise CatuvacError(f"nothing to resume in {plan.folder}; start the study without --resume")
    old, new = json.loads((plan.folder / DESIGN).read_text(encoding="utf-8")), plan.design()
    names = list(dict.fromkeys([*old, *new]))
    changed = [f"{name} {old.get(name)} → {new.get(name)}" for name in names if old.get(name) != new.get(name)]
    if changed:
        raise CatuvacError(f"study {plan.folder} was started otherwise ({', '.join(changed)}); resume it unchanged")


def _has_snapshot(plan: Trials) -> bool:
    """Whether Ray can restore it. With tuner.pkl alone it would "restore" a study of one trial."""
    return any(plan.folder.glob("experiment_state-*.json"))


def _check_resources(plan: Trials) -> None:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    needs = {"CPU": plan.cpus_per_trial, "GPU": plan.gpus_per_trial}
    if not any(all(node.get(kind, 0) >= need for kind, need in needs.items()) for node in nodes):
        have = "; ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise CatuvacError(
            f"no node can carry a trial of {needs['CPU']:g} CPUs and {needs['GPU']:g} GPUs (nodes: {have}); "
            "lower --cpus-per-trial or --gpus-per-trial"
        )


def _trial_folder(trial: Any) -> str:
    return f"trial-{trial.config['number']:04}-{trial.trial_id}"


def _sampler(study: Study) -> optuna.samplers.BaseSampler:
    match study.sampler:
        case "tpe":
            # A third of the trials at random, ten at most: the model needs something to start from.
            startup = min(10, max(1, study.trials // 3))
            return optuna.samplers.TPESampler(seed=study.seed, n_startup_trials=startup, constant_liar=True)
        case "random":
            return optuna.samplers.RandomSampler(seed=study.seed)
        case "qmc":
            return optuna.samplers.QMCSampler(seed=study.seed, scramble=True)


def _fail_orphans(study: Study) -> None:
    """Ends what Optuna was asked for after Ray's last snapshot: Ray forgot it and asked for another in its place."""
    if len(results.read_trials(study.folder)) < study.trials:
        return  # interrupted again: what runs may be resumed yet
    stored = optuna.load_study(study_name=study.optuna_name, storage=_optuna_storage(study))
    for trial in stored.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        stored.tell(trial.number, state=optuna.trial.TrialState.FAIL)


def _optuna_storage(study: Study) -> optuna.storages.BaseStorage:
    backend = optuna.storages.journal.JournalFileBackend(str(study.folder / "optuna.journal"))
    return optuna.storages.JournalStorage(backend)
