"""The adjusted effect on fabricated tables of known truth: size, power, curvature, blocks, heteroscedastic noise.

`python -m pytest tests/analysis/test_adjusted.py -m slow` repeats them often enough to tell 5 % from 7 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy.stats import qmc

from analysis.stats.adjusted import Adjusted, adjusted

MARGIN = 0.03
BETA = -0.15  # what beta does over its range: most of the variance, as in the recorded study


@dataclass(frozen=True)
class World:
    """24 Sobol trials as the recorded FSDD study had them."""

    effect: float = 0.0  # of tau_start, from its 10 % to its 90 % quantile
    bend: float = 0.0  # of a square of it, per variance
    step: float = 0.0  # above its median
    noise: float = 0.03
    uneven: bool = False  # three times the noise where beta is high
    n: int = 24

    def draw(self, seed: int) -> Adjusted:
        rng = np.random.default_rng(seed)
        u = qmc.Sobol(5, scramble=True, rng=rng).random_base2(5)[: self.n]
        start, ratio = 0.5 * 10 ** u[:, 0], 0.05 * 20 ** u[:, 1]
        beta, d = 0.01 * 100 ** u[:, 3], np.maximum(1, np.round(16 ** u[:, 4]))
        x = np.log(start) - np.log(start).mean()
        y = BETA * (np.log(beta) - np.log(beta).mean()) / np.log(100) - 0.02 * np.log(d) / np.log(16)
        y += self.effect * x / (np.quantile(x, 0.9) - np.quantile(x, 0.1))
        y += self.bend * (x / x.std()) ** 2 + self.step * (x > 0)
        y += rng.normal(size=self.n) * self.noise * np.where(self.uneven & (beta > 0.1), 3.0, 1.0)
        found = adjusted(
            y,
            {"tau_start": start, "tau_ratio": ratio},
            factor="tau_start",
            covariates={"beta": beta, "latent_dim": d},
            categories={"schedule": np.array(["exponential", "linear", "cosine"])[(3 * u[:, 2]).astype(int)].tolist()},
            setting=np.arange(self.n),
            block=np.arange(self.n),
            margin=MARGIN,
        )
        assert found is not None
        return found


@dataclass(frozen=True)
class Factorial:
    """4 tau_start × 3 ratios × 3 beta on six seed blocks: 216 trainings."""

    effect: float = 0.0  # of the ratio, from 0.05 to 1
    bend: float = 0.0  # of tau_start, per variance
    cell: float = 0.015
    seed: float = 0.025
    lost: float = 0.0  # share of the trainings that are missing
    interaction: float = 0.0  # how much more the ratio does at the highest beta than at the lowest

    def draw(self, seed: int, factor: str = "tau_ratio") -> Adjusted:
        rng = np.random.default_rng(seed)
        cells = np.array([(s, r, b) for s in (0.5, 1, 2, 4) for r in (0.05, 0.22, 1.0) for b in (0.01, 0.05, 0.2)])
        setting, block = np.divmod(np.arange(6 * len(cells)), 6)
        start, ratio, beta = cells[setting].T
        x, r, b = np.log(start), np.log(ratio / 0.05) / np.log(20), np.log(beta / 0.01) / np.log(20)
        y = 0.5 + BETA * b + self.effect * r + self.interaction * (r - 0.5) * (b - 0.5)
        y = y + self.bend * ((x - x.mean()) / x.std()) ** 2
        y = y + rng.normal(0, self.cell, len(cells))[setting] + rng.normal(0, self.seed, 6)[block]
        y = y + rng.normal(0, self.seed, len(y))
        kept = rng.random(len(y)) >= self.lost
        found = adjusted(
            y[kept],
            {"tau_start": start[kept], "tau_ratio": ratio[kept]},
            factor=factor,
            covariates={"beta": beta[kept]},
            categories={},
            setting=setting[kept],
            block=block[kept],
            margin=MARGIN,
        )
        assert found is not None
        return found


def rates(world: Any, repeats: int, true: float = 0.0, **how: Any) -> dict[str, float]:
    found = [world.draw(seed, **how) for seed in range(repeats)]
    contrasts = [each.contrast for each in found]
    return {
        "finds": np.mean([c.low > 0 or c.high < 0 for c in contrasts]),
        "negligible": np.mean([c.verdict == "negligible" for c in contrasts]),
        "covers": np.mean([c.low <= true <= c.high for c in contrasts]),
        "joint": np.mean([each.joint_p < 0.05 for each in found]),
        "bent": np.mean([each.curved is not None and (each.curved.low > 0 or each.curved.high < 0) for each in found]),
        "half": np.mean([c.half for c in contrasts]),
    }


def test_the_effect_and_its_ends_are_those_that_were_planted() -> None:
    found = Factorial(effect=-0.08, cell=0.001, seed=0.001).draw(0)
    assert (found.low, found.high) == (0.05, 1.0)
    assert found.contrast.value == pytest.approx(-0.08, abs=0.003)
    assert (found.settings, found.rows) == (36, 216)


def test_blocks_and_seeds_are_taken_out_even_where_trainings_are_missing() -> None:
    """Seed blocks that lie 0.3 apart do not reach the effect, and the seeds' own deviation is told."""
    found = Factorial(effect=-0.05, seed=0.1, cell=0.0, lost=0.2)
    values = [found.draw(seed).contrast.value for seed in range(20)]
    assert np.mean(values) == pytest.approx(-0.05, abs=0.015)
    assert found.draw(0).seed_sd == pytest.approx(0.1 * np.sqrt(2), rel=0.5)


def test_few_repeats_of_every_claim() -> None:
    null, found = rates(World(), 120), rates(World(effect=-0.08), 60, true=-0.08)
    assert null["finds"] <= 0.13
    assert null["covers"] >= 0.87
    assert found["finds"] >= 0.9
    assert rates(World(bend=-0.03), 60)["joint"] >= 0.75
    assert rates(World(step=-0.06), 60)["finds"] >= 0.8
    assert rates(Factorial(effect=-0.03), 40, true=-0.03)["finds"] >= 0.9
    assert rates(Factorial(), 40)["negligible"] >= 0.85


def test_settings_that_tell_nothing_give_no_estimate() -> None:
    same = {"tau_start": np.ones(9), "tau_ratio": np.linspace(0.1, 1, 9)}
    what = {"covariates": {}, "categories": {}, "setting": np.arange(9), "block": np.arange(9), "margin": MARGIN}
    assert adjusted(np.arange(9.0), same, factor="tau_start", **what) is None
    few = {"tau_start": np.array([1.0, 2.0, 3.0]), "tau_ratio": np.array([0.1, 0.4, 0.3])}
    what |= {"setting": np.arange(3), "block": np.arange(3)}
    assert adjusted(np.arange(3.0), few, factor="tau_start", **what) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world", "true", "held"),
    [
        (World(), 0.0, {"finds": (0.03, 0.08), "joint": (0.03, 0.08), "covers": (0.92, 0.97)}),
        (World(noise=0.015), 0.0, {"finds": (0.03, 0.08), "negligible": (0.65, 1.0)}),
        (World(uneven=True, noise=0.02), 0.0, {"finds": (0.02, 0.08), "covers": (0.92, 0.98)}),
        (World(effect=-0.08), -0.08, {"finds": (0.9, 1.0), "covers": (0.92, 0.97)}),
        (World(effect=-0.05), -0.05, {"finds": (0.6, 1.0)}),
        (World(bend=-0.03), None, {"joint": (0.8, 1.0), "bent": (0.85, 1.0)}),
        (World(step=-0.06), None, {"finds": (0.85, 1.0)}),
        (Factorial(), 0.0, {"finds": (0.02, 0.08), "negligible": (0.9, 1.0), "half": (0.012, 0.018)}),
        (Factorial(effect=-0.03), -0.03, {"finds": (0.93, 1.0), "covers": (0.91, 0.98)}),
        (Factorial(effect=-0.03, interaction=-0.06), -0.03, {"finds": (0.93, 1.0), "covers": (0.91, 0.98)}),
        (Factorial(cell=0.03), 0.0, {"finds": (0.02, 0.08)}),
        (Factorial(lost=0.15), 0.0, {"finds": (0.02, 0.08)}),
    ],
)
def test_size_power_and_coverage(world: Any, true: float | None, held: dict[str, tuple[float, float]]) -> None:
    found = rates(world, 600, true=true or 0.0)
    print({name: round(float(value), 3) for name, value in found.items()})
    for name, (low, high) in held.items():
        assert low <= found[name] <= high, (name, found)


@pytest.mark.slow
def test_a_u_shape_of_the_factorial_is_found_in_nearly_every_case() -> None:
    assert rates(Factorial(bend=0.02), 200, factor="tau_start")["bent"] >= 0.97
