"""Are the statements of the page true? Simulates many studies with known effects and applies the page's own estimates.

    python -m analysis.simulations --repeats 400 --out studies/simulations.md

Every scenario is a table of trials with the effects, noise and design that its name states. Settings are drawn as in a
study (24 Sobol points as in the recorded FSDD study, or the 216 trials of a factorial), β causes most of the variance,
clusters used reach their ceiling, and the Silhouettes are skewed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.stats import qmc
from statsmodels.stats.proportion import proportion_confint

from analysis.questions.effects import DECIDED, FAMILY, Panel, Plan, panels, pooled
from analysis.trials import Study
from catuvac.errors import CatuvacError, guarded
from catuvac.io import write_text

Floats = NDArray[np.float64]
Claims = dict[str, float]  # by claim: 1 if the page makes it, 0 if not; NaN if it cannot

K = 10
FACTOR = "tau_ratio"  # the primary factor
MARGIN = 0.03
BETA = -0.15  # the effect of β on AMI over its range, which causes most of the variance
NAME = "simulated"
HEAD = ("scenario", "trainings", "claim", "wanted", "found", "95 % interval", "as wanted")


@dataclass(frozen=True)
class World:
    """The true effects. Unless stated otherwise, they are effects of τ_end / τ_start from 0.05 to 1 on AMI.

    Attributes:
        design: "sobol", "factorial" or "nested": a factorial in which every setting has its own seeds.
        effect: linear in the logarithm.
        bend: at both ends of the range, 0 in the middle.
        step: above the middle of the range.
        crossed: how much larger the effect is at the highest β than at the lowest.
        cell, seed: standard deviations of a setting, and of a seed (both of its block and of each trial).
        slope: standard deviation between seeds of the effect itself.
        uneven: three times the noise at high β.
        switched_off: share of the trials at high β in which q(y|x) never decides, at any temperature.
        hurdle: change in the share that decides; half of the trials are then undecided on average.
    """

    design: str
    effect: float = 0.0
    bend: float = 0.0
    step: float = 0.0
    crossed: float = 0.0
    cell: float = 0.015
    seed: float = 0.025
    slope: float = 0.0
    uneven: bool = False
    switched_off: float = 0.0
    hurdle: float = 0.0

    def ami(self, ratio: Floats, b: Floats) -> Floats:
        """Returns the expected AMI at a ratio and at b, the position of β in its range."""
        r = np.log(ratio / 0.05) / np.log(20)
        linear = 0.6 + BETA * b + self.effect * r + self.crossed * (r - 0.5) * (b - 0.5)
        return np.asarray(linear + self.bend * (2 * r - 1) ** 2 + self.step * (r > 0.5), dtype=np.float64)

    def draw(self, rng: Generator, *, corpus: str = "fsdd") -> Study:
        """Draws a study with these effects."""
        table = _sobol(rng) if self.design == "sobol" else _factorial(nested=self.design == "nested")
        n = len(table)
        start, ratio = table["config/tau_start"].to_numpy(), table["ratio"].to_numpy()
        b, setting = table["b"].to_numpy(), table["setting"].to_numpy()
        block = table["seed"].to_numpy()
        high = b > 0.6

        def noise(cell: float, seed: float) -> Floats:
            of_trial = rng.normal(0, cell, setting.max() + 1)[setting] + rng.normal(0, seed, n)
            return np.asarray(of_trial * np.where(self.uneven & high, 3.0, 1.0) + rng.normal(0, seed, n)[block])

        ami = self.ami(ratio, b) + noise(self.cell, self.seed)
        if self.slope:
            ami += rng.normal(0, self.slope, n)[block] * np.log(ratio / 0.05) / np.log(20)
        decided = rng.random(n) >= np.where(high, self.switched_off, 0.0)
        if self.hurdle:
            decided &= rng.random(n) < 0.5 + self.hurdle * (np.log(ratio / 0.05) / np.log(20) - 0.5)
        scores = {
            "val/ami": np.where(decided, ami, 0.0),
            "val/mutual_information": np.where(decided, 0.9, 0.02) * np.log(K),
            "val/clusters_used": np.clip(np.round(10.3 - 2 * b + rng.normal(0, 0.6, n)), 1, K),
            "val/silhouette_x": 0.1 - 0.05 * b - rng.exponential(0.03, n),
            "val/silhouette_p": 0.95 - 0.3 * b - rng.exponential(0.05, n),
            "objective": ami,
        }
        facts = {
            "study": f"{NAME}-{corpus}",
            "trial_id": [f"t{i:05}" for i in range(n)],
            "number": np.arange(n),
            "corpus": corpus,
            "method": "cat_uvac",
            "n_clusters": K,
            "arm": "qmc" if self.design == "sobol" else "factorial",
            "status": "complete",
            "config/tau_end": start * ratio,
        }
        trials = table.drop(columns=["ratio", "b", "setting"]).assign(**facts, **scores)
        return Study(NAME, trials, pd.DataFrame({"study": [], "trial_id": []}))


def _sobol(rng: Generator) -> pd.DataFrame:
    """Draws 24 settings, each with its own seed."""
    u = qmc.Sobol(5, scramble=True, rng=rng).random_base2(5)[:24]
    return pd.DataFrame(
        {
            "config/tau_start": 0.5 * 10 ** u[:, 0],
            "ratio": 0.05 * 20 ** u[:, 1],
            "config/tau_schedule": np.array(["exponential", "linear", "cosine"])[(3 * u[:, 2]).astype(int)],
            "config/beta": 0.01 * 100 ** u[:, 3],
            "config/latent_dim": np.maximum(1, np.round(16 ** u[:, 4])),
            "b": u[:, 3],
            "setting": np.arange(24),
            "seed": np.arange(24),
        }
    )


def _factorial(*, nested: bool) -> pd.DataFrame:
    """Builds 4 τ_start × 3 ratios × 3 β on six seeds: 216 trials."""
    cells = np.array([(s, r, b) for s in (0.5, 1, 2, 4) for r in (0.05, np.sqrt(0.05), 1.0) for b in (0.01, 0.05, 0.2)])
    setting, seed = np.divmod(np.arange(6 * len(cells)), 6)
    start, ratio, beta = cells[setting].T
    return pd.DataFrame(
        {
            "config/tau_start": start,
            "ratio": ratio,
            "config/tau_schedule": "exponential",
            "config/beta": beta,
            "config/latent_dim": 8.0,
            "b": np.log(beta / 0.01) / np.log(20),
            "setting": setting,
            "seed": np.arange(len(setting)) if nested else seed,
        }
    )


@dataclass(frozen=True)
class Scenario:
    """A world, the claims that the page has to make about it, and how often.

    Attributes:
        worlds: one, or one for each of several corpora.
        wanted: the lowest and highest acceptable share of the repeats, by claim.
    """

    name: str
    worlds: tuple[World, ...]
    wanted: dict[str, tuple[float, float]]

    def repeat(self, number: int) -> Claims:
        """Returns the claims of one repeat; the same number gives the same study."""
        rng = np.random.default_rng([number, *self.name.encode()])
        drawn = [world.draw(rng, corpus=f"corpus{i}") for i, world in enumerate(self.worlds)]
        study = replace(drawn[0], trials=pd.concat([one.trials for one in drawn], ignore_index=True))
        by_corpus = panels(study, {name: Plan(FACTOR, MARGIN, True) for name in study.trials["study"].unique()})
        claims = _claims(by_corpus[0], self.worlds[0], drawn[0].trials)
        together = pooled(by_corpus)
        if together is not None:
            claims["corpora differ"] = float(together.heterogeneity_p < FAMILY)
            claims["summary: an effect"] = float(together.contrast.excludes_zero and not claims["corpora differ"])
        return claims


def _claims(panel: Panel, world: World, trials: pd.DataFrame) -> Claims:
    primary = panel.primary.found
    shapes = [effect.found for effect in panel.effects if effect.outcome == panel.primary.outcome and effect.found]
    bends = [shape.curved.excludes_zero for shape in shapes if shape.curved]
    crossings = [crossing.contrast.excludes_zero for shape in shapes for crossing in shape.crossings]
    others = [effect for effect in panel.effects if effect.found and not effect.primary]
    secondary = [effect.found.contrast.excludes_zero for effect in others if effect.found and effect.outcome != DECIDED]
    hurdle = [effect.found.contrast.excludes_zero for effect in others if effect.found and effect.outcome == DECIDED]
    claims: Claims = {
        "a bend": float(any(bends)),
        "an interaction": float(any(crossings)),
        "another contrast": float(any(secondary)),
        "a change in how often y decides": float(any(hurdle)),
    }
    if primary is None:
        return claims
    contrast = primary.contrast
    for verdict in ("matters", "negligible", "not decided"):
        claims[f"primary: {verdict}"] = float(contrast.verdict == verdict)
    claims["any claim of an effect"] = float(any([contrast.excludes_zero, *bends, *crossings, *secondary, *hurdle]))
    b = np.log(trials["config/beta"] / 0.01) / np.log(100 if world.design == "sobol" else 20)
    b = np.asarray(b, dtype=np.float64)[(trials["val/ami"] > 0).to_numpy()]
    ends = [world.ami(np.full(len(b), ratio), b).mean() for ratio in (primary.low, primary.high)]
    claims["interval holds the truth"] = float(contrast.low <= ends[1] - ends[0] <= contrast.high)
    claims["joint test: p < 0.05"] = float(primary.joint_p < 0.05)
    return claims


SIZE, FAMILYWISE, COVERAGE, POWER, RARELY = (0.0, 0.06), (0.0, 0.07), (0.9, 0.97), (0.9, 1.0), (0.0, 0.02)
NULL = {
    "primary: matters": SIZE,
    "another contrast": RARELY,
    "a bend": RARELY,
    "an interaction": RARELY,
    "a change in how often y decides": RARELY,
    "any claim of an effect": FAMILYWISE,
    "interval holds the truth": (0.9, 0.98),
    "joint test: p < 0.05": (0.0, 0.07),
}
OVER_SEEDS = {claim: range_ for claim, range_ in NULL.items() if claim != "joint test: p < 0.05"}  # on these seeds
FACTORIAL = World("factorial")
SOBOL = World("sobol", seed=0.018)  # block, trial and setting together have a standard deviation of 0.03
SCENARIOS = (
    Scenario("null, 24 trials", (SOBOL,), NULL),
    Scenario("null, factorial", (FACTORIAL,), {**NULL, "primary: negligible": POWER}),
    Scenario("null, uneven noise, 24 trials", (replace(SOBOL, uneven=True),), NULL),
    Scenario("null, uneven noise, factorial", (replace(FACTORIAL, uneven=True),), NULL),
    Scenario("null, each seed with its own effect, sd 0.03", (replace(FACTORIAL, slope=0.03),), OVER_SEEDS),
    Scenario("null, seeds nested in settings", (World("nested"),), {**NULL, "primary: negligible": POWER}),
    Scenario(
        "effect of −0.08, 24 trials",
        (replace(SOBOL, effect=-0.1),),  # −0.08 between the 10 % and the 90 % quantile, which the page reports
        {"primary: matters": POWER, "interval holds the truth": COVERAGE},
    ),
    Scenario(
        "effect of −0.03, factorial",
        (replace(FACTORIAL, effect=-0.03),),
        {"primary: matters": POWER, "interval holds the truth": COVERAGE},
    ),
    Scenario("U-shape of 0.06, 24 trials", (replace(SOBOL, bend=0.06),), {"joint test: p < 0.05": (0.5, 1.0)}),
    Scenario(
        "U-shape of 0.04, factorial",
        (replace(FACTORIAL, bend=0.04),),
        {"a bend": POWER, "joint test: p < 0.05": POWER, "primary: negligible": (0.85, 1.0)},
    ),
    Scenario("threshold of −0.08, 24 trials", (replace(SOBOL, step=-0.08),), {"primary: matters": POWER}),
    Scenario("threshold of −0.04, factorial", (replace(FACTORIAL, step=-0.04),), {"primary: matters": POWER}),
    Scenario(
        "interaction of −0.1 with β, factorial",
        (replace(FACTORIAL, crossed=-0.1),),
        {"an interaction": POWER, "primary: matters": SIZE, "interval holds the truth": COVERAGE},
    ),
    Scenario(
        "y undecided at high β, factorial",
        (replace(FACTORIAL, switched_off=0.8),),
        {"primary: matters": SIZE, "a change in how often y decides": RARELY, "interval holds the truth": COVERAGE},
    ),
    Scenario(
        "τ_end / τ_start makes y decide, +0.6, factorial",
        (replace(FACTORIAL, hurdle=0.6),),
        {"a change in how often y decides": POWER, "primary: matters": SIZE, "interval holds the truth": COVERAGE},
    ),
    Scenario("null in two corpora", (FACTORIAL, FACTORIAL), {"corpora differ": RARELY, "summary: an effect": SIZE}),
    Scenario("null in two corpora, 24 trials", (SOBOL, SOBOL), {"corpora differ": RARELY, "summary: an effect": SIZE}),
    Scenario(
        "the same −0.03 in two corpora",
        (replace(FACTORIAL, effect=-0.03),) * 2,
        {"corpora differ": RARELY, "summary: an effect": POWER},
    ),
    Scenario(
        "+0.05 in one corpus, −0.05 in the other",
        (replace(FACTORIAL, effect=0.05), replace(FACTORIAL, effect=-0.05)),
        {"corpora differ": POWER, "summary: an effect": (0.0, 0.1)},
    ),
)


def rows(scenario: Scenario, repeats: int, progress: Callable[[Any], Any] = iter) -> pd.DataFrame:
    """Counts how often the page makes each claim of the scenario: one row per claim, with the columns of `HEAD`."""
    claims = pd.DataFrame([scenario.repeat(number) for number in progress(range(repeats))])
    trainings = len(scenario.worlds[0].draw(np.random.default_rng(0)).trials)
    table = []
    for claim, (least, most) in scenario.wanted.items():
        made = claims[claim].dropna() if claim in claims else pd.Series(dtype=float)
        if made.empty:
            table.append((scenario.name, trainings, claim, _range(least, most), "never estimated", "", "no"))
            continue
        low, high = proportion_confint(int(made.sum()), len(made), method="wilson")
        wanted = "yes" if low <= most and high >= least else "no"
        interval = f"{low:.1%} to {high:.1%}"
        table.append((scenario.name, trainings, claim, _range(least, most), f"{made.mean():.1%}", interval, wanted))
    return pd.DataFrame(table, columns=list(HEAD))


def _range(least: float, most: float) -> str:
    if least == 0:
        return f"at most {most:.0%}"
    return f"at least {least:.0%}" if most == 1 else f"{least:.0%} to {most:.0%}"


@dataclass(kw_only=True)
class Simulations:
    """Simulate studies with known effects and count the page's claims about them."""

    repeats: int = 400
    """studies drawn per scenario; each takes about a second on a busy core"""
    out: Path = Path("simulations.md")
    """Markdown file of the table; finished scenarios are kept in NAME.csv in the same folder until all are done"""

    def run(self) -> None:
        if self.repeats < 1:
            raise CatuvacError(f"--repeats must be at least 1, got {self.repeats}")
        if not self.out.parent.is_dir():
            raise CatuvacError(f"no folder {self.out.parent}; create it first")
        from rich.progress import track

        from catuvac.training.run_dir import machine, revision  # imported here, because torch would slow down --help

        source = revision() or "not recorded"
        kept = self.out.with_suffix(".csv")
        done = pd.read_csv(kept, keep_default_na=False) if kept.exists() else pd.DataFrame(columns=KEPT)
        same = (done["repeats"].astype(int) == self.repeats) & (done["revision"] == source)
        done = done[same]  # rows of another revision or number of repeats are not part of this table
        for scenario in SCENARIOS:
            if (done["scenario"] == scenario.name).any():
                continue
            rates = rows(scenario, self.repeats, partial(track, description=scenario.name))
            done = pd.concat([done, rates.assign(repeats=self.repeats, revision=source)], ignore_index=True)
            write_text(kept, done.to_csv(index=False))
        write_text(self.out, page(done, repeats=self.repeats, source=source, machine=machine()))
        kept.unlink(missing_ok=True)
        print(f"{self.out}: {(done['as wanted'] == 'yes').sum()} of {len(done)} rates as wanted")


KEPT = [*HEAD, "repeats", "revision"]


def page(done: pd.DataFrame, *, repeats: int, source: str, machine: str) -> str:
    """Formats the table as Markdown, with how it was made."""
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    lines += [f"| {' | '.join(map(str, row))} |" for row in done[list(HEAD)].itertuples(index=False)]
    return (
        "# Are the statements of the page true?\n\n"
        f"    python -m analysis.simulations --repeats {repeats} --out studies/simulations.md\n\n"
        f"Commit {source}, {machine}. {repeats} studies with known effects per scenario "
        f"(`analysis/simulations.py`), analysed with the estimates and verdicts of the page. Margin {MARGIN:g} AMI; "
        f"primary contrast {FACTOR}, at 95 %; all other claims together at {FAMILY:.0%}. β changes AMI by {BETA:g} "
        f"over its range. Standard deviations: {FACTORIAL.cell:g} for a setting, {FACTORIAL.seed:g} for a seed block "
        f"and for a trial; {SOBOL.seed:g} for these two with 24 trials, each of which has its own seed. A rate is as "
        "wanted if its Wilson interval overlaps the wanted range.\n\n" + "\n".join(lines) + "\n"
    )


def main() -> int:
    """Runs the simulations from the command line."""
    return guarded(lambda: tyro.cli(Simulations, description=__doc__).run())


if __name__ == "__main__":
    sys.exit(main())
