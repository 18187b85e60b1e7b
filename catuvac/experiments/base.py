"""The common base of a search and a comparison: a name, a storage and resources. Does not use Ray."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from catuvac.config import Config, ConfigError, unknown
from catuvac.evaluation.objectives import OBJECTIVES

if TYPE_CHECKING:  # it imports torch, which is slow and not needed to read a study's folder
    from catuvac.data.store import Prepared

DESIGN = "study.json"  # in every study's folder from the start: its design
JOURNAL = "optuna.journal"  # next to it: a study's slots, unless they are in a database
AT_PAPER = "-paper"  # suffix of the name of a confirmed setting with the paper's temperature instead of its own
BRANCH = "branch"  # the arm of trials that share their first epochs with others (catuvac/experiments/branching.py)
PARTITIONS = "partitions"  # of branches: one array per trial, named by its id
CHECKPOINTS = "checkpoints"  # one folder per trial, named by its number, with last.pt and best.pt
STARTS = "starts"  # starts that several trials share, each named by `Config.start_hash`


@dataclass(frozen=True, kw_only=True)
class Experiment(ABC):
    """Trials to run as one Ray job; raises `ConfigError` for a bad value.

    A trial's `point` is what Ray passes to it: its number and, in a search, the values that were chosen for it.
    """

    growing: ClassVar[tuple[str, ...]] = ()  # parts of the design that may be extended when the study is resumed

    name: str
    storage: Path  # absolute; the results are in storage/name
    remote: str = ""  # s3://… or gs://…: trial folders, checkpoints and a copy of the tables are in remote/name
    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0
    max_concurrent: int = 0  # 0: as many as the resources allow
    autoscaling: bool = False  # the cluster adds nodes on demand: it is no error that none can run a trial yet
    max_failures: int = 3  # retries of a trial, each from its last checkpoint
    objectives: tuple[str, ...] = ()  # keys of OBJECTIVES; the first one ranks the trials, if they are ranked
    keep_top: int = 0  # number of best finished trials that keep their checkpoints; 0: all

    def __post_init__(self) -> None:
        self._check(
            {
                f"cpus_per_trial must be positive, got {self.cpus_per_trial}": self.cpus_per_trial > 0,
                f"gpus_per_trial must not be negative, got {self.gpus_per_trial}": self.gpus_per_trial >= 0,
                f"gpus_per_trial above 1 must be a whole number, got {self.gpus_per_trial}": (
                    self.gpus_per_trial <= 1 or float(self.gpus_per_trial).is_integer()
                ),
                f"max_concurrent must not be negative, got {self.max_concurrent}": self.max_concurrent >= 0,
                f"max_failures must not be negative, got {self.max_failures}": self.max_failures >= 0,
                f"keep_top must not be negative, got {self.keep_top}": self.keep_top >= 0,
                f"name must be a plain folder name, got {self.name!r}": is_folder_name(self.name),
                f"storage must be an absolute path, got {self.storage}": self.storage.is_absolute(),
            }
        )
        for name in self.objectives:
            if name not in OBJECTIVES:
                raise ConfigError(unknown("objective", name, OBJECTIVES))

    @staticmethod
    def _check(checks: dict[str, bool]) -> None:
        for message, good in checks.items():
            if not good:
                raise ConfigError(message)

    @property
    def folder(self) -> Path:
        """The study's folder, results/NAME."""
        return self.storage / self.name

    @property
    def threads(self) -> int:
        """The number of torch's threads in a trial."""
        return max(1, int(self.cpus_per_trial))

    @property
    @abstractmethod
    def trials(self) -> int:
        """The number of trials."""

    @property
    @abstractmethod
    def epochs(self) -> int:
        """The total number of epochs of all trials."""

    @abstractmethod
    def trained_epochs(self, at_once: int) -> int:
        """Returns how many of these epochs are trained if `at_once` trials begin together.

        Trials with the same start that begin together each train it, and the others take it from one of them.
        """

    @property
    @abstractmethod
    def shared_states(self) -> int:
        """The number of stored states that several trials start from, in addition to their own checkpoints."""

    @property
    def configs(self) -> list[Config]:
        """The configurations of the trials that are known beforehand."""
        return []

    @property
    def features(self) -> list[Prepared]:
        """The features that the trials define themselves."""
        return []

    @abstractmethod
    def design(self) -> dict[str, Any]:
        """Returns, as plain values, what must not change on resume, except for `growing`; resources may change."""

    @abstractmethod
    def identify(self, point: Mapping[str, Any], trial_id: str) -> dict[str, Any]:
        """Returns the columns of a trial's row that do not depend on its outcome; `trial_id` is Ray's."""

    @abstractmethod
    def describe(self, point: Mapping[str, Any]) -> str:
        """Returns a short description of a trial."""

    @abstractmethod
    def objective(self, report: Mapping[str, Any]) -> float | None:
        """Returns the value that ranks the trials; None if they are not ranked."""

    @property
    def stages(self) -> tuple[Any, ...]:
        """The start, the extensions and the current state of the study; empty if it cannot be extended."""
        return ()

    def read_stages(self, record: Mapping[str, Any]) -> list[Any]:
        """Returns the stages that `DESIGN` records."""
        del record
        return []

    def continuing(self, stages: Sequence[Any]) -> Self:
        """Returns this experiment as a continuation of recorded stages; raises `ConfigError` if it is none."""
        del stages
        return self

    def compared(self, recorded: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns a recorded design and this one's, without what may differ."""
        return dict(recorded), self.design()

    def shares_start(self, point: Mapping[str, Any]) -> bool:
        """Returns whether other trials may have the same invariance start as this one, which then stores it."""
        del point
        return False

    def epochs_before(self, point: Mapping[str, Any]) -> int:
        """Returns the number of the reported epochs that a trial has not trained itself."""
        del point
        return 0


def is_folder_name(name: str) -> bool:
    """Returns whether a name is a single path component that can be displayed and stored as text."""
    return Path(name).name == name and name not in ("", ".", "..") and name.isprintable()


def columns(config: Config) -> dict[str, Any]:
    """Returns the columns of a trial's row that follow from its settings."""
    return {
        "corpus": config.corpus.corpus,
        "n_clusters": config.model.n_clusters,
        "seed": config.training.seed,
        **{f"config/{name}": value for name, value in config.flat().items()},
        "config_hash": config.hash(),
    }


def settings_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that `columns` wrote into a row; nulls are settings that only other rows have."""
    return {
        name.removeprefix("config/"): value
        for name, value in row.items()
        if name.startswith("config/") and value is not None
    }


def recorded_features(record: Mapping[str, Any], config: Config) -> Path | None:
    """Returns the path that a trial's features had when the study was started.

    Args:
        record: content of `DESIGN`.
        config: of the trial.

    Returns:
        None if it is not recorded.
    """
    if "features_by_hash" in record:
        path = record["features_by_hash"].get(config.features_hash())
    else:  # as an earlier version recorded them: every seed block has its own split
        path = record.get("split_features", {}).get(str(config.split.split_seed)) or record.get("features")
    return Path(path) if path else None


def recorded_stages(record: Mapping[str, Any]) -> list[Any]:
    """Returns the start and the extensions that `DESIGN` records; an earlier version records only the start."""
    return record.get("stages") or [record["design"]]


def duration(seconds: float) -> str:
    """Formats seconds as "2 h 05 min", "3 min 20 s" or "40 s"."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
