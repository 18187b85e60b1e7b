"""The average effect of one factor with all others held fixed: least squares with curvature, interactions and blocks.

statsmodels computes the fit and its errors. Rows of one setting (its seeds) are first averaged after the level of each
seed block is removed. The residual of a setting is then its deviation from the smooth surface plus the noise of its
seeds, which is the correct error for an effect of the settings on these seeds. That the effect may differ from seed to
seed is not in it: where at least three seeds have settings that identify the effect, each gives its own estimate, and
their spread is a second error, of which the larger one counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import statsmodels.api as sm
from numpy.typing import NDArray

from analysis.stats.equivalence import Contrast

Floats = NDArray[np.float64]

ROWS_PER_TERM = 2.5  # minimum number of settings per column of the design; further terms are left out
LEVELS = (0.1, 0.9)  # quantiles of a factor between which its effect is reported, unless it has few levels
EXACT = 1 - 1e-9  # a row with at least this leverage is fitted exactly
SEEDS = 3  # the effects of fewer seeds do not tell how much they differ
FEW = 6  # with at most this number of distinct values, the lowest and highest level are used


@dataclass(frozen=True)
class Crossing:
    """How much larger the effect of one factor is at the high end of another setting than at its low end.

    Attributes:
        other: the other setting.
        low, high: values of the other setting, in its own units.
        contrast: effect of the factor at `high` minus that at `low`.
    """

    other: str
    low: float
    high: float
    contrast: Contrast


@dataclass(frozen=True)
class Adjusted:
    """The effect of one factor on one outcome.

    Attributes:
        low, high: the factor's values between which the contrast is reported, in its own units.
        contrast: E[outcome(high) - outcome(low)], averaged over the settings.
        joint_p: of no effect at all, linear or curved (an F test of the factor's linear and quadratic term).
        curved: how far the outcome at the middle of the factor's range is above the mean of both ends, on a logarithmic
            scale: a separate contrast, which is 0 for a linear effect.
        crossings: whether the effect depends on other settings, for those whose product with the factor is a column.
        terms: names of the columns of the design other than the constant.
        left_out: categories that vary, but for which the settings are too few, so that they are not held fixed.
        settings, rows: numbers of fitted settings and of their rows.
        by_seed: the contrast's estimate on each seed whose settings identify it.
        seed_sd: standard deviation between rows of one setting, including block levels; None without repeats.
    """

    low: float
    high: float
    contrast: Contrast
    joint_p: float
    curved: Contrast | None
    crossings: tuple[Crossing, ...]
    terms: tuple[str, ...]
    left_out: tuple[str, ...]
    settings: int
    rows: int
    by_seed: tuple[float, ...]
    seed_sd: float | None

    def with_levels(self, level: float, *, shape: float) -> Adjusted:
        """Returns the same estimates with another interval level: for the contrast, and for its bend and crossings."""
        return replace(
            self,
            contrast=self.contrast.at_level(level),
            curved=self.curved.at_level(shape) if self.curved else None,
            crossings=tuple(replace(one, contrast=one.contrast.at_level(shape)) for one in self.crossings),
        )


def adjusted(
    outcome: Floats,
    factors: Mapping[str, Floats],
    *,
    covariates: Mapping[str, Floats],
    categories: Mapping[str, Sequence[str]],
    setting: NDArray[np.int64],
    block: NDArray[np.int64],
    margin: float,
    bound: float = math.inf,
    level: float = 0.95,
) -> dict[str, Adjusted | None]:
    """Estimates the effect of every factor from one fit.

    Args:
        outcome: `[n]`, finite.
        factors: the temperatures, `[n]` positive values each; the design has their logarithms and their squares.
        covariates: further numeric settings, `[n]` positive values; the design has their logarithms.
        categories: categorical settings.
        setting: `[n]` codes of the settings.
        block: `[n]` codes of the seed blocks; a block with only one setting is ignored. Rows of the same setting and
            block are repeats of one training, and are averaged.
        margin: an effect smaller than this does not matter.
        bound: the largest possible effect.
        level: of the intervals.

    Returns:
        The estimate by factor; None if the settings do not distinguish the factor from the others, or are too few for
        its design.
    """
    cells, first, of = np.unique(np.stack([setting, block]), axis=1, return_index=True, return_inverse=True)
    by_cell = np.bincount(of.ravel(), weights=outcome) / np.bincount(of.ravel())
    y, cell, seed_sd = _averaged(by_cell, *cells)
    rows = first[cell]
    words = {name: np.asarray([str(values[row]) for row in rows]) for name, values in categories.items()}
    # A setting with a unique category would be fitted exactly, and contains no information about the others.
    kept = np.ones(len(rows), dtype=bool)
    for column in words.values():
        known, count = np.unique(column, return_counts=True)
        kept &= np.isin(column, known[count > 1])
    y, rows, codes = y[kept], rows[kept], cells[0, cell[kept]]
    if not len(y):
        return dict.fromkeys(factors)
    design = _designed(
        {name: values[rows] for name, values in factors.items()},
        {name: values[rows] for name, values in covariates.items()},
        {name: column[kept].tolist() for name, column in words.items()},
    )
    if design is None:
        return dict.fromkeys(factors)
    model = sm.OLS(y, design.matrix)
    robust = model.fit(cov_type="HC2", use_t=True)  # noise may differ between settings
    plain = model.fit()  # for F tests, because robust ones are too liberal with this few settings
    covariance = robust.cov_params()
    ends = {name: _ends(values[rows]) for name, values in {**factors, **covariates}.items()}
    fitted = np.isin(cells[0], codes)
    place = np.searchsorted(codes, cells[0, fitted])
    seeds = _by_seed(design.matrix[place], by_cell[fitted], cells[1, fitted])

    def contrast(weights: Floats, bound: float = math.inf) -> Contrast:
        error = float(np.sqrt(max(0.0, weights @ covariance @ weights)))
        value = float(np.clip(weights @ robust.params, -bound, bound))
        found = Contrast(value, error, _freedom(design.matrix, weights), level, margin, len(y), bound=bound)
        each = seeds @ weights
        if len(each) < SEEDS:
            return found
        spread = float(each.std(ddof=1)) / math.sqrt(len(each))
        over = replace(found, error=spread, freedom=len(each) - 1.0, n=len(each), unit="seeds")
        return replace(found, over_seeds=over)

    def effect(factor: str, **others: float) -> Floats:
        low, high = ends[factor]
        return design.at({factor: high, **others}) - design.at({factor: low, **others})

    def estimate(factor: str) -> Adjusted | None:
        if factor not in design.names:
            return None
        low, high = ends[factor]
        columns = [column for column, name in enumerate(design.names, start=1) if name in (factor, f"{factor}²")]
        restriction = np.eye(design.matrix.shape[1])[columns]
        middle = design.at({factor: float(np.sqrt(low * high))})
        bend = middle - (design.at({factor: low}) + design.at({factor: high})) / 2
        crossings = [
            Crossing(other, *ends[other], contrast(effect(factor, **{other: ends[other][1]}) - at_low))
            for other in design.crossed(factor)
            for at_low in [effect(factor, **{other: ends[other][0]})]
        ]
        return Adjusted(
            low=low,
            high=high,
            contrast=contrast(effect(factor), bound),
            joint_p=float(plain.f_test(restriction).pvalue),
            curved=contrast(bend) if f"{factor}²" in design.names else None,
            crossings=tuple(crossings),
            terms=tuple(design.names),
            left_out=design.left_out,
            settings=len(y),
            rows=int(np.isin(setting, codes).sum()),
            by_seed=tuple(map(float, seeds @ effect(factor))),
            seed_sd=seed_sd,
        )

    return {factor: estimate(factor) for factor in factors}


def _by_seed(matrix: Floats, y: Floats, seed: NDArray[np.int64]) -> Floats:
    """Returns the coefficients `[seeds, columns]` of each seed by itself, for seeds whose settings identify them."""
    columns = matrix.shape[1]
    fits = [
        np.linalg.lstsq(matrix[own], y[own], rcond=None)[0]
        for own in (seed == code for code in np.unique(seed))
        if own.sum() > columns and np.linalg.matrix_rank(matrix[own]) == columns
    ]
    return np.reshape(fits, (-1, columns))


def _freedom(x: Floats, weights: Floats) -> float:
    """Returns the degrees of freedom of a contrast's HC2 error (Bell and McCaffrey 2002), low if few settings count."""
    # The error is a quadratic form in the noise, R D R with R = I - Z Z'; its two traces need no n × n matrix.
    z = np.linalg.qr(x)[0]  # Z Z' is the hat matrix
    hat = _hat(z)
    d = (x @ np.linalg.inv(x.T @ x) @ weights) ** 2 / np.maximum(1 - hat, 1e-12)
    trace = float(d @ (1 - hat))
    of_square = float(d**2 @ (1 - 2 * hat) + ((z.T * d @ z) ** 2).sum())
    return trace**2 / max(of_square, 1e-300)


def _hat(z: Floats) -> Floats:
    """Returns the leverages `[n]` of a design from its orthonormal columns `[n, columns]`."""
    return np.asarray((z**2).sum(axis=1), dtype=np.float64)


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
    """Returns the contrast that a design gives if nothing has an effect, and so its error and power before any trial.

    Args:
        factors, factor, covariates, categories, margin, level: as for `adjusted`, one row per setting.
        deviation: standard deviation of a setting's mean outcome around the smooth surface, including its seeds'.

    Returns:
        The contrast; None if the design does not identify the factor.
    """
    n = len(factors[factor])
    design = _designed(factors, covariates, categories)
    if design is None or factor not in design.names:
        return None
    x = design.matrix
    low, high = _ends(factors[factor])
    weights = design.at({factor: high}) - design.at({factor: low})
    error = deviation * float(np.sqrt(weights @ np.linalg.inv(x.T @ x) @ weights))
    return Contrast(0.0, error, _freedom(x, weights), level, margin, n)


def _designed(
    factors: Mapping[str, Floats],
    covariates: Mapping[str, Floats],
    categories: Mapping[str, Sequence[str]],
) -> _Design | None:
    """Builds the design with one row per setting; None if its columns are dependent or too few rows are left over."""
    n = len(next(iter(factors.values())))
    design = _Design(
        {name: np.log(values) for name, values in factors.items()},
        {name: np.log(values) for name, values in covariates.items()},
        categories,
        limit=int(n / ROWS_PER_TERM),
    )
    columns = design.matrix.shape[1]
    if n <= columns + 1 or np.linalg.matrix_rank(design.matrix) < columns:
        return None
    # A row that is fitted exactly has no residual, so it does not contribute to the error.
    return design if _hat(np.linalg.qr(design.matrix)[0]).max() < EXACT else None


class _Design:
    """The columns of a design in a fixed order of importance, as many as the number of settings allows."""

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
                words[f"{name} {value}"] = np.asarray([word == value for word in column], dtype=np.float64)
        products = [(a, b) for place, a in enumerate(taus) for b in taus[place + 1 :]]
        products += [(name, name) for name in others if name in curved]
        products += [(tau, other) for tau in taus for other in others]
        room = max(len(wanted), limit - 1)
        fits = len(wanted) + len(words) <= room
        self.words = words if fits else {}
        self.left_out = () if fits else tuple(name for name, column in categories.items() if len(set(column)) > 1)
        self.terms = [*wanted, *products[: max(0, room - len(wanted) - len(self.words))]]
        self.names = [*(_name(term) for term in self.terms), *self.words]
        self.matrix = np.column_stack(
            [np.ones(n), *(self._term(t, self.values) for t in self.terms), *self.words.values()]
        )

    @staticmethod
    def _term(term: tuple[str, ...], values: Mapping[str, Floats]) -> Floats:
        first, *second = (values[name] for name in term)
        return first * second[0] if second else first

    def crossed(self, factor: str) -> list[str]:
        """Returns the settings whose product with the factor is a column."""
        return [
            next(name for name in term if name != factor)
            for term in self.terms
            if len(term) == 2 and factor in term and term[0] != term[1]
        ]

    def at(self, moved: Mapping[str, float]) -> Floats:
        """Returns the mean row of the design with some settings fixed at one value and the others unchanged."""
        at = {name: np.log(value) - self.centre[name] for name, value in moved.items()}
        row: Floats = self.matrix.mean(axis=0)
        for place, term in enumerate(self.terms, start=1):
            if any(name in at for name in term):
                # An unchanged setting is centred, so its mean is 0.
                row[place] = np.prod([at.get(name, 0.0) for name in term])
        return row


def _name(term: tuple[str, ...]) -> str:
    if len(term) == 1:
        return term[0]
    return f"{term[0]}²" if term[0] == term[1] else f"{term[0]} × {term[1]}"


def _averaged(
    outcome: Floats, setting: NDArray[np.int64], block: NDArray[np.int64]
) -> tuple[Floats, NDArray[np.int64], float | None]:
    """Returns each setting's mean without block levels, the index of one of its rows, and the seeds' deviation."""
    codes, first, settings = np.unique(setting, return_index=True, return_inverse=True)
    if len(codes) == len(outcome):
        return outcome[first], first, None
    count = np.bincount(settings)

    def means(y: Floats) -> Floats:
        return np.asarray(np.bincount(settings, weights=y) / count, dtype=np.float64)

    deviation = outcome - means(outcome)[settings]
    seed_sd = float(np.sqrt((deviation**2).sum() / (len(outcome) - len(codes))))
    # Only differences within settings tell blocks apart: the levels of blocks that share no setting are not comparable,
    # and the solution of smallest norm leaves a setting that is alone in its block as it is.
    blocks = np.unique(block, return_inverse=True)[1]
    indicators = np.eye(blocks.max() + 1)[blocks]
    within = indicators - np.stack([means(column) for column in indicators.T], axis=1)[settings]
    levels = np.linalg.lstsq(within, deviation, rcond=None)[0]
    return means(outcome - indicators @ levels), first, seed_sd


def _ends(values: Floats) -> tuple[float, float]:
    distinct = np.unique(values)
    if len(distinct) <= FEW:
        return float(distinct[0]), float(distinct[-1])
    low, high = np.exp(np.quantile(np.log(values), LEVELS))
    return float(low), float(high)
