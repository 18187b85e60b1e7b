"""Starts, resumes and finishes a study or a grid on a Ray cluster."""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, TypeVar

from ray import tune
from ray.tune.error import TuneError
from ray.tune.schedulers import TrialScheduler

from catuvac import artifacts, results
from catuvac.config import ConfigError
from catuvac.data.store import Prepared
from catuvac.errors import CatuvacError
from catuvac.experiments.base import DESIGN, Experiment, recorded_stages, settings_of
from catuvac.experiments.branching import Branches
from catuvac.experiments.comparison import Comparison
from catuvac.experiments.search import Search
from catuvac.experiments.trial_queue import TrialQueue, mend_journal, outage
from catuvac.training import run_dir
from catuvac.tune import storage
from catuvac.tune.connection import connect
from catuvac.tune.failures import STORAGE, failure
from catuvac.tune.gpu_sharing import Asha, Fifo, Median
from catuvac.tune.preflight import check_resources
from catuvac.tune.prometheus import Gauges
from catuvac.tune.results_callback import ResultsCallback, finished
from catuvac.tune.searcher import SlotSearch
from catuvac.tune.tensorboard import TensorBoard
from catuvac.tune.trainable import run_cell, train_branch, train_trial, train_trunk

AnyExperiment = TypeVar("AnyExperiment", bound=Experiment)

DIFFERENT = "study {} was started with different settings"

__all__ = ["check_folder", "connect", "finish", "run_branches", "run_grid", "run_study"]


def run_study(study: Search, features: Prepared, *, resume: bool = False) -> None:
    """Runs a study to its end, or continues one, and leaves its tables, Optuna storage and TensorBoard events.

    Trials that failed permanently are in the table with status "error".

    Raises:
        CatuvacError: the folder is taken, there is nothing to resume, no node can ever run a trial, or the storage
            failed.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the study can be resumed.
    """
    study = continued(study) if resume else study
    trainable = functools.partial(tune.with_parameters, train_trial, study=study, features=features)
    _run(study, trainable, _recorded([features, *features.others]), resume=resume, search=study)


def run_grid(grid: Comparison, *, resume: bool = False) -> None:
    """Runs the cells of a grid, or the remaining ones of an interrupted grid; otherwise as `run_study`."""
    _run(grid, functools.partial(tune.with_parameters, run_cell, grid=grid), _recorded(grid.features), resume=resume)


def run_branches(branches: Branches, features: Prepared, *, resume: bool = False) -> None:
    """Runs the trunks, then the branches, or the remaining ones after an interruption; otherwise as `run_study`."""
    recorded = _recorded([features])
    connect()
    check_resources(branches)
    with _alone(branches):  # also locks its trunks' folder, which is inside
        check_folder(branches, resume=resume)
        if not resume:
            _start_folder(branches, recorded)
        trunks = branches.trunk_grid
        storage.pull(trunks)
        if len(finished(trunks)) < trunks.trials:
            trainable = functools.partial(tune.with_parameters, train_trunk, trunks=branches.trunks, grid=trunks)
            started = (trunks.folder / DESIGN).exists()
            _run_alone(trunks, trainable, recorded, resume=started)
            lost = trunks.trials - len(finished(trunks))
            if lost:
                raise CatuvacError(f"{lost} trunks failed: see error.txt in {trunks.folder}; continue with --resume")
        trainable = functools.partial(tune.with_parameters, train_branch, grid=branches)
        _run_alone(branches, trainable, recorded, resume=True)
        storage.pull_partitions(branches)


def _recorded(features: Sequence[Prepared]) -> dict[str, Any]:
    """Returns the paths of the features for study.json; `catuvac.experiments.base.recorded_features` reads them."""
    return {
        "features": str(features[0].path),
        "features_by_hash": {entry.config.features_hash(): str(entry.path) for entry in features},
    }


def _run(
    plan: Experiment, trainable: Any, features: Mapping[str, Any], *, resume: bool, search: Search | None = None
) -> None:
    connect()
    check_resources(plan)
    with _alone(plan):
        check_folder(plan, resume=resume)  # another driver may have started, and ended, meanwhile
        _run_alone(plan, trainable, features, resume=resume, search=search)


def _alone(plan: Experiment) -> AbstractContextManager[None]:
    """Locks a study's folder against all other drivers."""
    busy = f"another process runs study {plan.folder}; wait until it ends, or give another --name"
    return artifacts.alone(plan.folder, busy=busy, flag="--storage")


def _run_alone(
    plan: Experiment, trainable: Any, features: Mapping[str, Any], *, resume: bool, search: Search | None = None
) -> None:
    """Runs the remaining trials; `search` is the plan itself if Optuna samples its trials."""
    (_extend_folder if resume else _start_folder)(plan, features)
    if search is not None and resume:
        mend_journal(search)
    if search is not None and not finished(search):
        TrialQueue.create(search, exist_ok=resume)
    tables = _fit(plan, search, trainable)
    if (rows := _rows(plan)) < plan.trials:
        raise CatuvacError(f"{plan.trials - rows} trials of {plan.folder} did not run; continue with --resume")
    if search is not None:
        print(f"overhead   {_overhead(tables, resumed=resume)}", flush=True)


def _overhead(tables: ResultsCallback, *, resumed: bool) -> str:
    if resumed:
        return "not stated: the study was resumed, and its trials' seconds include those of earlier drivers"
    return str(tables.overhead() or "not stated: nothing was trained")


def _rows(plan: Experiment) -> int:
    return len(results.read_trials(plan.folder)) if (plan.folder / results.TRIALS).exists() else 0


def _fit(plan: Experiment, search: Search | None, trainable: Any) -> ResultsCallback:
    """Runs the remaining trials, each from its last checkpoint; returns the callback that wrote the tables.

    Ray's snapshots are not restored: they are seconds old when a driver dies, contain the flags of the first start, and
    are pickles, which execute code. The tables, Optuna's storage and the checkpoints have all that a resumption needs.
    """
    done = finished(plan)
    board, tables = TensorBoard(plan), ResultsCallback(plan, done, search)
    ended = {row["number"] for row in done.values()}
    numbers = [number for number in range(plan.trials) if number not in ended]
    if search is None and not numbers:  # Ray accepts no empty grid
        tables.on_experiment_end([])
        return tables
    resources = {"cpu": plan.cpus_per_trial, "gpu": plan.gpus_per_trial}
    tuner = tune.Tuner(
        tune.with_resources(trainable(), resources),
        param_space={"number": tune.grid_search(numbers)} if search is None else None,
        tune_config=tune.TuneConfig(
            num_samples=1 if search is None else -1,  # `SlotSearch` ends it
            search_alg=None if search is None else SlotSearch(search),
            scheduler=_scheduler(search),
            max_concurrent_trials=(plan.max_concurrent or None) if search is None else None,
            trial_dirname_creator=_trial_folder,
            reuse_actors=True,  # importing torch takes seconds; a trial reseeds all its random generators
        ),
        run_config=tune.RunConfig(
            name=plan.name,
            storage_path=plan.remote or str(plan.storage),
            callbacks=[tables, board, Gauges(plan)],
            failure_config=tune.FailureConfig(max_failures=plan.max_failures),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    except Exception as error:
        causes = _chain(error)
        why = failure("\n".join(map(str, causes)))
        if search is not None and (lost := outage(search, causes)):
            stopped = lost
        elif isinstance(error, TuneError | OSError) and why.startswith(STORAGE):
            stopped = f"{plan.remote or plan.folder} cannot be written ({why})"
        else:
            raise
        message = f"the study stopped: {stopped}; fix it, then continue with --name {plan.name} --resume"
        raise CatuvacError(message) from error
    finally:
        board.close()
    if tables.unfinished:
        raise KeyboardInterrupt
    return tables


def _scheduler(search: Search | None) -> TrialScheduler:
    """Returns FIFO unless another scheduler is requested: a trial that is stopped early never reaches tau_end.

    After a resume, the rungs are filled from scratch.
    """
    if search is None or search.scheduler == "fifo":
        return Fifo()
    epochs, every = search.config.training.epochs, search.config.training.eval_every
    common = {"metric": search.metrics[0], "mode": "max", "time_attr": "epoch"}
    # Neither may judge a trial before a quarter of its epochs: scores fluctuate while tau is high.
    grace = min(epochs, max(every, epochs // 4))
    if search.scheduler == "median":
        return Median(**common, grace_period=grace, min_samples_required=3)
    return Asha(**common, max_t=epochs, grace_period=grace, reduction_factor=3)


def _start_folder(plan: Experiment, features: Mapping[str, Any]) -> None:
    record = {
        "design": plan.design(),
        **features,
        "cpus_per_trial": plan.cpus_per_trial,
        "gpus_per_trial": plan.gpus_per_trial,
        **_origin(),
        **({"remote": f"{plan.remote}/{plan.name}"} if plan.remote else {}),
        **({"stages": [_stage(plan)]} if plan.stages else {}),
    }
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        artifacts.write_json(plan.folder / DESIGN, record)
    except OSError as error:
        raise artifacts.not_writable(plan.folder, error, "--storage") from error
    storage.push(plan)


def _extend_folder(plan: Experiment, features: Mapping[str, Any]) -> None:
    """Records an extension of a study, unless it is recorded already."""
    record = _record(plan)
    stages = recorded_stages(record)
    if not plan.stages or len(stages) == len(plan.stages):
        return
    record |= {"design": plan.design(), **features, "stages": [*stages, _stage(plan)]}
    try:
        artifacts.write_json(plan.folder / DESIGN, record)
    except OSError as error:
        raise CatuvacError(f"cannot write to {plan.folder}: {error.strerror}; free some space, then resume") from error
    storage.push(plan)


def _stage(plan: Experiment) -> dict[str, Any]:
    """Returns the current stage of a study, for the list of its start and extensions in study.json."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"at": now, **plan.stages[-1].record(), "trials": plan.trials, **_origin()}


def _origin() -> dict[str, Any]:
    command = shlex.join(["python", *sys.argv])
    return {"command": command, "revision": run_dir.revision(), "machine": run_dir.machine()}


def finish(study: Search) -> str:
    """Writes `best.yaml`, the settings of the best complete trial, for `catuvac train --config`.

    Returns:
        One line with the number of trials by status, and one for the best trial.

    Raises:
        CatuvacError: no trial is complete.
    """
    trials = results.read_trials(study.folder)
    counts = [f"{count} {status}" for status, count in trials["status"].value_counts().items()]
    complete = trials[(trials["status"] == "complete") & (trials["arm"] != "paper")]  # not placed by the search
    if complete.empty:
        raise CatuvacError(f"no trial of {study.folder} is complete: see error.txt in its trial folders")
    best = results.records(complete.loc[[complete["objective"].astype(float).idxmax()]])[0]
    config = study.config.with_settings(settings_of(best))
    artifacts.write_yaml(study.folder / storage.BEST, config.to_yaml())
    used = f"{best['val/clusters_used']:.0f}/{best['n_clusters']}"
    if not best.get("val/y_decided", True):
        used += " (undecided)"
    return (
        f"trials     {', '.join(counts)}\n"
        f"best       trial {best['number']}: objective {best['objective']:.3f}, "
        f"clusters used {used}; settings in {study.folder / 'best.yaml'}"
    )


def check_folder(plan: Experiment, *, resume: bool) -> None:
    """Checks that a new study overwrites nothing, or that a resumed one equals or extends the one that was started.

    Raises:
        CatuvacError: the name is taken, there is nothing to resume, or the resumed study differs in something that must
            not change.
    """
    if not resume:
        existing = {path.name for path in plan.folder.iterdir()} if plan.folder.exists() else set()
        existing |= {info.base_name for info in storage.listed(plan)}
        if existing - {artifacts.LOCK}:
            raise CatuvacError(f"study {plan.folder} exists; give another --name, or --resume to continue it")
        return
    storage.pull(plan)
    record = _record(plan)
    continued(plan)
    old, new = map(_flat, plan.compared(record["design"]))
    names = list(dict.fromkeys([*old, *new]))
    changed = [f"{name} {old.get(name)} → {new.get(name)}" for name in names if old.get(name) != new.get(name)]
    if changed:
        grows = "; only its trials, arms, ranges and seeds may be extended" if plan.growing else ""
        raise CatuvacError(
            f"{DIFFERENT.format(plan.folder)} ({', '.join(changed)}): resume it with the same ones{grows}"
        )


def continued(plan: AnyExperiment) -> AnyExperiment:
    """Returns a study as a continuation of the one in its folder, unchanged or extended, with its earlier stages.

    Raises:
        CatuvacError: the folder contains no study of this version, or one with an arm, a trial or a range that this one
            lacks.
    """
    record = _record(plan)
    try:
        stages = plan.read_stages(record)
    except (ConfigError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _of_another_version(plan) from error
    try:
        return plan.continuing(stages)
    except ConfigError as error:
        raise CatuvacError(f"{DIFFERENT.format(plan.folder)}: {error}") from error


def _record(plan: Experiment) -> dict[str, Any]:
    """Reads the record of the study in its folder."""
    path = plan.folder / DESIGN
    if not path.exists():
        raise CatuvacError(f"nothing to resume in {plan.folder}; start the study without --resume")
    record = artifacts.read_json(path, {}, advice=f"{artifacts.ADVICE}, or start a new study")
    try:
        _flat(record["design"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _of_another_version(plan) from error
    return record


def _of_another_version(plan: Experiment) -> CatuvacError:
    return CatuvacError(f"{plan.folder / DESIGN} is not of this version of catuvac; start a new study")


def _flat(design: Mapping[str, Any]) -> dict[str, Any]:
    """Flattens the sections of a design to section/name."""
    return {
        f"{section}/{name}" if name else section: value
        for section, content in design.items()
        for name, value in (content.items() if isinstance(content, dict) else [("", content)])
    }


def _chain(error: BaseException | None) -> list[BaseException]:
    """Returns an exception and all its causes: Ray wraps exceptions of callbacks."""
    errors = []
    while error is not None:
        errors.append(error)
        error = error.__cause__ or error.__context__
    return errors


def _trial_folder(trial: Any) -> str:
    return storage.trial_folder(trial.config["number"], trial.trial_id)
