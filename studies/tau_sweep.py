"""How does the temperature drive the clustering? A search over τ's annealing, β and d, as one Ray job.

    ray job submit --working-dir . -- python studies/tau_sweep.py --preset fsdd --data-root /abs/data --trials 12

Ray schedules the trials, Optuna samples them, and labels never select: the objective is label-free and guarded against
collapse (`catuvac/evaluation/objectives.py`). The study writes STORAGE/NAME/ with trials.parquet, history.parquet,
best.yaml, optuna.journal, TensorBoard events and report.html.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from options import StudyFlags

from catuvac.config import ConfigError, Estimator
from catuvac.errors import guarded
from catuvac.experiments import options
from catuvac.experiments.search_space import DIMENSIONS, Range, SearchSpace, value_of
from catuvac.io import expand_home

if TYPE_CHECKING:
    from catuvac.experiments.search import Search


SEARCHING = ("tpe", "qmc", "random", "grid")  # samplers that use the ranges


@dataclass(kw_only=True)
class TauSweep(StudyFlags):
    """Search the temperature schedule, β and the latent dimension on one corpus."""

    optuna_storage: str = ""
    """URL of a database for Optuna, such as postgresql+psycopg://host/optuna; default: $CATUVAC_OPTUNA_STORAGE, the
    place for a URL with a password, else a journal file in the study's folder"""
    resume: bool = False
    """continue the study --name with the flags that it was started with, or extend it: more trials, another arm,
    wider ranges or more seeds are added to the study, and nothing that is finished runs again"""
    warm_start: Path | None = None
    """results folder of an older study; the tpe arm learns from its complete trials, which do not become trials of
    this study"""
    trials: int | None = None
    """number of settings to try; default: the preset's"""
    tau_start: tuple[float, float] | None = None
    """lowest and highest temperature at the first step; default: the preset's, else 0.5 to 5"""
    tau_ratio: tuple[float, float] | None = None
    """lowest and highest tau_end / tau_start, at most 1; default: the preset's, else 0.05 to 1"""
    beta: tuple[float, float] | None = None
    """lowest and highest weight of the KL term; default: the preset's, else 0.01 to 1"""
    latent_dim: tuple[int, int] | None = None
    """lowest and highest dimension of z; default: the preset's, else 1 to 16"""
    n_clusters: tuple[int, ...] | None = None
    """K; or its lowest and highest value, to search it as well; default: the preset's"""
    y_estimator: tuple[Estimator, ...] | None = None
    """how the gradient reaches q(y|x): gumbel, straight_through, or exact, which has no temperature; or several of
    them, to search them as well; default: the preset's"""
    invariance: tuple[float, ...] | None = None
    """weight of the balanced invariance term, added to the ELBO; or its lowest and highest value, to search it as well;
    default: the preset's"""
    channels: tuple[int, ...] | None = None
    """channels of the first convolution, which determine the widths of the networks; or the lowest and highest number,
    to search it as well; default: the preset's"""
    gru_size: tuple[int, ...] | None = None
    """hidden size of each recurrent layer; or its lowest and highest value, to search it as well; default: the
    preset's"""
    seed: int = 0
    """seed of the sampler; trial i trains with seed + i, as do all trials of block i of a factorial"""
    sampler: str | None = None
    """tpe, random, qmc or grid, instead of the preset's arms; temperature curves are unbiased only with the last three;
    default with --trials: tpe"""
    arms: str = ""
    """several samplers one after the other, instead of --sampler and --trials: qmc:16,tpe:48, or a full grid of named
    levels such as factorial:tau_start=0.5/2+tau_ratio=0.1/1+beta=0.01/0.1, which --seeds repeats; default: the
    preset's, unless --sampler or --trials is given"""
    paper: int | None = None
    """number of trainings with the paper's protocol (random start, no added term), each with its own seed; they run
    before the search's trials and are not part of its curves; default: the preset's"""
    seeds: int | None = None
    """factorial: number of blocks, in each of which every setting is trained once; blocks differ in weights, order of
    the clips and split (split_seed + block); an official split is the same in all; default: the preset's, else 3"""
    primary: Literal["tau_start", "tau_ratio"] = "tau_ratio"
    """factor whose effect is the primary question, fixed before the first trial: τ_start, or τ_end / τ_start"""
    margin: float = 0.03
    """AMI below which an effect does not matter; fixed before the first trial"""
    scheduler: str = "fifo"
    """fifo, or asha or median, which stop poor trials early; stopped trials are left out of temperature curves"""
    objectives: tuple[str, ...] = ()
    """label-free scores to maximise: one, or several for a multi-objective search, ranked by the first,
    such as invariant_information macs; default: the preset's"""
    gpus_per_trial: float | Literal["auto"] = 0.0
    """share of a GPU: 0.25 packs four trials on each; auto: as many as fit into its memory, none without a GPU;
    a trial that runs out of GPU memory continues with twice its share"""

    def run(self) -> None:
        began = time.monotonic()
        study = self._study()

        # Ray and torch take seconds to import; --help and errors in flags should not wait for them.
        from catuvac.experiments import warm_start
        from catuvac.experiments.base import duration
        from catuvac.tune import driver, gpu_sharing, preflight, storage

        driver.check_folder(study, resume=self.resume)
        study = driver.continued(study) if self.resume else study
        print(f"study      {study.folder}{f', trials in {study.remote}' if study.remote else ''}")
        prepared = options.prepare(
            study.config, data_root=self.data_root, cache_dir=self.cache_dir, splits=study.splits()
        )
        for line in study.summary():
            print(line)
        if study.warm_start is not None and not self.resume:
            print(f"warm start {warm_start.read(study)}")
        sys.stdout.flush()
        driver.connect()
        if self.gpus_per_trial == "auto":
            share, line = gpu_sharing.choose(study, prepared)
            study = replace(study, gpus_per_trial=share)
            print(line, flush=True)
        largest = study.largest()
        for line in preflight.preflight(study, config=largest, features=prepared, estimate=self.dry_run):
            print(line, flush=True)
        if self.dry_run:
            model = largest.model
            if (model.n_clusters, model.y_estimator) != (study.config.model.n_clusters, study.config.model.y_estimator):
                print(f"           timed at K = {model.n_clusters} with {model.y_estimator}; others may take less time")
            for line in power(study):
                print(line)
            return
        driver.run_study(study, prepared, resume=self.resume)
        summary = driver.finish(study)
        print(summary)
        if self.report:
            from analysis import report

            report.build(study.folder, command=shlex.join(["python", *sys.argv]), figures="none")
        storage.push(study)
        print(f"wall time  {duration(time.monotonic() - began)}")
        print(f"watch      catuvac watch {study.folder}")
        print(f"report     {'' if self.report else 'catuvac report '}{study.folder}{'/report.html' * self.report}")

    def _study(self) -> Search:
        from catuvac.experiments.search import Arm, Search

        chosen = self.chosen()
        given = {name: getattr(self, name, None) for name in DIMENSIONS}
        given = {name: value for name, value in given.items() if value is not None}
        if () in given.values():
            raise ConfigError("give every flag of a searched setting at least one value")
        ranges = {name: value for name, value in given.items() if isinstance(value, tuple) and len(value) > 1}
        fixed = {name: value[0] if isinstance(value, tuple) else value for name, value in given.items()}
        config = self.config(chosen).with_settings({name: fixed[name] for name in fixed if name not in ranges})
        # A dimension that a flag sets to one value is not searched, even if the preset searches it.
        searched = {name: ends for name, ends in chosen.get("search", {}).items() if name not in fixed}
        trials = chosen["trials"] if self.trials is None else self.trials
        designed = chosen.get("arms", "") if self.trials is None and self.sampler is None else ""
        seeds = chosen.get("seeds", 3) if self.seeds is None else self.seeds
        arms = (self.arms or designed or f"{self.sampler or 'tpe'}:{trials}").split(",")
        for flag in ("trials", "sampler"):
            if self.arms and getattr(self, flag) is not None:
                raise ConfigError(f"--arms {self.arms} names samplers and their numbers of trials; leave out --{flag}")
        count = chosen.get("paper", 0) if self.paper is None else self.paper
        paper = (Arm("paper", count),) if count else ()
        study = Search(
            name=self.name or f"{Path(self.preset).stem}-{datetime.now():%Y%m%d-%H%M%S}",
            config=config,
            space=SearchSpace(searched | ranges),
            arms=(*paper, *(Arm.parse(arm, seeds=seeds) for arm in arms)),
            primary=self.primary,
            margin=self.margin,
            objectives=self.objectives or tuple(chosen["objectives"]),
            scheduler=self.scheduler,  # type: ignore[arg-type]
            seed=self.seed,
            warm_start=self.warm_start and options.absolute(self.warm_start, "--warm-start"),
            optuna_url=options.database(self.optuna_storage),
            gpus_per_trial=0.0 if self.gpus_per_trial == "auto" else self.gpus_per_trial,  # chosen on the cluster
            keep_top=self.keep_top,
            **self.resources(),
        )
        if not self.resume:  # it needs the flags of the start, even those that an earlier version has ignored
            self._check_used(study, searched, ranges)
        return study

    def _check_used(self, study: Search, searched: Mapping[str, Range], ranges: Mapping[str, Range]) -> None:
        """Raises `ConfigError` for a flag that no arm uses; a factorial uses a range that admits one of its levels."""
        samplers = {arm.sampler for arm in study.arms}
        before = SearchSpace(searched).ranges
        used = {
            name
            for arm in study.arms
            for name, levels in arm.levels
            if name in before and not all(DIMENSIONS[name].contains(before[name], level) for level in levels)
        }
        if samplers.isdisjoint(SEARCHING) and (unused := [name for name in ranges if name not in used]):
            flag = f"--{unused[0].replace('_', '-')}"
            raise ConfigError(f"{flag} is a range, and no arm searches: give an arm of {', '.join(SEARCHING)}")
        if self.seeds is not None and "factorial" not in samplers:
            raise ConfigError("--seeds repeats a factorial, and the study has none: leave it out")
        if self.warm_start is not None and "tpe" not in samplers:
            raise ConfigError("--warm-start teaches the tpe arm, and the study has none: leave it out")


def power(study: Search) -> list[str]:
    """Describes the effects that the designed trials can detect, in one line per K."""
    from analysis.questions.effects import CELL_SD, SEED_SD, planned
    from analysis.trials import DESIGNED

    base = {name: value_of(name, study.config.flat()) for name in DIMENSIONS}
    points = [{**base, **point} for arm, point in study.slots() if arm in DESIGNED]
    points = [point for point in points if point["y_estimator"] != "exact"]  # it has no temperature
    lines, poor = [], []
    for k in sorted({point["n_clusters"] for point in points}) or [study.config.model.n_clusters]:
        designed = [point for point in points if point["n_clusters"] == k]
        plan = planned(designed, factor=study.primary, margin=study.margin) if designed else None
        if plan is None:
            poor.append((k, len(designed)))
            continue
        decides = plan.half < study.margin
        more = "" if decides else f"; that takes about {(plan.half / study.margin) ** 2:.1f} times as many {plan.unit}"
        lines.append(
            f"power      K = {k}: {len(designed)} designed trials detect an effect of "
            f"{study.primary} of {plan.detectable:.3f} AMI in 80 % of cases (95 % interval ± {plan.half:.3f}); they "
            f"{'can' if decides else 'cannot'} show that one is within the margin of {study.margin:g}{more}. "
            f"Assumed: sd {CELL_SD:g} between settings, {SEED_SD:g} between seeds"
        )
    if poor:
        counts = ", ".join(f"K = {k}: {count}" for k, count in poor)
        lines.append(
            f"power      these designed trials cannot identify the effect of {study.primary} ({counts}): add an arm "
            "such as qmc:24, or a factorial with more levels"
        )
    return lines


if __name__ == "__main__":
    sys.exit(guarded(lambda: tyro.cli(TauSweep, args=expand_home(sys.argv[1:]), description=__doc__).run()))
