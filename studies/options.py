"""Flags shared by the studies: what is trained, where the data are, and which resources it uses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catuvac.config import Config, ConfigError, preset, read_yaml, unknown
from catuvac.experiments.options import storage

PRESETS = Path(__file__).parent / "presets"
PRESET_KEYS: dict[str, tuple[type, str]] = {  # keys of these files: the type of each value, and its name in errors
    "preset": (str, "a name"),
    "settings": (dict, "settings by section"),
    "search": (dict, "ranges by name"),
    "trials": (int, "a number"),
    "arms": (str, "text"),
    "seeds": (int, "a number"),
    "paper": (int, "a number"),
    "objectives": (list, "a list of names"),
}


@dataclass(kw_only=True)
class ClusterFlags:
    """Flags of every script that runs trainings on a cluster: where the data are, and which resources a trial uses."""

    data_root: Path | None = None
    """folder with the recordings, the same on every node; absolute in a Ray job (not needed for synthetic)"""
    cache_dir: Path | None = None
    """feature cache; a node that lacks the features extracts them there once; default: $CATUVAC_CACHE, else
    ~/.cache/catuvac"""
    storage: str = ""
    """folder of all studies, shared by every node, or s3://… or gs://…; default: ./results, or ~/catuvac/results in a
    Ray job, which runs in a copy of the code; with an object store, the tables are also written there"""
    name: str = ""
    """name of this study and of its folder in storage; default: preset and time"""
    resume: bool = False
    """continue the study --name; requires the flags that it was started with"""
    dry_run: bool = False
    """check the cluster, print what would run and how long it takes, and stop"""
    autoscaling: bool = False
    """the cluster adds nodes on demand: it is not an error if no node can run a trial yet"""
    cpus_per_trial: float = 1.0
    """CPU cores and torch threads of each trial"""
    max_concurrent: int = 0
    """trials that run at the same time; 0: as many as fit on the cluster"""
    max_failures: int = 3
    """retries of a trial that crashed or lost its node, each from its last checkpoint"""

    def resources(self, default: str = "") -> dict[str, Any]:
        """Returns what every experiment has of these flags: its folders and the resources of its trials.

        Args:
            default: replaces an empty `storage`.

        Raises:
            ConfigError: a relative path in a Ray job, or a storage of another kind.
        """
        folder, remote = storage(self.storage or default)
        names = ("cpus_per_trial", "max_concurrent", "autoscaling", "max_failures")
        return {"storage": folder, "remote": remote, **{name: getattr(self, name) for name in names}}


@dataclass(kw_only=True)
class GpuFlags:
    """The share of a GPU, where it is a number."""

    gpus_per_trial: float = 0.0
    """share of a GPU: 0.25 packs four trials on each"""


@dataclass(kw_only=True)
class StudyFlags(ClusterFlags):
    """Flags of every study that starts from a file in studies/presets."""

    preset: str = "synthetic"
    """file in studies/presets: synthetic, fsdd, arabic_digits, speech_commands or urbansound8k; or the path of a YAML
    file in the same format"""
    epochs: int | None = None
    """epochs of each trial; default: the preset's"""
    eval_every: int | None = None
    """epochs between evaluations, the time resolution of the training dynamics; default: the preset's"""
    deterministic: bool = False
    """CUDA: bit-identical results on every run, slower; on the CPU results always are"""
    keep_top: int = 10
    """number of finished trials, those with the best objective, that keep their last and best checkpoints; 0: all"""
    report: bool = True
    """write report.html and answer.json at the end; `catuvac report` writes them and figures/ at any time"""

    def chosen(self) -> dict[str, Any]:
        """Returns the contents of the preset's file.

        Raises:
            ConfigError: there is no such preset, or its file has unknown keys or lacks a required one.
        """
        path = Path(self.preset) if self.preset.endswith((".yaml", ".yml")) else PRESETS / f"{self.preset}.yaml"
        if not path.is_file() and path.parent == PRESETS:
            raise ConfigError(unknown("preset", self.preset, sorted(p.stem for p in PRESETS.glob("*.yaml"))))
        chosen = read_yaml(path)
        for key, value in chosen.items():
            if key not in PRESET_KEYS:
                raise ConfigError(f"{path.name}: {unknown('key', key, PRESET_KEYS)}")
            kind, called = PRESET_KEYS[key]
            if not isinstance(value, kind):
                raise ConfigError(f"{path.name}: {key} must be {called}, got {value!r}")
        if not all(isinstance(name, str) for name in chosen.get("objectives", [])):
            raise ConfigError(f"{path.name}: objectives must be a list of names, got {chosen['objectives']!r}")
        for key in ("preset", "trials", "objectives"):
            if key not in chosen:
                raise ConfigError(f"{path.name} lacks the key {key!r}")
        return chosen

    def config(self, chosen: dict[str, Any]) -> Config:
        """Returns the settings of a training, from `chosen` and the flags; raises `ConfigError` for a bad value."""
        config = preset(chosen["preset"]).updated(chosen.get("settings", {}))
        flags = {name: getattr(self, name) for name in ("epochs", "eval_every")}
        config = config.with_settings({name: value for name, value in flags.items() if value is not None})
        return config.with_settings({"deterministic": True}) if self.deterministic else config
