"""The dimensions that a study may search, each with its scale, bounds and default range. Does not use Ray.

A new dimension needs one entry in `DIMENSIONS` and a flag in studies/tau_sweep.py. It has the name of a setting, so its
values are in the table column `config/NAME`; only tau_ratio is not a setting, but tau_end / tau_start.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, get_args

from catuvac.config import DEFAULTS, ConfigError, Estimator, unknown
from catuvac.training.schedules import SCHEDULES

if TYPE_CHECKING:
    import optuna

Range = tuple[Any, ...]  # the two ends of a number, both included, or the words to choose from
Point = dict[str, Any]


@dataclass(frozen=True)
class Number:
    """A numeric dimension."""

    name: str
    default: Range | None  # None: searched only if a study requests it
    lowest: float
    highest: float = math.inf
    open_below: bool = False  # excludes lowest itself
    log: bool = True  # on a logarithmic scale
    integer: bool = False
    note: str = ""  # for messages: the meaning of the number

    growth = "a range can only become wider"  # how an extension of a study may change it

    def check(self, ends: Range) -> None:
        """Raises `ConfigError` unless `ends` is a range within the bounds."""
        numbers = len(ends) == 2 and all(isinstance(end, int | float) and math.isfinite(end) for end in ends)
        if not numbers or not self._is_above(ends[0]) or not ends[0] <= ends[1]:
            raise ConfigError(
                f"search range {self.name} must be two numbers, {self._bound} low <= high; got {list(ends)}"
            )
        if ends[1] > self.highest:
            raise ConfigError(
                f"search range {self.name}{self.note} must end at {self.highest:g} or below, got {ends[1]}"
            )
        if self.integer and not all(float(end).is_integer() for end in ends):
            raise ConfigError(f"search range {self.name} must be two whole numbers, got {list(ends)}")

    @property
    def _bound(self) -> str:
        return f"{self.lowest:g} {'<' if self.open_below else '<='}"

    def _is_above(self, value: float) -> bool:
        return value > self.lowest if self.open_below else value >= self.lowest

    def parse(self, text: str) -> Range:
        """Parses levels such as "1/2/4"; raises `ConfigError` for one that is not a number within the bounds."""
        kind = int if self.integer else float
        try:
            levels = tuple(kind(level) for level in text.split("/"))
        except ValueError:
            levels = (math.nan,)
        if not all(self._is_above(level) and level <= self.highest for level in levels):
            top = "" if self.highest == math.inf else f" <= {self.highest:g}"
            whole = "whole numbers" if self.integer else "numbers"
            raise ConfigError(f"the levels of {self.name} must be {whole}, {self._bound} level{top}; got {text!r}")
        return levels

    def contains(self, ends: Range, value: Any) -> bool:
        """Returns whether a value is in the range."""
        return bool(ends[0] <= value <= ends[1])

    def covers(self, ends: Range, others: Range) -> bool:
        """Returns whether a range contains another one."""
        return self.contains(ends, others[0]) and self.contains(ends, others[1])

    def distribution(self, ends: Range) -> optuna.distributions.BaseDistribution:
        """Returns the range as Optuna stores it with each value."""
        import optuna

        if self.integer:
            return optuna.distributions.IntDistribution(*ends, log=self.log)
        return optuna.distributions.FloatDistribution(*ends, log=self.log)

    def suggest(self, trial: optuna.Trial, ends: Range) -> Any:
        """Samples a value with Optuna."""
        return (trial.suggest_int if self.integer else trial.suggest_float)(self.name, *ends, log=self.log)

    def at(self, ends: Range, unit: float) -> Any:
        """Returns the value at a coordinate in [0, 1]."""
        low, high = ends
        if not self.integer:
            return self._between(low, high, unit)
        # Extends both ends by half a step, as Optuna does: otherwise they are half as frequent as their neighbours.
        return min(high, max(low, round(self._between(low - 0.5, high + 0.5, unit))))

    def _between(self, low: float, high: float, unit: float) -> float:
        value = low * (high / low) ** unit if self.log else low + (high - low) * unit
        return min(high, max(low, float(value)))  # rounding must not leave the range

    def fixed_levels(self, ends: Range) -> int | None:
        """Returns the fixed number of levels of the range in a full grid; None: as many as the grid's size allows."""
        return 1 if ends[0] == ends[1] else None

    def spread(self, count: int) -> list[float]:
        """Returns the coordinates of `count` levels, both ends included."""
        return [0.5] if count == 1 else [i / (count - 1) for i in range(count)]

    def single(self, value: Any) -> Range:
        """Returns the range for a level of a factorial if the dimension is not searched."""
        return (value, value)


@dataclass(frozen=True)
class Choice:
    """A categorical dimension."""

    name: str
    default: Range | None  # None: searched only if a study requests it
    known: tuple[str, ...]

    growth = "Optuna does not allow the choices of a study to change: start another study with --warm-start"

    def check(self, words: Range) -> None:
        """Raises `ConfigError` unless `words` are distinct known words."""
        if not words or any(word not in self.known for word in words) or len(set(words)) < len(words):
            raise ConfigError(
                f"{self.name} must be some of {', '.join(self.known)}, each once; got {', '.join(map(str, words))}"
            )

    def parse(self, text: str) -> Range:
        """Parses levels such as "gumbel/exact"; raises `ConfigError` for an unknown one."""
        levels = tuple(text.split("/"))
        for level in levels:
            if level not in self.known:
                raise ConfigError(unknown(f"level of {self.name}", level, self.known))
        return levels

    def contains(self, words: Range, value: Any) -> bool:
        """Returns whether a word may be chosen."""
        return value in words

    def covers(self, words: Range, others: Range) -> bool:
        """Returns whether both are the same words: Optuna does not allow the choices of a study to change."""
        return tuple(words) == tuple(others)

    def distribution(self, words: Range) -> optuna.distributions.BaseDistribution:
        """Returns the words as Optuna stores them with each value."""
        import optuna

        return optuna.distributions.CategoricalDistribution(words)

    def suggest(self, trial: optuna.Trial, words: Range) -> Any:
        """Samples a word with Optuna."""
        return trial.suggest_categorical(self.name, words)

    def at(self, words: Range, unit: float) -> Any:
        """Returns the word at a coordinate in [0, 1]."""
        return words[min(int(unit * len(words)), len(words) - 1)]

    def fixed_levels(self, words: Range) -> int:
        """Returns the number of levels in a full grid: one per word."""
        return len(words)

    def spread(self, count: int) -> list[float]:
        """Returns the coordinates of the words."""
        return [(i + 0.5) / count for i in range(count)]

    def single(self, _: Any) -> Range:
        """Returns the choices for a level of a factorial if the dimension is not searched.

        These are all known words: Optuna does not allow other words later in the same study.
        """
        return self.known


Dimension = Number | Choice

SHAPES = tuple(name for name, schedule in SCHEDULES.items() if schedule.searched)
# In the order of the coordinates of a designed point: append new dimensions at the end.
DIMENSIONS: dict[str, Dimension] = {
    dimension.name: dimension
    for dimension in (
        Number("tau_start", (0.5, 5.0), lowest=0, open_below=True),
        # tau_end / tau_start: searching the ratio ensures that tau_end never exceeds tau_start.
        Number("tau_ratio", (0.05, 1.0), lowest=0, open_below=True, highest=1, note=", tau_end / tau_start,"),
        Choice("tau_schedule", SHAPES, known=SHAPES),
        Number("beta", (0.01, 1.0), lowest=0, open_below=True),
        Number("latent_dim", (1, 16), lowest=1, integer=True),
        Number("n_clusters", None, lowest=2, integer=True),
        Choice("y_estimator", None, known=get_args(Estimator)),
        Number("invariance", None, lowest=0, log=False),  # 0 must be possible
        Number("channels", None, lowest=1, integer=True),
        Number("gru_size", None, lowest=1, integer=True),
    )
}
FACTORS = ("tau_start", "tau_ratio")  # the temperature factors that a study examines; the design makes them orthogonal


def value_of(name: str, settings: Mapping[str, Any]) -> Any:
    """Returns the value of a dimension in settings by name, as returned by `Config.flat`."""
    return (
        settings["tau_end"] / settings["tau_start"] if name == "tau_ratio" else settings.get(name, DEFAULTS.get(name))
    )


def settings_at(point: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a point, for `Config.with_settings`, without entries that are not dimensions."""
    settings = {name: point[name] for name in DIMENSIONS if name in point and name != "tau_ratio"}
    if "tau_ratio" in point:
        # Due to rounding, the product can exceed tau_start.
        settings["tau_end"] = min(point["tau_start"], point["tau_start"] * point["tau_ratio"])
    return settings


@dataclass(frozen=True)
class SearchSpace:
    """The range of every searched dimension, by name; dimensions with a default range are always searched.

    Raises:
        ConfigError: an unknown name, or a range outside its dimension's bounds.
    """

    ranges: Mapping[str, Range] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.ranges:
            if name not in DIMENSIONS:
                raise ConfigError(unknown("search range", name, DIMENSIONS))
            if not isinstance(self.ranges[name], list | tuple):
                raise ConfigError(f"search range {name} must be a list, got {self.ranges[name]!r}")
        ranges = {name: self.ranges.get(name, dimension.default) for name, dimension in DIMENSIONS.items()}
        searched = {name: tuple(ends) for name, ends in ranges.items() if ends is not None}
        for name, ends in searched.items():
            DIMENSIONS[name].check(ends)
        object.__setattr__(self, "ranges", searched)

    def suggest(self, trial: optuna.Trial, designed: Mapping[str, Any] | None = None) -> Point:
        """Samples one point with Optuna.

        Args:
            trial: if it was enqueued, it contains the fixed coordinates.
            designed: all coordinates of a designed point, which may have more or fewer dimensions than the space; None
                for a point of the space.
        """
        if designed is None:
            return {name: DIMENSIONS[name].suggest(trial, ends) for name, ends in self.ranges.items()}
        return {
            name: DIMENSIONS[name].suggest(trial, self.ranges.get(name) or DIMENSIONS[name].single(value))
            for name, value in designed.items()
        }

    def at(self, unit: Sequence[float]) -> Point:
        """Returns the point at `[n]` coordinates in [0, 1], in the order of the n ranges."""
        return {
            name: DIMENSIONS[name].at(ends, coordinate)
            for (name, ends), coordinate in zip(self.ranges.items(), unit, strict=True)
        }

    def grid(self, trials: int) -> list[Point]:
        """Returns the full grid of `trials` points, in which the numbers of levels of two ranges differ by at most one.

        A range whose ends are equal has one level, and each word is a level.

        Raises:
            ConfigError: no such grid has that many points; the message names the nearest two sizes.
        """
        fixed = {name: DIMENSIONS[name].fixed_levels(ends) for name, ends in self.ranges.items()}
        free = [name for name, count in fixed.items() if count is None]
        levels = {name: count or 1 for name, count in fixed.items()}
        smaller = 0
        while (size := math.prod(levels.values())) < trials and free:
            smaller = size
            levels[min(free, key=lambda name: levels[name])] += 1
        if size != trials:
            words = "".join(f" × {count} of {name}" for name, count in fixed.items() if count and count > 1)
            raise ConfigError(
                f"grid:{trials} is not a full grid of {', '.join(free) or 'no range'}{words}; use grid:{size}"
                + (f" or grid:{smaller}" if smaller else "")
            )
        axes = [DIMENSIONS[name].spread(count) for name, count in levels.items()]
        return [self.at(unit) for unit in itertools.product(*axes)]

    def check(self, name: str, value: Any) -> None:
        """Raises `ConfigError` if a dimension is searched and a value is outside its range."""
        ends = self.ranges.get(name)
        if ends is not None and not DIMENSIONS[name].contains(ends, value):
            raise ConfigError(
                f"the factorial's {name} {value} is outside its search range {', '.join(map(str, ends))}; "
                "widen the range"
            )

    def narrowed(self, earlier: Self) -> str:
        """Describes a range that is narrower than in an earlier space; "" if every range is at least as wide."""
        for name, ends in earlier.ranges.items():
            if name not in self.ranges or not DIMENSIONS[name].covers(self.ranges[name], ends):
                now = list(self.ranges[name]) if name in self.ranges else "none"
                return f"{name} {list(ends)} → {now}, and {DIMENSIONS[name].growth}"
        return ""
