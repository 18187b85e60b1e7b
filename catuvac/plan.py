"""What a search and a comparison have in common: a name, a place and resources. No Ray."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catuvac.config import Config, ConfigError


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Trials to run as one Ray job; raises `ConfigError` for a bad value."""

    name: str
    storage: Path  # absolute; the results lie in storage/name
    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0
    max_concurrent: int = 0  # 0: as many as the resources carry

    def __post_init__(self) -> None:
        self._check(
            {
                f"cpus_per_trial must be positive, got {self.cpus_per_trial}": self.cpus_per_trial > 0,
                f"gpus_per_trial must not be negative, got {self.gpus_per_trial}": self.gpus_per_trial >= 0,
                f"max_concurrent must not be negative, got {self.max_concurrent}": self.max_concurrent >= 0,
                f"name must be a plain folder name, got {self.name!r}": Path(self.name).name == self.name != "",
                f"storage must be an absolute path, got {self.storage}": self.storage.is_absolute(),
            }
        )

    @staticmethod
    def _check(checks: dict[str, bool]) -> None:
        for message, good in checks.items():
            if not good:
                raise ConfigError(message)

    @property
    def folder(self) -> Path:
        """results/NAME"""
        return self.storage / self.name


def columns(config: Config) -> dict[str, Any]:
    """The columns of a trial's row that follow from its settings."""
    return {
        "corpus": config.corpus.corpus,
        "n_clusters": config.model.n_clusters,
        "seed": config.training.seed,
        **{f"config/{name}": value for name, value in config.flat().items()},
        "config_hash": config.hash(),
    }
