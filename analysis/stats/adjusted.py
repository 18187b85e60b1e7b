"""The average effect of one factor with all others held: least squares with curvature, interactions and blocks.

The fit and its errors are statsmodels'. Rows of one setting (its seeds) are first averaged, each seed block's own level
being taken out: what is then left over in a setting is its own deviation from the smooth surface together with the
noise of its seeds, and that is what an effect of the settings has to be held against.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import statsmodels.api as sm
from numpy.typing import NDArray

from analysis.stats.equivalence import Contrast

Floats = NDArray[np.float64]

ROWS_PER_TERM = 2.5  # settings for each column of the design, at least; terms beyond that are left out
LEVELS = (0.1, 0.9)  # quantiles of a factor between which its effect is told, unless it has few levels
FEW = 6  # distinct values up to which a factor's own lowest and highest level are taken


@dataclass(frozen=True)
class Adjusted:
    """What one factor does to one outcome.

    Attributes:
        low, high: the factor's values between which the contrast is told, in its own units.
        contrast: E[outcome(high) - outcome(low)], averaged over the settings.
        joint_p: of no effect at all, straight or curved (an F test of the factor's linear and quadratic term).
        curved: how far the outcome at the middle of the factor's range lies above the mean of its two ends, on the
            scale of the logarithm: a contrast of its own, 0 for an effect that is straight.
        terms: the columns of the design beyond the constant, in words.
        settings, rows: that were fitted.
        seed_sd: standard deviation between trainings of one setting, block levels included; None without repeats.
    """

    low: float
    high: float
    contrast: Contrast
    joint_p: float
    curved: Contrast | None
    terms: tuple[str, ...]
    settings: int
    rows: int
    seed_sd: float | None


def adjusted(
    outcome: Floats,
    factors: Mapping[str, Floats],
    *,
    factor: str,
    covariates: Mapping[str, Floats],
    categories: Mapping[str, Sequence[str]],
    setting: NDArray[np.int64],
    block: NDArray[np.int64],
    margin: float,
    level: float = 0.95,
) -> Adjusted | None:
    """Estimates the effect of one factor.

    Args:
        outcome: `[n]`, finite.
        factors: the temperatures, `[n]` positive values each; their logarithms enter straight and squared.
        factor: the one of them that is asked for.
        covariates: further numeric settings, `[n]` positive values; their logarithms enter.
        categories: settings that are words.
        setting: `[n]` codes of what is a setting of its own.
        block: `[n]` codes of the seed blocks; a block that holds one setting alone is none.
        margin: an effect smaller than this does not matter.
        level: of the interval.

    Returns:
        None where the settings do not tell the factor apart from the others, or are fewer than its design needs.
    """
    y, rows, seed_sd = _averaged(outcome, setting, block)
    design = _designed(
        {name: values[rows] for name, values in factors.items()},
        {name: values[rows] for name, values in covariates.items()},
        {name: [str(values[row]) for row in rows] for name, values in categories.items()},
        factor=factor,
    )
    if design is None:
        return None
    x = design.matrix
    model = sm.OLS(y, x)
    fit = model.fit(cov_type="HC2", use_t=True)  # noise may differ between settings
    low, high = _ends(factors[factor][rows])

    def contrast(weights: Floats) -> Contrast:
        error = float(np.sqrt(max(0.0, weights @ fit.cov_params() @ weights)))
        return Contrast(float(weights @ fit.params), error, _freedom(x, weights), level, margin, len(y))

    own = [place for place, name in enumerate(design.names) if name in (factor, f"{factor}²")]
    restriction = np.zeros((len(own), x.shape[1]))
    restriction[range(len(own)), [place + 1 for place in own]] = 1.0
    middle = float(np.sqrt(low * high))
    ends = (design.at(factor, low) + design.at(factor, high)) / 2
    return Adjusted(
        low=low,
        high=high,
        contrast=contrast(design.at(factor, high) - design.at(factor, low)),
        joint_p=float(model.fit().f_test(restriction).pvalue),  # robust F tests of so few settings find too much
        curved=contrast(design.at(factor, middle) - ends) if f"{factor}²" in design.names else None,
        terms=tuple(design.names),
        settings=len(y),
        rows=len(outcome),
        seed_sd=seed_sd,
    )


def _freedom(x: Floats, weights: Floats) -> float:
    """Degrees of freedom of a contrast's HC2 error (Bell and McCaffrey 2002): fewer where few settings decide it."""
    # The error is a quadratic form in the noise, R D R with R = I - Z Z'; its two traces need no n × n matrix.
    z = np.linalg.qr(x)[0]  # Z Z' is the hat matrix
    hat = (z**2).sum(axis=1)
    d = (x @ np.linalg.inv(x.T @ x) @ weights) ** 2 / np.maximum(1 - hat, 1e-12)
    trace = float(d @ (1 - hat))
    of_square = float(d**2 @ (1 - 2 * hat) + ((z.T * d @ z) ** 2).sum())
    return trace**2 / max(of_square, 1e-300)


def expected(
    factors: Mapping[str, Floats],
    *,
    factor: str,
    covariates: Mapping[str, Floats],
    categories: Mapping[str, Sequence[str]],
    deviation: float,
    margin: float,
    level: float = 0.95,
) -> Contrast | None:
    """The contrast that a design will give where nothing has an effect: its error, and so its power, before any trial.

    Args:
        factors, factor, covariates, categories, margin, level: as for `adjusted`, a row per setting.
        deviation: of a setting's mean outcome about the smooth surface: its own and its seeds' together.

    Returns:
        None where the design cannot tell the factor apart.
    """
    n = len(factors[factor])
    design = _designed(factors, covariates, categories, factor=factor)
    if design is None:
        return None
    x = design.matrix
    low, high = _ends(factors[factor])
    weights = design.at(factor, high) - design.at(factor, low)
    error = deviation * float(np.sqrt(weights @ np.linalg.inv(x.T @ x) @ weights))
    return Contrast(0.0, error, float(n - x.shape[1]), level, margin, n)


def _designed(
    factors: Mapping[str, Floats],
    covariates: Mapping[str, Floats],
    categories: Mapping[str, Sequence[str]],
    *,
    factor: str,
) -> _Design | None:
    """The design of settings, a row each; None where it does not tell the factor apart or leaves too few rows over."""
    n = len(factors[factor])
    design = _Design(
        {name: np.log(values) for name, values in factors.items()},
        {name: np.log(values) for name, values in covariates.items()},
        categories,
        limit=int(n / ROWS_PER_TERM),
    )
    columns = design.matrix.shape[1]
    telling = factor in design.names and n > columns + 1 and np.linalg.matrix_rank(design.matrix) == columns
    return design if telling else None


class _Design:
    """The columns of a design, in a fixed order of importance, as many as the settings allow."""

    def __init__(
        self,
        factors: Mapping[str, Floats],
        covariates: Mapping[str, Floats],
        categories: Mapping[str, Sequence[str]],
        *,
        limit: int,
    ) -> None:
        logs = {**factors, **covariates}
        self.centre = {name: float(values.mean()) for name, values in logs.items()}
        self.values = {name: values - self.centre[name] for name, values in logs.items()}
        n = len(next(iter(self.values.values())))
        varied = [name for name, values in self.values.items() if np.ptp(values) > 1e-9]
        curved = [name for name in varied if len(np.unique(np.round(self.values[name], 9))) > 2]
        taus = [name for name in factors if name in varied]
        others = [name for name in covariates if name in varied]
        wanted: list[tuple[str, ...]] = [(name,) for name in taus]
        wanted += [(name, name) for name in taus if name in curved]
        wanted += [(name,) for name in others]
        words: dict[str, Floats] = {}
        for name, column in categories.items():
            for value in sorted(set(column))[1:]:
                words[f"{name} {value}"] = np.asarray([each == value for each in column], dtype=np.float64)
        products = [(a, b) for place, a in enumerate(taus) for b in taus[place + 1 :]]
        products += [(name, name) for name in others if name in curved]
        products += [(tau, other) for tau in taus for other in others]
        room = max(len(wanted), limit - 1)
        self.words = words if len(wanted) + len(words) <= room else {}
        self.terms = [*wanted, *products[: max(0, room - len(wanted) - len(self.words))]]
        self.names = [*(_name(term) for term in self.terms), *self.words]
        self.matrix = np.column_stack(
            [np.ones(n), *(self._term(t, self.values) for t in self.terms), *self.words.values()]
        )

    @staticmethod
    def _term(term: tuple[str, ...], values: Mapping[str, Floats]) -> Floats:
        return np.asarray(np.prod([values[name] for name in term], axis=0), dtype=np.float64)

    def at(self, factor: str, value: float) -> Floats:
        """The mean row of the design with the factor at one value and all else as it is."""
        moved = np.full_like(self.values[factor], np.log(value) - self.centre[factor])
        values = {**self.values, factor: moved}
        columns = [self._term(term, values) for term in self.terms]
        return np.asarray([1.0, *(column.mean() for column in columns), *(each.mean() for each in self.words.values())])


def _name(term: tuple[str, ...]) -> str:
    if len(term) == 1:
        return term[0]
    return f"{term[0]}²" if term[0] == term[1] else f"{term[0]} × {term[1]}"


def _averaged(
    outcome: Floats, setting: NDArray[np.int64], block: NDArray[np.int64]
) -> tuple[Floats, NDArray[np.int64], float | None]:
    """A mean for each setting with the blocks' levels taken out, a row that stands for it, and the seeds' deviation."""
    codes, first, settings = np.unique(setting, return_index=True, return_inverse=True)
    if len(codes) == len(outcome):
        return outcome[first], first, None
    table = pd.DataFrame({"y": outcome, "setting": settings, "block": block})
    deviation = table["y"] - table.groupby("setting")["y"].transform("mean")
    repeats = len(table) - len(codes)
    seed_sd = float(np.sqrt((deviation**2).sum() / repeats))
    shared = table.groupby("block")["setting"].nunique().max() > 1
    if shared and table["block"].nunique() > 1:
        design: pd.DataFrame = pd.get_dummies(table[["setting", "block"]].astype("category"), dtype=float)
        blocks = [name for name in map(str, design.columns) if name.startswith("block_")][1:]
        design = design[[*(name for name in map(str, design.columns) if name.startswith("setting_")), *blocks]]
        fit = sm.OLS(table["y"], design).fit()
        # Blocks that no setting shares with others have no level of their own; least norm then gives them 0.
        table["y"] = (
            table["y"] - design[blocks] @ fit.params[blocks] + float((design[blocks] @ fit.params[blocks]).mean())
        )
    return table.groupby("setting")["y"].mean().to_numpy(dtype=np.float64), first, seed_sd


def _ends(values: Floats) -> tuple[float, float]:
    distinct = np.unique(values)
    if len(distinct) <= FEW:
        return float(distinct[0]), float(distinct[-1])
    low, high = np.exp(np.quantile(np.log(values), LEVELS))
    return float(low), float(high)
