"""The design of a search: ranges, arms, and the points of trials that are fixed beforehand. Does not use Ray.

Optuna places the trials of the `tpe` arm as results arrive. The trials of the other arms are fixed before the first one
starts: they are independent of all results, so temperature curves may be estimated from them (design, section 5). The
`paper` arm does not search: it trains with the paper's protocol, as a reference for the study's own settings.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
from scipy.stats import qmc

from catuvac.config import PAPER_METHOD, PAPER_PROTOCOL, Config, ConfigError, SplitConfig
from catuvac.evaluation.objectives import DEFAULT_OBJECTIVE
from catuvac.experiments.base import Experiment, columns, recorded_stages
from catuvac.experiments.search_space import (
    DIMENSIONS,
    FACTORS,
    Choice,
    Point,
    Range,
    SearchSpace,
    settings_at,
    value_of,
)

# factorial: given levels of some settings, all combinations on every seed block; paper: only the seed differs.
Sampler = Literal["tpe", "random", "qmc", "grid", "factorial", "paper"]
FULL = ("grid", "factorial")  # arms that are sets of points; the others have a number of trials
PRIMARY_FACTOR = "tau_ratio"
MARGIN = 0.03  # in AMI: a smaller effect does not matter
Scheduler = Literal["fifo", "asha", "median"]


@dataclass(frozen=True)
class Arm:
    """A number of trials that one sampler places."""

    sampler: Sampler
    trials: int
    levels: tuple[tuple[str, Range], ...] = ()  # factorial: the levels of each varied setting
    seeds: int = 1  # factorial: number of blocks, each of which trains every combination once

    @classmethod
    def parse(cls, text: str, *, seeds: int = 1) -> Self:
        """Parses "qmc:16" or "factorial:tau_start=0.5/2+tau_ratio=0.1/1", which is repeated in `seeds` blocks.

        Raises:
            ConfigError: another format, an unknown sampler, setting or level, or fewer than one trial.
        """
        sampler, _, trials = text.partition(":")
        known = get_args(Sampler)
        if sampler not in known:
            raise ConfigError(f"sampler must be one of {', '.join(known)}; got {sampler!r}")
        if sampler == "factorial":
            levels = tuple(_levels_of(factor) for factor in trials.split("+"))
            names = [name for name, _ in levels]
            if len(set(names)) < len(names):
                raise ConfigError(f"factorial names a setting twice: {', '.join(names)}")
            if seeds < 1:
                raise ConfigError(f"seeds must be at least 1, got {seeds}")
            return cls("factorial", math.prod(len(values) for _, values in levels) * seeds, levels, seeds)
        if not trials.isascii() or not trials.isdigit():
            raise ConfigError(f"an arm is SAMPLER:TRIALS, such as qmc:16; got {text!r}")
        return cls(sampler, int(trials))  # type: ignore[arg-type]

    @classmethod
    def read(cls, text: str) -> Self:
        """Parses the `str` of an arm."""
        arm, _, seeds = text.partition(", ")
        return cls.parse(arm, seeds=int(seeds.removesuffix(" seeds") or 1))

    def __str__(self) -> str:
        if self.sampler != "factorial":
            return f"{self.sampler}:{self.trials}"
        factors = "+".join(f"{name}={'/'.join(map(str, values))}" for name, values in self.levels)
        return f"factorial:{factors}, {self.seeds} seeds"

    def settings(self) -> list[Point]:
        """Returns the combinations of a factorial, each with only the settings that it varies."""
        names = [name for name, _ in self.levels]
        products = itertools.product(*(values for _, values in self.levels))
        return [dict(zip(names, values, strict=True)) for values in products]


@dataclass(frozen=True)
class Stage:
    """All arms and ranges of a study at its start or after an extension, not only those that were added."""

    arms: tuple[Arm, ...]
    space: SearchSpace

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Self:
        """Parses the result of `record`."""
        return cls(tuple(Arm.read(arm) for arm in record["arms"]), SearchSpace(record["space"]))

    def record(self) -> dict[str, Any]:
        """Returns plain values for study.json."""
        return {
            "space": {name: list(ends) for name, ends in self.space.ranges.items()},
            "arms": [str(arm) for arm in self.arms],
        }

    def counts(self) -> dict[str, int]:
        """Returns the number of trials by sampler, for arms that are not sets of points."""
        return {arm.sampler: arm.trials for arm in self.arms if arm.sampler not in FULL}

    def named(self) -> set[str]:
        """Returns the dimensions that a factorial varies."""
        return {name for arm in self.arms for name, _ in arm.levels}


@dataclass(frozen=True, kw_only=True)
class Search(Experiment):
    """A search: its space, its data and its resources."""

    growing: ClassVar[tuple[str, ...]] = ("arms", "space", "trials")

    config: Config  # the settings that are not searched
    arms: tuple[Arm, ...]  # run in sequence: tpe learns from the arms before it
    space: SearchSpace = field(default_factory=SearchSpace)
    earlier: tuple[Stage, ...] = ()  # of an extended study: its earlier stages, the start first
    objectives: tuple[str, ...] = (DEFAULT_OBJECTIVE,)
    primary: str = PRIMARY_FACTOR  # one of FACTORS: the contrast that the study is designed for
    margin: float = MARGIN  # a smaller effect does not matter; fixed before the first trial
    scheduler: Scheduler = "fifo"  # asha and median stop trials early, before they reach tau_end
    seed: int = 0
    warm_start: Path | None = None  # absolute; results of another study whose complete trials tpe learns from
    optuna_url: str = ""  # Optuna storage; "": a journal file in the study's folder

    def __post_init__(self) -> None:
        super().__post_init__()
        known = get_args(Scheduler)
        names = [arm.sampler for arm in self.arms if arm.sampler != "factorial"]
        self._check(
            {
                "give at least one arm": self.arms != (),
                f"trials must be at least 1, got {min((arm.trials for arm in self.arms), default=0)}": all(
                    arm.trials >= 1 for arm in self.arms
                ),
                f"an arm is named twice: {', '.join(names)}": len(set(names)) == len(names),
                f"primary must be one of {', '.join(FACTORS)}; got {self.primary!r}": self.primary in FACTORS,
                f"margin must be positive, got {self.margin}": self.margin > 0,
                "give at least one objective": len(self.objectives) > 0,
                "macs ranks sizes and no clusters: name another objective before it": self.objectives[:1] != ("macs",),
                f"seed must not be negative, got {self.seed}": self.seed >= 0,
                f"scheduler must be one of {', '.join(known)}; got {self.scheduler!r}": self.scheduler in known,
            }
        )
        self.largest()  # rejects too many clusters for a batch, and a grid that cannot be filled

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The start, the earlier extensions and the current state of the study."""
        return (*self.earlier, Stage(self.arms, self.space))

    @property
    def trials(self) -> int:
        """The number of trials of all arms."""
        return len(self._slots)

    @property
    def epochs(self) -> int:
        """The total number of epochs of all trials."""
        return self.trials * self.config.training.epochs

    def trained_epochs(self, at_once: int) -> int:
        """Returns how many of these epochs are trained if `at_once` trials begin together."""
        taken = sum(max(0, count - at_once) for count in self._starts.values())
        return self.epochs - self.config.training.start_epochs * taken

    @property
    def shared_states(self) -> int:
        """The number of starts that are stored for several trials."""
        return len(self._starts)

    @cached_property
    def _starts(self) -> Counter[str]:
        """The number of trials with each start that several trials may share."""
        return Counter(self.trial_config(point).start_hash() for _, point in self._slots if self.shares_start(point))

    @property
    def optuna_name(self) -> str:
        """The name per corpus, K and study: Optuna would silently merge two studies of the same name."""
        return f"{self.config.corpus.corpus}-k{self.config.model.n_clusters}-{self.name}"

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the objectives in a report."""
        return tuple(f"val/objective_{name}" for name in self.objectives)

    @cached_property
    def _slots(self) -> list[tuple[str, Point]]:
        slots: list[tuple[str, Point]] = []
        for stage in self.stages:
            for arm in stage.arms:
                slots += self._added(arm, stage.space, [point for name, point in slots if name == arm.sampler])
        return slots

    def slots(self) -> list[tuple[str, Point]]:
        """Returns every trial in order: its arm, and its point if that is fixed beforehand, else {}.

        Trials that an extension adds come after all earlier trials.
        """
        return list(self._slots)

    def _added(self, arm: Arm, space: SearchSpace, before: Sequence[Point]) -> list[tuple[str, Point]]:
        """Returns the slots of an arm that the study does not have yet."""
        points = self._points(arm, space)
        if arm.sampler not in FULL:
            points = points[len(before) :]
        elif before:
            known = set(map(self._key, before))
            points = [point for point in points if self._key(point) not in known]
        return [(arm.sampler, point) for point in points]

    def _key(self, point: Mapping[str, Any]) -> tuple[str, int]:
        """Returns a key that is equal for equal settings on the same block, whichever dimensions the points have."""
        return self.config.with_settings(settings_at(point)).hash(), point.get("block", 0)

    def _points(self, arm: Arm, space: SearchSpace) -> list[Point]:
        match arm.sampler:
            case "tpe" | "paper":
                return [{}] * arm.trials
            case "factorial":
                return self._factorial(arm, space)
            case "grid":
                return space.grid(arm.trials)
            case "qmc":
                # Draws a power of two and keeps the first ones: Sobol's balance holds for powers of two.
                sobol = qmc.Sobol(len(space.ranges), scramble=True, rng=np.random.default_rng(self.seed))
                units = sobol.random_base2(math.ceil(math.log2(arm.trials)))[: arm.trials]
            case "random":
                units = np.random.default_rng(self.seed).random((arm.trials, len(space.ranges)))
        return [space.at(unit.tolist()) for unit in units]

    def _factorial(self, arm: Arm, space: SearchSpace) -> list[Point]:
        """Returns points block by block, so that a stopped study has whole blocks; other settings are the config's."""
        flat = self.config.flat()
        base = {name: value_of(name, flat) for name in space.ranges}
        points = [{**base, **levels} for levels in arm.settings()]
        for point in points:
            for name, value in point.items():
                space.check(name, value)
        return [{**point, "block": block} for block in range(arm.seeds) for point in points]

    def read_stages(self, record: Mapping[str, Any]) -> list[Any]:
        """Returns the stages in `study.json`; only the start if an earlier version wrote it."""
        return [Stage.read(stage) for stage in recorded_stages(record)]

    def compared(self, recorded: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns a recorded design and this one's, without what may be extended."""
        old, new = super().compared(recorded)
        if not any(str(arm).startswith("factorial") for arm in old["arms"]):
            new.pop("blocks", None)  # there are no earlier blocks whose splits could differ
        elif "blocks" in new:
            old.setdefault("blocks", "weights and order")  # as in an earlier version
        for name in self.growing:
            old.pop(name, None)
            new.pop(name, None)
        return old, new

    def continuing(self, stages: Sequence[Stage]) -> Self:
        """Returns this study as a continuation of recorded stages: equal to the last of them, or an extension of it.

        Raises:
            ConfigError: an arm has fewer trials than before or is left out, or a range is narrower.
        """
        before = stages[-1]
        if Stage(self.arms, self.space) == before:
            return replace(self, earlier=tuple(stages[:-1]))
        if narrowed := self.space.narrowed(before.space):
            raise ConfigError(f"search range {narrowed}")
        for name, dimension in DIMENSIONS.items():
            if not isinstance(dimension, Choice) or name not in before.named() or name in before.space.ranges:
                continue
            if not dimension.covers(self.space.ranges.get(name, dimension.known), dimension.known):
                raise ConfigError(f"a factorial of the study names {name}, and {dimension.growth}")
        now = Stage(self.arms, self.space).counts()
        for sampler, trials in before.counts().items():
            if now.get(sampler, 0) < trials:
                raise ConfigError(f"the study has {sampler}:{trials}: give the arm again, with as many trials or more")
        for arm in before.arms:
            if arm.sampler == "grid" and all(other.sampler != "grid" for other in self.arms):
                raise ConfigError(f"the study has {arm}: give the arm again")
            if arm.sampler == "factorial":
                kept = {self._key(p) for a in self.arms if a.levels for p in self._factorial(a, self.space)}
                if any(self._key(point) not in kept for point in self._factorial(arm, before.space)):
                    raise ConfigError(f"the study has {arm}: give its levels and seeds again, or more of them")
        return replace(self, earlier=tuple(stages))

    def values(self, name: str) -> list[Any]:
        """Returns values of a dimension that trials may take, including the largest."""
        designed = [point[name] for _, point in self._slots if name in point]
        return [value_of(name, self.config.flat()), *self.space.ranges.get(name, ()), *designed]

    def largest(self) -> Config:
        """Returns the settings that need the most memory and time, as far as the search determines them."""
        sizes = {
            name: max(self.values(name)) for name in ("latent_dim", "n_clusters", "invariance", "channels", "gru_size")
        }
        exact = {"y_estimator": "exact"} if "exact" in self.values("y_estimator") else {}
        return self.config.with_settings({**sizes, **exact})

    def splits(self) -> list[SplitConfig]:
        """Returns the splits that trials train on: the config's, and those of further seed blocks."""
        blocks = {point["block"] for _, point in self._slots if "block" in point}
        return list(dict.fromkeys([self.config.split, *(self._split(block) for block in sorted(blocks))]))

    @property
    def blocks_vary(self) -> str:
        """What differs between the seed blocks of a factorial; an official split never changes."""
        return "weights and order" if self.config.split.split == "official" else "weights, order and split"

    def _split(self, block: int) -> SplitConfig:
        split = self.config.split
        return split if split.split == "official" else replace(split, split_seed=split.split_seed + block)

    def design(self) -> dict[str, Any]:
        """Returns the definition of the study as plain values, without resources.

        `growing` may be extended; nothing else may change when the study is resumed.
        """
        factorial = any(arm.sampler == "factorial" for arm in self.arms)
        return {
            "config": self.config.flat(),
            **self.stages[-1].record(),
            "trials": self.trials,
            "objectives": list(self.objectives),
            "primary": self.primary,
            "margin": self.margin,
            "scheduler": self.scheduler,
            "seed": self.seed,
            **({"blocks": self.blocks_vary} if factorial else {}),
            **({"warm_start": str(self.warm_start)} if self.warm_start else {}),
        }

    def identify(self, point: Mapping[str, Any], trial_id: str) -> dict[str, Any]:
        """Returns the columns of a trial's row that do not depend on its outcome."""
        config = self.trial_config(point)
        return {
            "trial_id": trial_id,
            "number": point["number"],
            "method": PAPER_METHOD if point["arm"] == "paper" else config.model.method,
            "arm": point["arm"],
            **columns(config),
        }

    def describe(self, point: Mapping[str, Any]) -> str:
        """Returns a short description of a trial's settings."""
        training, model = (config := self.trial_config(point)).training, config.model
        words = (
            f"{point['number']:>3}  τ {training.tau_start:.2f}→{training.tau_end:.2f} {training.tau_schedule}, "
            f"β {model.beta:.3g}, d {model.latent_dim}"
        )
        optional = [name for name, dimension in DIMENSIONS.items() if dimension.default is None and name in point]
        return words + "".join(f", {name} {point[name]}" for name in optional)

    def summary(self) -> list[str]:
        """Returns lines to print that describe the search: arms, additional dimensions, blocks and extension."""
        arms, ranks = " then ".join(map(str, self.arms)), " and ".join(self.objectives)
        lines = [f"search     {arms}, {self.config.training.epochs} epochs each, {self.scheduler}, by {ranks}"]
        optional = [name for name in self.space.ranges if DIMENSIONS[name].default is None]
        if optional:
            ranges = (f"{name} {'/'.join(map(str, self.space.ranges[name]))}" for name in optional)
            lines.append(f"ranges     also searched: {', '.join(ranges)}")
        blocks = {point["block"] for _, point in self._slots if "block" in point}
        if blocks:
            seeds = [split.split_seed for split in self.splits()]
            split = "the corpus's own split in all" if len(seeds) == 1 else f"split seeds {seeds[0]} to {seeds[-1]}"
            lines.append(f"blocks     {len(blocks)}, which differ in {self.blocks_vary}: {split}")
        if self.earlier:
            *earlier, last = self.earlier
            count = replace(self, arms=last.arms, space=last.space, earlier=tuple(earlier)).trials
            lines.append(f"extension  {self.trials - count} trials follow the {count} that the study had before")
        return lines

    def objective(self, report: Mapping[str, Any]) -> float | None:
        """Returns the value that ranks the trials."""
        return float(report[self.metrics[0]])

    def shares_start(self, point: Mapping[str, Any]) -> bool:
        """Returns whether the trial is of a factorial, whose settings share the start of their block."""
        return "block" in point

    def trial_config(self, point: Mapping[str, Any]) -> Config:
        """Returns the settings of one trial, from its point and its number.

        Each trial has its own seed, the study's plus its number: seeds matter as much as most settings, and a search
        with a single seed would overfit to it. All settings of a factorial's block share the block's seed and split,
        so they can be compared block by block.
        """
        seed = self.seed + (point["block"] if "block" in point else point["number"])
        if point.get("arm") == "paper":
            return self.config.with_settings({**PAPER_PROTOCOL, "seed": seed})
        split = self._split(point.get("block", 0))
        return self.config.with_settings({**settings_at(point), "seed": seed, "split_seed": split.split_seed})


def _levels_of(text: str) -> tuple[str, Range]:
    """Parses a factor such as "tau_start=0.5/2"; raises `ConfigError` for another format or an invalid level."""
    name, _, values = text.partition("=")
    if name not in DIMENSIONS or not values:
        raise ConfigError(
            f"a factor is SETTING=LEVEL/LEVEL/…, such as tau_start=0.5/2, of {', '.join(DIMENSIONS)}; got {text!r}"
        )
    levels = DIMENSIONS[name].parse(values)
    if len(set(levels)) < len(levels):
        raise ConfigError(f"a level of {name} is named twice: {values}")
    return name, levels
