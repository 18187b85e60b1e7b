"""TensorBoard events of a study: one run per trial, with its curves and, for the HPARAMS tab, its settings.

Names are those of the tables. Ray's own logger would also write everything that Ray adds, under other names.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from numbers import Real
from typing import Any

from ray import tune
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from catuvac.experiments.base import Experiment
from catuvac.training.run import Report
from catuvac.tune import storage
from catuvac.tune.process_local import ProcessLocal

SCALARS = ("tau", "lr")
NAMESPACES = ("loss/", "val/", "test/")
FLUSH_SECONDS = 10  # s until an event is visible


class TensorBoard(ProcessLocal, tune.Callback):  # type: ignore[misc]
    """Writes events below `plan.folder`, even if Ray's own trial folders are elsewhere."""

    def __init__(self, plan: Experiment) -> None:
        self.plan = plan
        # By trial; open only while it runs. Ray stores no state of this: a missing writer is opened on demand.
        self.writers: dict[str, SummaryWriter] = {}
        threading.excepthook = _quiet_writers

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Report, **info: Any) -> None:
        """Writes the finite numbers of an evaluation at its epoch."""
        del iteration, trials, info
        step = result["epoch"]
        if trial.trial_id not in self.writers:
            self.writers[trial.trial_id] = self._open(trial, step)
        for name, value in result.items():
            if _is_scalar(name, value):
                self.writers[trial.trial_id].add_scalar(name, float(value), step)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Marks a trial as finished."""
        del iteration, trials, info
        if trial.trial_id in self.writers:
            _, _, ended = hparams({}, {})  # type: ignore[no-untyped-call]
            self.writers[trial.trial_id]._get_file_writer().add_summary(ended)  # type: ignore[no-untyped-call]
        self._close(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Closes the file of a trial that failed permanently."""
        del iteration, trials, info
        self._close(trial.trial_id)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Closes the file of a trial that continues elsewhere from its last checkpoint."""
        del iteration, trials, info
        self._close(trial.trial_id)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Closes files that an interruption left open."""
        del trials, info
        self.close()

    def close(self) -> None:
        """Closes every file."""
        for trial_id in list(self.writers):
            self._close(trial_id)

    def _open(self, trial: Any, step: int) -> SummaryWriter:
        writer = SummaryWriter(
            str(self.plan.folder / storage.trial_folder(trial.config["number"], trial.trial_id)),
            purge_step=step,  # epochs after the checkpoint from which a trial continues are written again
            flush_secs=FLUSH_SECONDS,
            filename_suffix=f".{time.time_ns()}",  # default names only have whole seconds: a file could replace another
        )
        row = self.plan.identify(trial.config, trial.trial_id)
        settings = {n.removeprefix("config/"): value for n, value in row.items() if n.startswith("config/")}
        settings["method"] = row["method"]  # of a cell; may not be a value of the setting
        plain = {name: value for name, value in settings.items() if isinstance(value, bool | int | float | str)}
        # The event that starts a session, in the run of the scalars: `add_hparams` would open a separate run.
        # Without an event that describes the experiment, TensorBoard reads all runs and lists first what differs.
        _, started, _ = hparams(plain, {})  # type: ignore[no-untyped-call]
        writer._get_file_writer().add_summary(started)  # type: ignore[no-untyped-call]
        return writer

    def _close(self, trial_id: str) -> None:
        writer = self.writers.pop(trial_id, None)
        if writer is not None:
            with contextlib.suppress(OSError):  # a full disk: the tables report it, and curves may be lost
                writer.close()


def _quiet_writers(args: threading.ExceptHookArgs) -> None:
    """Hides OSErrors of writer threads, whose tracebacks would repeat what the tables report in one line."""
    if not (isinstance(args.exc_value, OSError) and type(args.thread).__module__.startswith("tensorboard.")):
        threading.__excepthook__(args)


def _is_scalar(name: str, value: object) -> bool:
    named = name in SCALARS or name.startswith(NAMESPACES)
    return named and isinstance(value, Real) and math.isfinite(value)
