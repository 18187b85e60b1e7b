"""The output of a running study: one row per trial and evaluation, one line per trial, and limited checkpoints."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from catuvac import artifacts, results
from catuvac.errors import CatuvacError
from catuvac.experiments.base import Experiment, duration
from catuvac.experiments.search import Search
from catuvac.experiments.trial_queue import TrialQueue
from catuvac.training import run_dir
from catuvac.training.run import Report
from catuvac.tune import storage
from catuvac.tune.failures import STORAGE, failure, last_words
from catuvac.tune.gpu_sharing import gpu_share
from catuvac.tune.overhead import Overhead, overhead
from catuvac.tune.process_local import ProcessLocal
from catuvac.tune.trainable import AGAIN, SPACING

EVALUATIONS = "evaluations.jsonl"  # of a running trial: one line per evaluation, until they are moved to the table
PROGRESS_SECONDS = 15.0  # s between progress lines
PUSH_SECONDS = 30.0  # s between copies of the tables to an object store


def finished(plan: Experiment) -> dict[str, dict[str, Any]]:
    """Returns the rows of the trials that need not run again, by trial_id: all except those that ended in an error."""
    if not (plan.folder / results.TRIALS).exists():
        return {}
    rows = results.records(results.read_trials(plan.folder))
    return {row["trial_id"]: row for row in rows if row["status"] != "error"}


class ResultsCallback(ProcessLocal, tune.Callback):  # type: ignore[misc]
    """Writes the two tables while trials run, tells Optuna, and prints progress and one line per trial."""

    def __init__(self, plan: Experiment, done: Mapping[str, Mapping[str, Any]], search: Search | None) -> None:
        """Takes the rows of finished trials of earlier drivers, by id, and the search if Optuna samples the trials."""
        self.plan = plan
        self.search = search
        self.done = dict(done)
        self.revision = run_dir.revision()
        self.slots: TrialQueue | None = None
        self.started: dict[str, float] = {}  # time of the first start, by trial id
        # Number of finished epochs, by trial number.
        self.epochs = {row["number"]: row["epochs"] - plan.epochs_before(row) for row in done.values()}
        self.kept = {row["number"]: row["objective"] or 0.0 for row in done.values() if row["status"] == "complete"}
        # Trials with a row whose evaluations are not in the history table yet: their id and number of finished epochs,
        # None for an error, which may be repeated.
        self.unfiled: dict[int, tuple[str, int | None]] = {}
        self.files: dict[int, set[Path]] = {}  # with evaluations, by trial number, of all ids that the trial had in Ray
        for path in plan.folder.glob(f"trial-[0-9]*-*/{EVALUATIONS}"):
            self.files.setdefault(storage.number_of(path.parent), set()).add(path)
        for trial_id, row in done.items():  # evaluations that a dead driver had not moved to the table
            if row["number"] in self.files:
                self.unfiled[row["number"]] = trial_id, row["epochs"]
        self.filed = -math.inf  # s, of the clock
        self.cost = 0.0  # s that the last filing took
        self.shares: dict[str, float] = {}  # share of a GPU at a trial's last start, by id
        self.running: set[str] = set()  # ids of the running trials
        self.at_once = 0  # largest number of concurrent trials
        self.clock = time.monotonic()
        self.starts: list[float] = []  # s, of the clock, when each trial started, including retries
        self.ends: list[float] = []  # and when each ended
        self.began = self.clock
        self.epochs_before = sum(self.epochs.values())  # finished before: not counted for the present speed
        self.printed = self.pushed = -math.inf  # s, of the clock
        self.live = False  # whether trials were running or waiting after the last step
        self.unfinished = False  # Ctrl-C: Ray ends without an exception

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Opens the slots and synchronises them with what an earlier driver has left."""
        del iteration, trials, info
        if self.search is not None and self.slots is None:
            self.slots = TrialQueue(self.search)
            self.slots.resume(self.done)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Records the start time."""
        del iteration, trials, info
        self.started.setdefault(trial.trial_id, time.time())
        self.shares[trial.trial_id] = gpu_share(trial)
        self.running.add(trial.trial_id)
        self.starts.append(time.monotonic())
        self.at_once = max(self.at_once, len(self.running))

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: Report, **info: Any) -> None:
        """Stores an evaluation."""
        del iteration, info
        number, epochs = trial.config["number"], result["epoch"] - self.plan.epochs_before(trial.config)
        if AGAIN in result:
            self.epochs_before += epochs - self.epochs.get(number, 0)
        self.epochs[number] = epochs
        if "loss/total" in result:  # only trained methods have a history
            row = run_dir.history_row(result, study=self.plan.name, trial_id=self._id(trial))
            path = self.plan.folder / storage.trial_folder(number, trial.trial_id) / EVALUATIONS
            path.parent.mkdir(exist_ok=True)
            self.files.setdefault(number, set()).add(path)
            with path.open("a", encoding="utf-8") as file:
                # The leading newline ends a line that a killed driver may have left incomplete.
                file.write(f"\n{json.dumps(artifacts.with_sum(row))}\n")
        self._show_progress(trials)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Writes the row of a trial that has ended, by itself or by the scheduler."""
        del iteration, info
        self._ended(trial)
        report = trial.last_result
        # The scheduler stops a trial at a report that is not its last.
        status = "stopped" if report["status"] == "running" else report["status"]
        row = self._row(trial, status=status)
        row |= {name: value for name, value in report.items() if name.startswith(("val/", "test/", "loss/"))}
        row |= {
            "objective": self.plan.objective(report),
            "epochs": report["epoch"],
            "wall_seconds": report["wall_seconds"],
            "train_seconds": report.get("train_seconds"),
        }
        self._write(trial, row)
        self._prune(trial.config["number"], row)
        objective = "" if row["objective"] is None else f", objective {row['objective']:.3f}"
        early = f"stopped at epoch {row['epochs']}, " if status == "stopped" else ""
        self._show(trial, early + run_dir.summary(report) + objective + f" ({row['wall_seconds']:.0f} s)")
        self._show_progress(trials)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Writes the row of a trial that failed permanently.

        Raises:
            CatuvacError: the storage failed, so every other trial would fail, too: the study stops.
        """
        del iteration, info
        self._ended(trial)
        why = failure(last_words(trial))
        if why.startswith(STORAGE):
            raise CatuvacError(f"trial {trial.config['number']} could not be stored ({why})")
        self._write(trial, self._row(trial, status="error") | {"failure": why})
        self._show(trial, f"ERROR, {why}; see {trial.error_file}")
        self._show_progress(trials)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Prints that a trial is retried."""
        del iteration, trials, info
        self.running.discard(trial.trial_id)
        before, now = self.shares.get(trial.trial_id, 0.0), gpu_share(trial)
        room = f", with {now:.4g} of a GPU instead of {before:.4g}" if now > before > 0 else ""
        self._show(trial, f"{failure(last_words(trial))}; continues from its last checkpoint{room}")

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Records whether trials are left: before the end of the experiment Ray ends every trial."""
        del iteration, info
        self.live = any(not trial.is_finished() for trial in reversed(trials))  # live trials are the latest

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Records whether Ray was stopped before the end, and stores the tables."""
        del trials, info
        self.unfinished = self.live
        self._file()
        storage.push(self.plan)

    def overhead(self) -> Overhead | None:
        """Returns the overhead of a study that only this driver has run; None if nothing was trained."""
        table = results.read_trials(self.plan.folder)
        wall, train = (float(table[name].fillna(0.0).sum()) for name in ("wall_seconds", "train_seconds"))
        return overhead(
            began=self.clock, starts=self.starts, ends=self.ends, at_once=self.at_once, wall=wall, train=train
        )

    def _ended(self, trial: Trial) -> None:
        self.running.discard(trial.trial_id)
        self.ends.append(time.monotonic())

    def _id(self, trial: Trial) -> str:
        trial_id: str = self.plan.identify(trial.config, trial.trial_id)["trial_id"]
        return trial_id

    def _row(self, trial: Trial, *, status: str) -> dict[str, Any]:
        started = self.started.get(trial.trial_id, time.time())  # an actor that dies when it is created never starts
        return {
            "study": self.plan.name,
            **self.plan.identify(trial.config, trial.trial_id),
            "status": status,
            "threads": self.plan.threads,
            "revision": self.revision,
            "started_at": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        }

    def _write(self, trial: Trial, row: dict[str, Any]) -> None:
        """Writes the row before Optuna ends the slot: if the driver dies in between, a resume repairs the state."""
        number = trial.config["number"]
        results.append_trial(self.plan.folder, row)
        if row["status"] != "error":
            self.done[row["trial_id"]] = row
        self.unfiled[number] = row["trial_id"], row.get("epochs")
        # The whole table is rewritten each time, which takes longer than a short trial in a long study.
        if time.monotonic() - self.filed >= SPACING * self.cost:
            self._file()
        if self.slots is not None:
            self.slots.tell(trial.trial_id, row)
        if time.monotonic() - self.pushed > PUSH_SECONDS:
            self.pushed = time.monotonic()
            self._file()
            storage.push(self.plan)

    def _file(self) -> None:
        """Moves the evaluations of ended trials to the history table."""
        began = time.monotonic()
        results.append_history(
            self.plan.folder,
            [row for number, ended in self.unfiled.items() for row in self._evaluations(number, *ended)],
        )
        for number, (_, epochs) in self.unfiled.items():
            if epochs is not None:
                for path in self.files.pop(number, set()):
                    path.unlink(missing_ok=True)
        self.unfiled.clear()
        self.filed = time.monotonic()
        self.cost = self.filed - began

    def _evaluations(self, number: int, trial_id: str, epochs: int | None) -> list[dict[str, Any]]:
        """Returns a trial's rows, the latest of each epoch, from all ids under which Ray has run it.

        Rows after its last epoch are left out: an interrupted driver may have gone further before a scheduler, which
        starts again from nothing on a resume, stopped the trial.
        """
        rows: dict[int, dict[str, Any]] = {}
        for path in sorted(self.files.get(number, ()), key=lambda path: path.stat().st_mtime):
            for line in filter(None, path.read_bytes().split(b"\n")):
                try:
                    row = artifacts.parse_line(line)
                    rows[row["epoch"]] = run_dir.history_row(row, study=self.plan.name, trial_id=trial_id)
                except (ValueError, KeyError):  # the last line of a killed driver, or a damaged one
                    print(f"history    an evaluation of trial {number} is damaged and skipped", flush=True)
        return [rows[epoch] for epoch in sorted(rows) if epochs is None or epoch <= epochs]

    def _prune(self, number: int, row: dict[str, Any]) -> None:
        """Deletes all checkpoints except those of the best complete trials."""
        if not self.plan.keep_top:
            return
        if row["status"] == "complete":
            self.kept[number] = row["objective"] or 0.0
        else:
            storage.delete_checkpoints(self.plan, number)
        while len(self.kept) > self.plan.keep_top:
            worst = min(self.kept, key=lambda key: self.kept[key])
            del self.kept[worst]
            storage.delete_checkpoints(self.plan, worst)

    def _show(self, trial: Trial, outcome: str) -> None:
        print(f"trial {self.plan.describe(trial.config)}: {outcome}", flush=True)

    def _show_progress(self, trials: list[Trial]) -> None:
        if time.monotonic() - self.printed < PROGRESS_SECONDS:
            return
        self.printed = time.monotonic()
        running = sum(trial.status == Trial.RUNNING for trial in trials)
        total = max(1, self.plan.epochs)
        reached = sum(self.epochs.values())
        fresh = reached - self.epochs_before
        eta = duration((time.monotonic() - self.began) / fresh * (total - reached)) if fresh else "?"
        share = f"{100 * reached / total:.0f} % of the epochs"
        print(
            f"progress   {len(self.done)}/{self.plan.trials} trials, {running} running, {share}, ETA {eta}", flush=True
        )
