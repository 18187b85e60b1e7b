"""How does the temperature drive the clustering? A search over τ's annealing, β and d, as one Ray job.

    ray job submit --working-dir . -- python studies/tau_sweep.py --preset fsdd --data-root /abs/data --trials 12

Ray schedules the trials, Optuna samples them, labels never choose: the objective is label-free and guarded against
collapse (`catuvac/objective.py`). It leaves STORAGE/NAME/ with trials.parquet, history.parquet, best.yaml,
optuna.journal, TensorBoard events and report.html.
"""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import tyro

from catuvac import jobs
from catuvac.config import ConfigError, preset, read_yaml, unknown
from catuvac.errors import guarded

PRESETS = Path(__file__).parent / "presets"
PRESET_KEYS = ("preset", "settings", "search", "trials", "objectives")


@dataclass(kw_only=True)
class TauSweep:
    """Search the temperature's annealing, β and the latent dimension on one corpus."""

    preset: str = "synthetic"
    """file of studies/presets: synthetic, fsdd or urbansound8k"""
    data_root: Path | None = None
    """folder with the recordings, the same on every node; absolute in a Ray job (not needed for synthetic)"""
    cache_dir: Path | None = None
    """feature cache, the same on every node; default: $CATUVAC_CACHE, else ~/.cache/catuvac"""
    storage: Path | None = None
    """folder of all studies; default: ./results, or ~/catuvac/results in a Ray job, which runs in a copy"""
    name: str = ""
    """of this study, its folder below storage; default: preset and time"""
    resume: bool = False
    """continue the study --name; needs the flags that it was started with"""
    trials: int | None = None
    """settings to try; default: the preset's"""
    epochs: int | None = None
    """of each trial; default: the preset's"""
    n_clusters: int | None = None
    """K; default: the preset's"""
    seed: int = 0
    """of the sampler; trial i trains with seed + i"""
    sampler: str = "tpe"
    """tpe, random or qmc; temperature curves are unbiased on random and qmc only"""
    objectives: tuple[str, ...] = ()
    """label-free scores to maximise: one, or several for a multi-objective search whose first one ranks;
    default: the preset's"""
    cpus_per_trial: float = 1.0
    """CPU cores, and torch threads"""
    gpus_per_trial: float = 0.0
    """share of a GPU: 0.25 packs four trials on each"""
    max_concurrent: int = 0
    """trials at a time; 0: as many as the cluster carries"""

    def run(self) -> None:
        began = time.time()
        # Ray and torch take seconds to import, and --help must not wait for them.
        from analysis import report
        from catuvac import tune
        from catuvac.data import store

        study = self._study()
        tune.check_folder(study, resume=self.resume)
        data_root = None if self.data_root is None else jobs.absolute(self.data_root, "--data-root")
        cache_dir = self.cache_dir or store.default_cache_dir()
        features = store.prepare(study.config, data_root=data_root, cache_dir=cache_dir.absolute())
        n, frames, bands = features.x.shape
        print(f"study      {study.folder}")
        print(f"features   {features.note}: {n} clips of [{frames}, {bands}], {len(features.skipped)} skipped")
        ranks = " and ".join(study.objectives)
        print(f"search     {study.trials} trials × {study.config.training.epochs} epochs, {study.sampler}, by {ranks}")
        sys.stdout.flush()
        tune.run_study(study, features, resume=self.resume)
        summary = tune.finish(study)
        print(summary)
        page = report.build(study.folder, command=shlex.join(["python", *sys.argv]))
        print(f"wall time  {tune.duration(time.time() - began)}")
        print(f"tensorboard --logdir {study.folder}")
        print(f"report     {page}")

    def _study(self) -> Any:
        from catuvac import tune

        path = PRESETS / f"{self.preset}.yaml"
        if not path.is_file():
            raise ConfigError(unknown("preset", self.preset, sorted(p.stem for p in PRESETS.glob("*.yaml"))))
        chosen = read_yaml(path)
        for key in chosen:
            if key not in PRESET_KEYS:
                raise ConfigError(f"{path.name}: {unknown('key', key, PRESET_KEYS)}")
        config = preset(chosen["preset"]).updated(chosen.get("settings", {}))
        flags = {"epochs": self.epochs, "n_clusters": self.n_clusters}
        config = config.with_settings({name: value for name, value in flags.items() if value is not None})
        return tune.Study(
            name=self.name or f"{self.preset}-{datetime.now():%Y%m%d-%H%M%S}",
            storage=jobs.storage(self.storage),
            config=config,
            space=tune.SearchSpace.from_dict(chosen.get("search", {})),
            trials=chosen["trials"] if self.trials is None else self.trials,
            sampler=self.sampler,  # type: ignore[arg-type]
            objectives=self.objectives or tuple(chosen["objectives"]),
            seed=self.seed,
            cpus_per_trial=self.cpus_per_trial,
            gpus_per_trial=self.gpus_per_trial,
            max_concurrent=self.max_concurrent,
        )


if __name__ == "__main__":
    sys.exit(guarded(lambda: tyro.cli(TauSweep, description=__doc__).run()))
