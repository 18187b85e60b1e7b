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
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from options import StudyFlags

from catuvac import jobs
from catuvac.config import ConfigError
from catuvac.errors import guarded

if TYPE_CHECKING:
    from catuvac.study import Study


@dataclass(kw_only=True)
class TauSweep(StudyFlags):
    """Search the temperature's annealing, β and the latent dimension on one corpus."""

    optuna_storage: str = ""
    """URL of a database for Optuna, such as postgresql+psycopg://host/optuna; default: $CATUVAC_OPTUNA_STORAGE, where
    a URL with a password belongs, else a journal file in the study's folder"""
    trials: int | None = None
    """settings to try; default: the preset's"""
    tau_start: tuple[float, float] | None = None
    """lowest and highest temperature at the first step; default: the preset's"""
    tau_ratio: tuple[float, float] | None = None
    """lowest and highest tau_end / tau_start, at most 1; default: the preset's"""
    beta: tuple[float, float] | None = None
    """lowest and highest weight of the KL term; default: the preset's"""
    latent_dim: tuple[int, int] | None = None
    """lowest and highest dimension of z; default: the preset's"""
    seed: int = 0
    """of the sampler; trial i trains with seed + i"""
    sampler: str = "tpe"
    """tpe, random, qmc or grid; temperature curves are unbiased on the last three only"""
    arms: str = ""
    """several samplers one after the other, in place of --sampler and --trials: qmc:16,tpe:48, or a full grid of named
    levels such as factorial:tau_start=0.5/2+tau_ratio=0.1/1+beta=0.01/0.1, which --seeds repeats; default: the
    preset's, unless --sampler or --trials says otherwise"""
    paper: int | None = None
    """trainings by the paper's protocol (random start, no added term), each with a seed of its own, before the search's
    trials and apart from its curves; default: the preset's"""
    seeds: int | None = None
    """factorial: seed blocks, in each of which every setting is trained once; default: the preset's, else 3"""
    primary: Literal["tau_start", "tau_ratio"] = "tau_ratio"
    """whose effect the study is made for, fixed before the first trial: τ_start, or τ_end / τ_start"""
    margin: float = 0.03
    """AMI: an effect smaller than this does not matter; fixed before the first trial"""
    scheduler: str = "fifo"
    """fifo, or asha or median, which stop poor trials early: those are left out of temperature curves"""
    objectives: tuple[str, ...] = ()
    """label-free scores to maximise: one, or several for a multi-objective search whose first one ranks;
    default: the preset's"""
    gpus_per_trial: float | Literal["auto"] = 0.0
    """share of a GPU: 0.25 packs four trials on each; auto: as many as fit into its memory, none where there is no GPU;
    a trial that runs out of the GPU's memory goes on with twice its share"""

    def run(self) -> None:
        began = time.time()
        study = self._study()

        # Ray and torch take seconds to import, and neither --help nor a bad flag must wait for them.
        from catuvac.plan import duration
        from catuvac.tune import driver, packing, places, preflight

        driver.check_folder(study, resume=self.resume)
        print(f"study      {study.folder}{f', trials in {study.remote}' if study.remote else ''}")
        prepared = jobs.prepare(study.config, data_root=self.data_root, cache_dir=self.cache_dir)
        arms, ranks = " then ".join(map(str, study.arms)), " and ".join(study.objectives)
        print(f"search     {arms}, {study.config.training.epochs} epochs each, {study.scheduler}, by {ranks}")
        sys.stdout.flush()
        driver.connect()
        if self.gpus_per_trial == "auto":
            share, line = packing.choose(study, prepared)
            study = replace(study, gpus_per_trial=share)
            print(line, flush=True)
        for line in preflight.preflight(study, config=study.config, features=prepared, estimate=self.dry_run):
            print(line, flush=True)
        if self.dry_run:
            print(power(study))
            return
        driver.run_study(study, prepared, resume=self.resume)
        summary = driver.finish(study)
        print(summary)
        if self.report:
            from analysis import report

            report.build(study.folder, command=shlex.join(["python", *sys.argv]), figures="none")
        places.push(study)
        print(f"wall time  {duration(time.time() - began)}")
        print(f"watch      catuvac watch {study.folder}")
        print(f"report     {'' if self.report else 'catuvac report '}{study.folder}{'/report.html' * self.report}")

    def _study(self) -> Study:
        from catuvac.study import Arm, SearchSpace, Study

        chosen = self.chosen()
        config = self.config(chosen)
        ranges = {name: getattr(self, name) for name in ("tau_start", "tau_ratio", "beta", "latent_dim")}
        ranges = chosen.get("search", {}) | {name: ends for name, ends in ranges.items() if ends is not None}
        trials = chosen["trials"] if self.trials is None else self.trials
        designed = chosen.get("arms", "") if self.trials is None and self.sampler == "tpe" else ""
        seeds = chosen.get("seeds", 3) if self.seeds is None else self.seeds
        arms = (self.arms or designed or f"{self.sampler}:{trials}").split(",")
        if self.arms and self.trials is not None:
            raise ConfigError(f"--arms {self.arms} says how many trials; leave out --trials")
        count = chosen.get("paper", 0) if self.paper is None else self.paper
        paper = (Arm("paper", count),) if count else ()
        folder, remote = jobs.storage(self.storage)
        return Study(
            name=self.name or f"{Path(self.preset).stem}-{datetime.now():%Y%m%d-%H%M%S}",
            storage=folder,
            remote=remote,
            config=config,
            space=SearchSpace.from_dict(ranges),
            arms=(*paper, *(Arm.parse(arm, seeds=seeds) for arm in arms)),
            primary=self.primary,
            margin=self.margin,
            objectives=self.objectives or tuple(chosen["objectives"]),
            scheduler=self.scheduler,  # type: ignore[arg-type]
            seed=self.seed,
            optuna_url=jobs.database(self.optuna_storage),
            cpus_per_trial=self.cpus_per_trial,
            gpus_per_trial=0.0 if self.gpus_per_trial == "auto" else self.gpus_per_trial,  # chosen on the cluster
            max_concurrent=self.max_concurrent,
            autoscaling=self.autoscaling,
            max_failures=self.max_failures,
            keep_top=self.keep_top,
        )


def power(study: Study) -> str:
    """What the designed trials will be able to tell, in a line."""
    from analysis.questions.effects import CELL_SD, SEED_SD, planned
    from analysis.trials import DESIGNED

    points = [point for arm, point in study.slots() if arm in DESIGNED]
    found = planned(points, factor=study.primary, margin=study.margin) if points else None
    if found is None:
        return (
            f"power      {len(points)} designed trials cannot tell the effect of {study.primary} apart: add an arm "
            "such as qmc:24, or a factorial with more levels"
        )
    decides = found.half < study.margin
    more = "" if decides else f"; that takes about {(found.half / study.margin) ** 2:.1f} times as many settings"
    return (
        f"power      {len(points)} designed trials of {found.n} settings find an effect of {study.primary} of "
        f"{found.detectable:.3f} AMI in 80 % of cases (95 % interval ± {found.half:.3f}); they "
        f"{'can' if decides else 'cannot'} show that one is within the margin of {study.margin:g}{more}. "
        f"Assumed: sd {CELL_SD:g} between settings, {SEED_SD:g} between seeds"
    )


if __name__ == "__main__":
    sys.exit(guarded(lambda: tyro.cli(TauSweep, description=__doc__).run()))
