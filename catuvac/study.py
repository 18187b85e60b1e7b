"""What a search tries: ranges, arms, and the point of every trial that is designed beforehand. No Ray.

Optuna places the trials of the `tpe` arm as results come in. Those of the others are fixed before the first one starts:
they are independent of every result, so temperature curves may be estimated on them (design, section 5). The `paper`
arm searches nothing: it trains by the paper's protocol, beside which a study's own settings can be read.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
from scipy.stats import qmc

from catuvac.config import PAPER_METHOD, PAPER_PROTOCOL, Config, ConfigError, Shape, unknown
from catuvac.objective import DEFAULT_OBJECTIVE, OBJECTIVES
from catuvac.plan import Plan, columns

if TYPE_CHECKING:
    import optuna

# factorial: named levels of some settings, each setting on every seed block; paper: nothing but the seed differs.
Sampler = Literal["tpe", "random", "qmc", "grid", "factorial", "paper"]
FACTORS = ("tau_start", "tau_ratio")  # the temperatures that a study asks about; the design makes them orthogonal
PRIMARY_FACTOR = "tau_ratio"
MARGIN = 0.03  # of AMI: an effect smaller than this does not matter
Scheduler = Literal["fifo", "asha", "median"]
Point = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """Ranges, ends included. tau_end is searched as tau_start × tau_ratio, so it never exceeds tau_start."""

    tau_start: tuple[float, float] = (0.5, 5.0)  # logarithmic
    tau_ratio: tuple[float, float] = (0.05, 1.0)  # tau_end / tau_start, logarithmic
    tau_schedule: tuple[Shape, ...] = ("exponential", "linear", "cosine")
    beta: tuple[float, float] = (0.01, 1.0)  # logarithmic
    latent_dim: tuple[int, int] = (1, 16)  # logarithmic

    def __post_init__(self) -> None:
        for name in ("tau_start", "tau_ratio", "beta", "latent_dim"):
            ends = getattr(self, name)
            if len(ends) != 2 or not 0 < ends[0] <= ends[1]:
                raise ConfigError(f"search range {name} must be two numbers, 0 < low <= high; got {list(ends)}")
        if self.tau_ratio[1] > 1:
            raise ConfigError(
                f"search range tau_ratio, tau_end / tau_start, must end at 1 or below, got {self.tau_ratio[1]}"
            )
        known = ("exponential", "linear", "cosine")
        if not self.tau_schedule or not set(self.tau_schedule) <= set(known):
            raise ConfigError(f"tau_schedule must be some of {', '.join(known)}; got {', '.join(self.tau_schedule)}")

    @classmethod
    def from_dict(cls, ranges: Mapping[str, Any]) -> Self:
        """Takes ranges as YAML lists; raises `ConfigError` for an unknown name or a bad range."""
        names = [field.name for field in fields(cls)]
        for name in ranges:
            if name not in names:
                raise ConfigError(unknown("search range", name, names))
        return cls(**{name: tuple(ends) for name, ends in ranges.items()})

    def suggest(self, trial: optuna.Trial) -> Point:
        """Asks Optuna for one point, of which an enqueued trial fixes some or all coordinates."""
        return {
            "tau_start": trial.suggest_float("tau_start", *self.tau_start, log=True),
            "tau_ratio": trial.suggest_float("tau_ratio", *self.tau_ratio, log=True),
            "tau_schedule": trial.suggest_categorical("tau_schedule", self.tau_schedule),
            "beta": trial.suggest_float("beta", *self.beta, log=True),
            "latent_dim": trial.suggest_int("latent_dim", *self.latent_dim, log=True),
        }

    def at(self, unit: Sequence[float]) -> Point:
        """The point at `[5]` coordinates in [0, 1], in the order of the fields."""
        tau_start, tau_ratio, schedule, beta, latent_dim = unit
        shapes, (low, high) = self.tau_schedule, self.latent_dim
        return {
            "tau_start": _between(*self.tau_start, tau_start),
            "tau_ratio": _between(*self.tau_ratio, tau_ratio),
            "tau_schedule": shapes[min(int(schedule * len(shapes)), len(shapes) - 1)],
            "beta": _between(*self.beta, beta),
            # Half a step beyond both ends, as Optuna does: else the ends come half as often as their neighbours.
            "latent_dim": min(high, max(low, round(_between(low - 0.5, high + 0.5, latent_dim)))),
        }

    def grid(self, trials: int) -> list[Point]:
        """The full grid of `trials` points: as many levels of every range as of the others, or one more.

        A range whose ends are equal has one level, and the schedule one a shape.

        Raises:
            ConfigError: no such grid has that many points; names the nearest two.
        """
        names = ("tau_start", "tau_ratio", "beta", "latent_dim")
        free = {name: 1 for name in names if len(set(getattr(self, name))) > 1}
        smaller = 0
        while (size := math.prod(free.values()) * len(self.tau_schedule)) < trials and free:
            smaller = size
            free[min(free, key=lambda name: free[name])] += 1
        if size != trials:
            raise ConfigError(
                f"grid:{trials} is not a full grid of {', '.join(free) or 'no range'} × {len(self.tau_schedule)} "
                f"schedules; use grid:{size}" + (f" or grid:{smaller}" if smaller else "")
            )
        shapes = [(i + 0.5) / len(self.tau_schedule) for i in range(len(self.tau_schedule))]
        axes = [
            shapes if name == "tau_schedule" else _levels(free.get(name, 1))
            for name in (field.name for field in fields(self))
        ]
        return [self.at(unit) for unit in itertools.product(*axes)]


@dataclass(frozen=True)
class Arm:
    """So many trials placed by one sampler."""

    sampler: Sampler
    trials: int
    levels: tuple[tuple[str, tuple[Any, ...]], ...] = ()  # factorial: of each setting that varies
    seeds: int = 1  # factorial: blocks, each of which trains every setting once

    @classmethod
    def parse(cls, text: str, *, seeds: int = 1) -> Self:
        """Takes "qmc:16" or "factorial:tau_start=0.5/2+tau_ratio=0.1/1", which `seeds` blocks repeat.

        Raises:
            ConfigError: another form, an unknown sampler, setting or level, or less than one trial.
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

    def __str__(self) -> str:
        if self.sampler != "factorial":
            return f"{self.sampler}:{self.trials}"
        factors = "+".join(f"{name}={'/'.join(map(str, values))}" for name, values in self.levels)
        return f"factorial:{factors}, {self.seeds} seeds"

    def settings(self) -> list[Point]:
        """A factorial's settings, each with its named levels alone."""
        names = [name for name, _ in self.levels]
        products = itertools.product(*(values for _, values in self.levels))
        return [dict(zip(names, values, strict=True)) for values in products]


@dataclass(frozen=True, kw_only=True)
class Study(Plan):
    """What to search, on what, and with which resources."""

    config: Config  # the settings that the search does not touch
    arms: tuple[Arm, ...]  # run one after the other: tpe learns from the arms before it
    space: SearchSpace = field(default_factory=SearchSpace)
    objectives: tuple[str, ...] = (DEFAULT_OBJECTIVE,)  # keys of catuvac.objective.OBJECTIVES; the first one ranks
    primary: str = PRIMARY_FACTOR  # one of FACTORS: the contrast that the study was made for
    margin: float = MARGIN  # an effect smaller than this does not matter; fixed before the first trial
    scheduler: Scheduler = "fifo"  # asha and median stop trials early: those never reach tau_end
    seed: int = 0
    optuna_url: str = ""  # Optuna's storage; "": a journal file in the study's folder

    def __post_init__(self) -> None:
        super().__post_init__()
        known = get_args(Scheduler)
        names = [arm.sampler for arm in self.arms]
        self._check(
            {
                "give at least one arm": names != [],
                f"trials must be at least 1, got {self.trials}": all(arm.trials >= 1 for arm in self.arms),
                f"an arm is named twice: {', '.join(names)}": len(set(names)) == len(names),
                f"primary must be one of {', '.join(FACTORS)}; got {self.primary!r}": self.primary in FACTORS,
                f"margin must be positive, got {self.margin}": self.margin > 0,
                "give at least one objective": len(self.objectives) > 0,
                f"scheduler must be one of {', '.join(known)}; got {self.scheduler!r}": self.scheduler in known,
            }
        )
        for name in self.objectives:
            if name not in OBJECTIVES:
                raise ConfigError(unknown("objective", name, OBJECTIVES))
        self.slots()  # a grid that cannot be filled is refused here

    @property
    def trials(self) -> int:
        """Of all arms together."""
        return sum(arm.trials for arm in self.arms)

    @property
    def epochs(self) -> int:
        """Of all trials together."""
        return self.trials * self.config.training.epochs

    @property
    def optuna_name(self) -> str:
        """One name per corpus, K and study: Optuna would silently merge two studies of one name."""
        return f"{self.config.corpus.corpus}-k{self.config.model.n_clusters}-{self.name}"

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the objectives in a report."""
        return tuple(f"val/objective_{name}" for name in self.objectives)

    def slots(self) -> list[tuple[str, Point]]:
        """Every trial in order: its arm, and its point where that is designed beforehand, else {}."""
        return [(arm.sampler, point) for arm in self.arms for point in self._points(arm)]

    def _points(self, arm: Arm) -> list[Point]:
        match arm.sampler:
            case "tpe" | "paper":
                return [{}] * arm.trials
            case "factorial":
                return self._factorial(arm)
            case "grid":
                return self.space.grid(arm.trials)
            case "qmc":
                # Drawn as a whole power of two, of which the first ones are taken: Sobol's balance holds for those.
                sobol = qmc.Sobol(len(fields(SearchSpace)), scramble=True, rng=np.random.default_rng(self.seed))
                units = sobol.random_base2(math.ceil(math.log2(arm.trials)))[: arm.trials]
            case "random":
                units = np.random.default_rng(self.seed).random((arm.trials, len(fields(SearchSpace))))
        return [self.space.at(unit.tolist()) for unit in units]

    def _factorial(self, arm: Arm) -> list[Point]:
        """Block by block, so that a study that is cut short has whole blocks; what is not named is the config's."""
        training, model = self.config.training, self.config.model
        base: Point = {
            "tau_start": training.tau_start,
            "tau_ratio": training.tau_end / training.tau_start,
            "tau_schedule": training.tau_schedule,
            "beta": model.beta,
            "latent_dim": model.latent_dim,
        }
        points = [{**base, **levels} for levels in arm.settings()]
        for name in base:
            ends = getattr(self.space, name)
            for value in {point[name] for point in points}:
                inside = value in ends if name == "tau_schedule" else ends[0] <= value <= ends[1]
                if not inside:
                    raise ConfigError(
                        f"the factorial's {name} {value} lies outside of its search range {', '.join(map(str, ends))}; "
                        "widen the range"
                    )
        return [{**point, "block": block} for block in range(arm.seeds) for point in points]

    def design(self) -> dict[str, Any]:
        """What must not change when the study is resumed, as plain values; resources may."""
        return {
            "config": self.config.flat(),
            "space": {name: list(ends) for name, ends in asdict(self.space).items()},
            "arms": [str(arm) for arm in self.arms],
            "trials": self.trials,
            "objectives": list(self.objectives),
            "primary": self.primary,
            "margin": self.margin,
            "scheduler": self.scheduler,
            "seed": self.seed,
        }

    def identify(self, point: Mapping[str, Any], trial_id: str) -> dict[str, Any]:
        """The columns of a trial's row that do not depend on how it went."""
        config = self.trial_config(point)
        return {
            "trial_id": trial_id,
            "number": point["number"],
            "method": PAPER_METHOD if point["arm"] == "paper" else config.model.method,
            "arm": point["arm"],
            **columns(config),
        }

    def describe(self, point: Mapping[str, Any]) -> str:
        """A trial's settings in a few words."""
        training, model = (config := self.trial_config(point)).training, config.model
        return (
            f"{point['number']:>3}  τ {training.tau_start:.2f}→{training.tau_end:.2f} {training.tau_schedule}, "
            f"β {model.beta:.3g}, d {model.latent_dim}"
        )

    def objective(self, report: Mapping[str, Any]) -> float | None:
        """What ranks the trials."""
        return float(report[self.metrics[0]])

    def trial_config(self, point: Mapping[str, Any]) -> Config:
        """The settings of one trial from its point and its number.

        Each trial trains with a seed of its own, the study's plus its number: seeds matter as much as most settings,
        and a search on one seed would tune to it. All settings of a factorial's block share the block's seed, so that
        they can be compared seed by seed.
        """
        seed = self.seed + point.get("block", point["number"])
        if point.get("arm") == "paper":
            return self.config.with_settings({**PAPER_PROTOCOL, "seed": seed})
        settings = {name: value for name, value in point.items() if name not in ("tau_ratio", "number", "arm", "block")}
        # The product of the two can exceed tau_start by rounding.
        settings["tau_end"] = min(point["tau_start"], point["tau_start"] * point["tau_ratio"])
        return self.config.with_settings({**settings, "seed": seed})


def _levels_of(text: str) -> tuple[str, tuple[Any, ...]]:
    """A factor such as "tau_start=0.5/2"; raises `ConfigError` for another form or a level that is no number."""
    name, _, values = text.partition("=")
    names = [field.name for field in fields(SearchSpace)]
    if name not in names or not values:
        raise ConfigError(
            f"a factor is SETTING=LEVEL/LEVEL/…, such as tau_start=0.5/2, of {', '.join(names)}; got {text!r}"
        )
    kind = {"tau_schedule": str, "latent_dim": int}.get(name, float)
    try:
        levels = tuple(kind(value) for value in values.split("/"))
    except ValueError:
        raise ConfigError(f"the levels of {name} must be numbers, got {values!r}") from None
    if len(set(levels)) < len(levels):
        raise ConfigError(f"a level of {name} is named twice: {values}")
    return name, levels


def _between(low: float, high: float, unit: float) -> float:
    """From low to high on a logarithmic scale; rounding may not leave the range."""
    return min(high, max(low, float(low * (high / low) ** unit)))


def _levels(count: int) -> list[float]:
    return [0.5] if count == 1 else [i / (count - 1) for i in range(count)]
