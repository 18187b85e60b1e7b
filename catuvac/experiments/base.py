"""What a search and a comparison have in common: a name, a place and resources. No Ray."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from catuvac.config import Config, ConfigError, unknown
from catuvac.evaluation.objectives import OBJECTIVES

if TYPE_CHECKING:  # it imports torch, which whoever reads a study's folder need not wait for
    from catuvac.data.store import Prepared

DESIGN = "study.json"  # in every study's folder from the start: what it was started with
JOURNAL = "optuna.journal"  # beside it: a study's slots, where they are in no database
AT_PAPER = "-paper"  # ends the name of a confirmed setting that has the paper's temperature in place of its own
BRANCH = "branch"  # the arm of trainings that share their first epochs with others (catuvac/experiments/branching.py)
PARTITIONS = "partitions"  # of branches, an array a trial, named by its id
CHECKPOINTS = "checkpoints"  # a folder a trial, named by its number, with last.pt and best.pt
STARTS = "starts"  # what several trials start from, each named by `Config.start_hash`


@dataclass(frozen=True, kw_only=True)
class Experiment(ABC):
    """Trials to run as one Ray job; raises `ConfigError` for a bad value.

    A trial's `point` is what Ray gives it: its number and, in a search, the values that were chosen for it.
    """

    growing: ClassVar[tuple[str, ...]] = ()  # parts of the design to which a resumption may add

    name: str
    storage: Path  # absolute; the results lie in storage/name
    remote: str = ""  # s3://… or gs://…: trial folders, checkpoints and a copy of the tables lie in remote/name
    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0
    max_concurrent: int = 0  # 0: as many as the resources carry
    autoscaling: bool = False  # the cluster adds nodes on demand: that none can carry a trial yet is no error
    max_failures: int = 3  # retries of a trial, each from its last checkpoint
    objectives: tuple[str, ...] = ()  # keys of OBJECTIVES; the first one ranks, where the trials are ranked
    keep_top: int = 0  # finished trials that keep their checkpoints, the best ones; 0: all

    def __post_init__(self) -> None:
        self._check(
            {
                f"cpus_per_trial must be positive, got {self.cpus_per_trial}": self.cpus_per_trial > 0,
                f"gpus_per_trial must not be negative, got {self.gpus_per_trial}": self.gpus_per_trial >= 0,
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
        """results/NAME"""
        return self.storage / self.name

    @property
    @abstractmethod
    def trials(self) -> int:
        """How many there are."""

    @property
    @abstractmethod
    def epochs(self) -> int:
        """Of all trials together."""

    @property
    @abstractmethod
    def trained_epochs(self) -> int:
        """Of these, those that are trained if trials with one start all train it once."""

    @property
    def configs(self) -> list[Config]:
        """The settings of trainings that are known beforehand."""
        return []

    @property
    def features(self) -> list[Prepared]:
        """The features that trials bring with them."""
        return []

    @abstractmethod
    def design(self) -> dict[str, Any]:
        """What must not change when it is resumed, as plain values, but for `growing`; resources may change."""

    @abstractmethod
    def identify(self, point: Mapping[str, Any], trial_id: str) -> dict[str, Any]:
        """The columns of a trial's row that do not depend on how it went; `trial_id` is Ray's."""

    @abstractmethod
    def describe(self, point: Mapping[str, Any]) -> str:
        """A trial in a few words."""

    @abstractmethod
    def objective(self, report: Mapping[str, Any]) -> float | None:
        """What ranks the trials; None where nothing does."""

    @property
    def stages(self) -> tuple[Any, ...]:
        """What it was started with, extended to, and is now; none where it cannot grow."""
        return ()

    def read_stages(self, record: Mapping[str, Any]) -> list[Any]:
        """The stages that `DESIGN` holds."""
        del record
        return []

    def continuing(self, stages: Sequence[Any]) -> Self:
        """This experiment as what goes on from recorded stages; raises `ConfigError` where it cannot."""
        del stages
        return self

    def compared(self, recorded: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """A recorded design and this one's, without what may differ."""
        return dict(recorded), self.design()

    def shares_start(self, point: Mapping[str, Any]) -> bool:
        """Whether other trials may have the same start by invariance as the trial at a point, which then keeps it."""
        del point
        return False

    def epochs_before(self, point: Mapping[str, Any]) -> int:
        """Of the epochs that a trial reports, those that it has not trained itself."""
        del point
        return 0


def is_folder_name(name: str) -> bool:
    """Whether a name is that of one folder in another, and can be shown and stored as text."""
    return Path(name).name == name and name not in ("", ".", "..") and name.isprintable()


def columns(config: Config) -> dict[str, Any]:
    """The columns of a trial's row that follow from its settings."""
    return {
        "corpus": config.corpus.corpus,
        "n_clusters": config.model.n_clusters,
        "seed": config.training.seed,
        **{f"config/{name}": value for name, value in config.flat().items()},
        "config_hash": config.hash(),
    }


def settings_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that `columns` wrote into a row, for `Config.with_settings`; a null is a setting of other rows."""
    return {
        name.removeprefix("config/"): value
        for name, value in row.items()
        if name.startswith("config/") and value is not None
    }


def recorded_features(record: Mapping[str, Any], split_seed: int) -> Path | None:
    """Where the features of a split lay when the study was started.

    Args:
        record: what `DESIGN` holds.
        split_seed: of the split; seed blocks have one each.

    Returns:
        None where it is not recorded.
    """
    path = record.get("split_features", {}).get(str(split_seed)) or record.get("features")
    return Path(path) if path else None


def duration(seconds: float) -> str:
    """Seconds as "2 h 05 min", "3 min 20 s" or "40 s"."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
