"""A study's trials in Optuna's storage, created before the first one starts: ask, tell and retry. Does not use Ray.

The storage is the only state of a search. Every trial is a slot with a number and an arm; designed ones contain their
point, those of the `tpe` arm leave it to Optuna, whose samples depend only on the seed, the number and the finished
trials. A driver that dies therefore loses no state that is not on disk, and a resumed study asks for the remaining
slots.

Besides the slots, the storage may contain trials of another study, from which TPE learns (`warm_start.py`).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from catuvac import artifacts
from catuvac.errors import CatuvacError
from catuvac.experiments import database, warm_start
from catuvac.experiments.base import JOURNAL
from catuvac.experiments.search import Search
from catuvac.experiments.search_space import Point
from catuvac.io import write

STORAGE_VARIABLE = database.VARIABLE
ATTRIBUTES = ("number", "arm", "block")  # of a slot; not sampled
RAY_TRIAL = "ray_trial"  # attribute of a slot: the id of the Ray trial that runs it
STATES = {
    "complete": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "diverged": TrialState.FAIL,
    "error": TrialState.FAIL,
}

Row = Mapping[str, Any]  # of trials.parquet


def storage(study: Search) -> optuna.storages.BaseStorage:
    """Opens the study's storage: its URL, else $CATUVAC_OPTUNA_STORAGE, else a journal file in its folder.

    Raises:
        CatuvacError: the database does not answer, or the journal cannot be written.
    """
    url = _url(study)
    try:
        if url:
            # A connection may be closed after an hour of training without use: it is tested before each use.
            return optuna.storages.RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
        backend = SummedJournal(str(study.folder / JOURNAL))
        return optuna.storages.JournalStorage(backend)
    except Exception as error:  # any exception of the database driver
        if url:
            where, why = database.describe(url), database.reason(url, error)
        else:
            where, why = (
                str(study.folder / JOURNAL),
                str(error).splitlines()[-1] if str(error) else type(error).__name__,
            )
        raise CatuvacError(f"cannot use the Optuna storage {where}: {why}") from error


def _url(study: Search) -> str:
    return study.optuna_url or os.environ.get(STORAGE_VARIABLE, "")


def outage(study: Search, errors: Sequence[BaseException]) -> str:
    """Returns which database failed, and why, if an exception is its; otherwise ""."""
    for error in errors:
        if isinstance(error, optuna.exceptions.StorageInternalError | SQLAlchemyError):
            url = _url(study)
            return f"the Optuna storage {database.describe(url)} cannot be used ({database.reason(url, error)})"
    return ""


class SummedJournal(optuna.storages.journal.JournalFileBackend):  # type: ignore[misc]
    """Optuna's journal file with a checksum in every line, which other readers ignore."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Appends lines; they are on disk when this returns."""
        super().append_logs([artifacts.with_sum(log) for log in logs])

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Yields the lines from a number on; raises `ValueError` at one that has changed since it was written."""
        for log in super().read_logs(log_number_from):
            yield artifacts.without_sum(log)


def mend_journal(study: Search) -> None:
    """Removes an incomplete last line of a journal file, left by a full disk; no driver may be writing to the file.

    Optuna ignores an incomplete last line, but the next write would become part of that line, and the file would then
    be unreadable. `TrialQueue.resume` restores what is lost with the line.

    Raises:
        CatuvacError: another line is damaged. No line can be skipped: without a line that creates a trial, all later
            trials would get wrong numbers.
    """
    path = study.folder / JOURNAL
    if not path.exists():
        return
    *lines, torn = (data := artifacts.read(path)).split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            artifacts.parse_line(line)
        except ValueError as error:
            advice = f"{artifacts.ADVICE}, or start a new study: the ended trials stay in the tables of this one"
            raise artifacts.damaged(path, f"line {number} of {len(lines)}", advice) from error
    if torn:
        write(path, data[: -len(torn)])


class TrialQueue:
    """The slots of one study."""

    def __init__(self, study: Search) -> None:
        """Opens the slots that `create` has created; raises `CatuvacError` if there are none."""
        self.study = study
        self.wanted = study.slots()
        try:
            self.optuna = optuna.load_study(study_name=study.optuna_name, storage=storage(study))
        except KeyError:
            raise CatuvacError(
                f"the Optuna storage contains no study {study.optuna_name}; "
                f"resume with the --optuna-storage or ${STORAGE_VARIABLE} that it was started with"
            ) from None

    @classmethod
    def create(cls, study: Search, *, exist_ok: bool = False) -> TrialQueue:
        """Creates the slots of a new study, all of them waiting.

        Raises:
            CatuvacError: the name is taken, unless `exist_ok`, as a driver may have died right after it took the name.
        """
        try:
            created = optuna.create_study(
                study_name=study.optuna_name,
                storage=storage(study),
                directions=["maximize"] * len(study.objectives),
                load_if_exists=exist_ok,
            )
        except optuna.exceptions.DuplicatedStudyError:
            raise CatuvacError(
                f"the Optuna storage already contains a study {study.optuna_name}; give another --name"
            ) from None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            created.set_metric_names(list(study.objectives))  # for optuna-dashboard
        slots = cls(study)
        slots._fill()
        return slots

    def _fill(self) -> None:
        """Creates the missing slots: of a new study, of an extension, or those that a dead driver did not create."""
        existing = {trial.user_attrs["number"] for trial in self._trials()}
        if not existing and self.study.warm_start is not None:  # never later: tpe would have sampled without
            self._learn(warm_start.read(self.study).trials)
        for number in range(len(existing), len(self.wanted)):
            arm, point = self.wanted[number]
            attributes = {"number": number, "arm": arm}
            if "block" in point:  # not a setting that Optuna samples
                attributes["block"] = point["block"]
            self.optuna.enqueue_trial(self._coordinates(number), user_attrs=attributes)

    def _learn(self, trials: Sequence[FrozenTrial]) -> None:
        """Adds trials of another study, which are not slots; a dead driver may have added some of them already."""
        known = {trial.user_attrs.get(warm_start.WARM_START) for trial in self.optuna.get_trials(deepcopy=False)}
        self.optuna.add_trials([trial for trial in trials if trial.user_attrs[warm_start.WARM_START] not in known])

    def ask(self, ray_trial: str) -> Point | None:
        """Assigns the next waiting slot to a Ray trial; returns None if no slot is waiting."""
        waiting = self._trials((TrialState.WAITING,))
        if not waiting:
            return None
        slot = waiting[0].user_attrs  # the one that `ask` returns
        self.optuna.sampler = self._sampler(slot["number"])
        trial = self.optuna.ask()
        trial.set_user_attr(RAY_TRIAL, ray_trial)
        coordinates = self._coordinates(slot["number"])
        point = {} if slot["arm"] == "paper" else self.study.space.suggest(trial, coordinates or None)
        return {**point, **{name: slot[name] for name in ATTRIBUTES if name in slot}}

    def _coordinates(self, number: int) -> Point:
        """Returns the designed values of a slot; {} if Optuna samples it."""
        _, designed = self.wanted[number]
        return {name: value for name, value in designed.items() if name not in ATTRIBUTES}

    def tell(self, ray_trial: str, row: Row) -> None:
        """Ends the slot of a trial as its row of `trials.parquet` states; a slot that has ended does not change.

        A trial that a scheduler stopped is pruned: its score does not belong to its final temperature. A trial that
        diverged or ended in an error has failed. The sampler learns no value from either.
        """
        for trial in self._trials((TrialState.RUNNING,)):
            if trial.user_attrs.get(RAY_TRIAL) == ray_trial:
                values = [float(row[name]) for name in self.study.metrics] if row["status"] == "complete" else None
                self.optuna.tell(trial.number, values, state=STATES[row["status"]])

    def resume(self, done: Mapping[str, Row]) -> None:
        """Synchronises the slots with what a dead driver left: no trial is lost, and none stays in the running state.

        If the trial of a slot is not done, the slot fails, because final states are permanent in Optuna, and its point
        is enqueued again under the same number.

        Args:
            done: rows of the trials that need not run again, by id.
        """
        self._fill()
        latest: dict[int, FrozenTrial] = {trial.user_attrs["number"]: trial for trial in self._trials()}
        for trial in latest.values():
            ray_trial = trial.user_attrs.get(RAY_TRIAL)
            if ray_trial in done:
                self.tell(ray_trial, done[ray_trial])
            elif trial.state != TrialState.WAITING:
                if trial.state == TrialState.RUNNING:
                    self.optuna.tell(trial.number, state=TrialState.FAIL)
                attributes = {name: trial.user_attrs[name] for name in ATTRIBUTES if name in trial.user_attrs}
                # A driver that dies while it asks leaves a designed point with only some of its coordinates.
                self.optuna.enqueue_trial(trial.params | self._coordinates(attributes["number"]), user_attrs=attributes)

    def _trials(self, states: tuple[TrialState, ...] | None = None) -> list[FrozenTrial]:
        """Returns the slots in the order of creation, without the trials of a warm start."""
        trials: list[FrozenTrial] = self.optuna.get_trials(deepcopy=False, states=states)
        return [trial for trial in trials if "number" in trial.user_attrs]

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """Returns a sampler for one slot, seeded by its number, so that no sampler state is lost with the driver."""
        designed = sum(point != {} for _, point in self.wanted)
        # A third of the trials, at most ten, are random: the model needs initial data.
        startup = 0 if designed >= 10 else min(10, max(1, self.study.trials // 3))
        return optuna.samplers.TPESampler(
            seed=(self.study.seed + number) % 2**32, n_startup_trials=startup, constant_liar=True
        )
