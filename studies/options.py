"""The flags that the studies share: what is trained, where it lies, and with which resources."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catuvac.config import Config, ConfigError, preset, read_yaml, unknown

PRESETS = Path(__file__).parent / "presets"
PRESET_KEYS: dict[str, tuple[type, str]] = {  # of the files in it: the type of each value, and what that is called
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
class StudyFlags:
    """Flags of every study that starts from a file of studies/presets."""

    preset: str = "synthetic"
    """file of studies/presets: synthetic, fsdd, arabic_digits, speech_commands or urbansound8k; or the path of a YAML
    file like them"""
    data_root: Path | None = None
    """folder with the recordings, the same on every node; absolute in a Ray job (not needed for synthetic)"""
    cache_dir: Path | None = None
    """feature cache; a node that lacks the features extracts them there once; default: $CATUVAC_CACHE, else
    ~/.cache/catuvac"""
    storage: str = ""
    """folder of all studies, shared by every node, or s3://… or gs://…; default: ./results, or ~/catuvac/results in a
    Ray job, which runs in a copy; beside an object store the tables lie there too"""
    name: str = ""
    """of this study, its folder below storage; default: preset and time"""
    resume: bool = False
    """continue the study --name; needs the flags that it was started with"""
    dry_run: bool = False
    """check the cluster, print what would run and how long it takes, and stop"""
    autoscaling: bool = False
    """the cluster adds nodes on demand: that none can carry a trial yet is no error"""
    epochs: int | None = None
    """of each trial; default: the preset's"""
    eval_every: int | None = None
    """epochs between evaluations, which dynamics are drawn from; default: the preset's"""
    deterministic: bool = False
    """CUDA: the same bits every time, slower; the CPU always gives them"""
    cpus_per_trial: float = 1.0
    """CPU cores, and torch threads"""
    max_concurrent: int = 0
    """trials at a time; 0: as many as the cluster carries"""
    max_failures: int = 3
    """retries of a trial that crashed or lost its node, each from its last checkpoint"""
    keep_top: int = 10
    """finished trials that keep their checkpoints (last and best), those with the best objective; 0: all"""
    report: bool = True
    """write report.html and answer.json at the end; `catuvac report` writes them, and figures/, at any time"""

    def chosen(self) -> dict[str, Any]:
        """What the file of the preset says.

        Raises:
            ConfigError: no such preset, or a file with unknown keys or without a necessary one.
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
        for key in ("preset", "trials", "objectives"):
            if key not in chosen:
                raise ConfigError(f"{path.name} lacks the key {key!r}")
        return chosen

    def config(self, chosen: dict[str, Any]) -> Config:
        """The settings of a training, from what `chosen` gave and the flags; raises `ConfigError` for a bad value."""
        config = preset(chosen["preset"]).updated(chosen.get("settings", {}))
        flags = {name: getattr(self, name) for name in ("epochs", "eval_every")}
        config = config.with_settings({name: value for name, value in flags.items() if value is not None})
        return config.with_settings({"deterministic": True}) if self.deterministic else config
