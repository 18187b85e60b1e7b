"""The answer: what enters it, what does not, and that each sentence says what its numbers are."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fabricate import K, study
from numpy.random import Generator

from analysis.questions.effects import DECIDED, FAMILY, Plan, panels, planned, pooled, read_plan
from analysis.section import Group, Statement
from analysis.sections import effects
from analysis.trials import Study, units
from catuvac.experiments.search import MARGIN, PRIMARY_FACTOR

PLAN = Plan("tau_ratio", 0.03, True)


def ratio(design: pd.DataFrame) -> pd.Series[float]:
    return np.log(design["config/tau_end"] / design["config/tau_start"]) / np.log(20)


def planted(size: float, noise: float = 0.02) -> Any:
    """AMI rises by `size` from a ratio of 0.05 to 1; beta does much more."""

    def world(design: pd.DataFrame, rng: Generator) -> dict[str, Any]:
        ami = 0.6 + size * ratio(design) - 0.05 * np.log(design["config/beta"]) + rng.normal(0, noise, len(design))
        return {"val/ami": ami, "val/clusters_used": 9 + rng.normal(0, 0.3, len(design))}

    return world


def both(*studies: Study) -> Study:
    return replace(studies[0], trials=pd.concat([each.trials for each in studies], ignore_index=True))


def answer(found: Study, plan: Plan = PLAN) -> dict[str, Statement]:
    return {each.name: each for each in effects.section(found, {"fabricated": plan, "other": plan}).statements}


@pytest.mark.parametrize(("size", "verdict"), [(0.12, "matters"), (0.0, "negligible"), (-0.12, "matters")])
def test_a_planted_effect_is_found_with_its_size_and_its_word(size: float, verdict: str) -> None:
    (panel,) = panels(study(96, planted=planted(size)), {"fabricated": PLAN})
    assert panel.primary.found is not None
    found = panel.primary.found
    true = size * math.log(found.high / found.low) / math.log(20)
    assert found.contrast.low < true < found.contrast.high
    assert found.contrast.verdict == verdict


def test_confirm_runs_and_the_papers_protocol_change_no_digit() -> None:
    made = study(40, planted=planted(0.08))
    confirm = study(20, seed=5, arm="confirm", name="fabricated-confirm", planted=planted(0.9))
    paper = study(4, seed=6, arm="paper", name="other", planted=planted(0.9))
    tpe = study(30, seed=7, arm="tpe", name="third", planted=planted(-0.9))
    (alone,), (beside,) = panels(made, {}), panels(both(made, confirm, paper, tpe), {})
    assert beside == alone


def test_undecided_trials_enter_the_hurdle_and_not_the_effect() -> None:
    def world(design: pd.DataFrame, rng: Generator) -> dict[str, Any]:
        scores = planted(0.1)(design, rng)
        lost = np.arange(len(design)) < 10
        scores["val/ami"] = np.where(lost, 0.0, scores["val/ami"])  # near-ties of which nothing can be said
        return {**scores, "val/mutual_information": np.where(lost, 0.01, 0.9 * math.log(K))}

    (panel,) = panels(study(60, planted=world), {})
    assert panel.decided is not None
    assert (panel.decided.count, panel.decided.n) == (50, 60)
    assert panel.primary.found is not None
    assert panel.primary.found.rows == 50


def test_without_an_estimate_the_page_opens_with_how_few_decided() -> None:
    def world(design: pd.DataFrame, rng: Generator) -> dict[str, Any]:
        decided = np.arange(len(design)) < 3
        return {**planted(0.0)(design, rng), "val/mutual_information": np.where(decided, 0.9, 0.01) * math.log(K)}

    made = study(24, planted=world)
    (panel,) = panels(made, {"fabricated": PLAN})
    assert panel.primary.found is None
    section = effects.section(made, {"fabricated": PLAN})
    said = answer(made)[section.headline[0]]
    assert (said.values["decided"], said.values["trials"]) == (3, 24)
    assert len(section.headline) == 3


def test_without_labels_the_primary_outcome_reads_none() -> None:
    def world(design: pd.DataFrame, rng: Generator) -> dict[str, Any]:
        information = 0.5 + 0.1 * ratio(design) + rng.normal(0, 0.01, len(design))
        return {"val/invariant_information": information, "val/ami": np.nan}

    (panel,) = panels(study(40, planted=world), {})
    assert panel.primary.outcome == "val/invariant_information"


def test_seeds_of_one_setting_are_one_setting() -> None:
    made = study(12)
    again = replace(
        made, trials=made.trials.assign(trial_id="b", seed=99, **{"config/seed": 99, "config/split_seed": 9})
    )
    again.trials["trial_id"] = [f"b{i}" for i in range(12)]
    assert len(np.unique(units(both(made, again).trials))) == 12


def test_the_plan_is_the_studys_own_and_the_defaults_are_said_to_be(tmp_path: Path) -> None:
    assert read_plan(tmp_path) == Plan(PRIMARY_FACTOR, MARGIN, False)
    (tmp_path / "study.json").write_text(json.dumps({"design": {"primary": "tau_start", "margin": 0.1}}))
    assert read_plan(tmp_path) == Plan("tau_start", 0.1, True)
    made = study(60, planted=planted(0.0))
    fixed = str(answer(made)["effects/fsdd-k-10/tau_ratio"])
    assert "fixed beforehand" in fixed
    assert "fixed beforehand" not in str(answer(made, replace(PLAN, fixed=False))["effects/fsdd-k-10/tau_ratio"])


def test_a_sentence_is_written_from_its_numbers_and_a_null_has_its_detectable_effect() -> None:
    found = answer(study(96, planted=planted(0.0)))
    primary = found["effects/fsdd-k-10/tau_ratio"]
    (panel,) = panels(study(96, planted=planted(0.0)), {"fabricated": PLAN})
    assert panel.primary.found is not None
    contrast = panel.primary.found.contrast
    assert (primary.values["low"], primary.values["high"]) == (contrast.low, contrast.high)
    assert primary.values["verdict"] == "negligible"
    assert f"{contrast.detectable:.3f}" in str(primary)
    secondary = found["effects/fsdd-k-10/tau_start"]
    assert secondary.values["level"] > 99


def test_at_most_three_sentences_and_one_figure_open_the_page() -> None:
    for made in (study(40, planted=planted(0.1)), both(study(40), study(40, corpus="tau2019", name="other", seed=1))):
        section = effects.section(made, {})
        assert 1 <= len(section.headline) <= 3
        assert sum(len(part.drawings) for part in section.parts if isinstance(part, Group)) == 1


def test_what_matters_in_one_corpus_opens_the_page_of_several_beside_their_summary() -> None:
    def by_start(design: pd.DataFrame, rng: np.random.Generator) -> dict[str, Any]:
        return {"val/ami": 0.5 - 0.1 * np.log2(design["config/tau_start"]) + rng.normal(0, 0.02, len(design))}

    nothing, start = study(64, corpus="tau2019", name="other", seed=1), study(64, planted=by_start)
    assert effects.section(both(start, nothing), {}).headline == (
        "effects/pooled",
        "effects/fsdd-k-10/tau_start",
        "effects/seeds",
    )
    assert effects.section(both(study(64), nothing), {}).headline == ("effects/pooled", "effects/seeds")


def test_more_seeds_in_a_second_study_are_more_seeds_of_the_same_settings() -> None:
    """Seeds differ by ten times what settings do, and their levels go out, whichever study they were trained in."""

    def seeds(first: int, name: str) -> Study:
        def grid(design: pd.DataFrame, rng: np.random.Generator) -> dict[str, Any]:
            place = np.arange(len(design))
            start, share = np.array([0.5, 1, 2, 4])[place % 4], np.array([0.1, 0.3, 1])[place // 4 % 3]
            seed = first + place // 12
            level = np.random.default_rng(0).normal(0, 0.2, 100)[seed]
            return {
                "seed": seed,
                "config/tau_start": start,
                "config/tau_end": start * share,
                "config/tau_schedule": "linear",
                "config/tau_mean": 1.0,
                "config/beta": 0.1,
                "config/latent_dim": 4,
                "val/ami": 0.5 - 0.02 * np.log2(start) + level + rng.normal(0, 0.02, len(design)),
            }

        return study(36, seed=first, arm="factorial", name=name, planted=grid)

    def half(made: Study) -> float:
        (panel,) = panels(made, {})
        found = next(each.found for each in panel.effects if (each.factor, each.outcome) == ("tau_start", "val/ami"))
        assert found is not None
        assert found.settings == 12
        assert found.contrast.low < -0.06 < found.contrast.high
        return found.contrast.half

    one, other = seeds(0, "one"), seeds(3, "other")
    assert half(both(one, other)) < (half(one) + half(other)) / 2


def test_corpora_with_opposite_effects_are_not_summed_up_in_silence() -> None:
    up = study(60, planted=planted(0.2))
    down = study(60, seed=1, corpus="tau2019", name="other", planted=planted(-0.2))
    together = pooled(panels(both(up, down), {}))
    assert together is not None
    assert together.heterogeneity_p < 1e-6
    assert "describes none of them" in str(answer(both(up, down))["effects/pooled"])
    alike = study(60, seed=1, corpus="tau2019", name="other", planted=planted(0.2))
    same = pooled(panels(both(up, alike), {}))
    assert same is not None
    assert same.heterogeneity_p > 0.001
    assert same.contrast.half < min(
        p.primary.found.contrast.half for p in panels(both(up, alike), {}) if p.primary.found
    )


def test_a_summary_is_of_one_outcome_and_by_every_margin() -> None:
    def unlabelled(design: pd.DataFrame, rng: Generator) -> dict[str, Any]:
        return {"val/invariant_information": 0.5 + rng.normal(0, 0.01, len(design)), "val/ami": np.nan}

    one = study(60, planted=planted(0.0))
    other = study(60, seed=1, corpus="tau2019", name="other", planted=unlabelled)
    assert pooled(panels(both(one, other), {})) is None
    alike = both(one, study(60, seed=1, corpus="tau2019", name="other", planted=planted(0.0)))
    strict, lax = Plan("tau_ratio", 0.002, True), Plan("tau_ratio", 0.1, True)
    for plans in ({"fabricated": strict, "other": lax}, {"fabricated": lax, "other": strict}):
        together = pooled(panels(alike, plans))
        assert together is not None
        assert (together.contrast.margin, together.contrast.verdict) == (0.002, "not decided")


def test_a_summary_names_the_range_of_each_corpus() -> None:
    narrow = study(40, seed=1, corpus="other", planted=planted(0.0))
    narrow.trials["config/tau_end"] = narrow.trials["config/tau_start"] * 0.5
    narrow.trials.loc[::2, "config/tau_end"] = narrow.trials["config/tau_start"]
    said = answer(both(study(40, planted=planted(0.0)), narrow))["effects/pooled"]
    assert "from 0.5 to 1" in str(said.values["each"])


def test_panels_of_one_corpus_have_their_full_names() -> None:
    ten, five = study(60), study(60, seed=1, name="other")
    five.trials["n_clusters"] = 5
    found = both(ten, five)
    assert list(effects.by_short_name(panels(found, {}))) == ["fsdd, K = 5", "fsdd, K = 10"]
    assert "Across 2 panels" in str(answer(found)["effects/pooled"])
    other = study(60, seed=1, corpus="tau2019", name="other")
    assert list(effects.by_short_name(panels(both(ten, other), {}))) == ["fsdd", "tau2019"]


def test_the_interval_of_what_decided_counts_each_setting_once() -> None:
    one = study(12)
    again = replace(one, trials=one.trials.assign(trial_id=[f"b{i}" for i in range(12)], seed=99))
    (single,), (double,) = panels(one, {}), panels(both(one, again), {})
    assert single.decided is not None
    assert double.decided is not None
    assert (double.decided.n, double.decided.low) == (24, single.decided.low)


def test_a_summary_is_less_sure_than_its_weights_say() -> None:
    """By Meier's factor, 1 + 4 Σ w (1 - w) / ν: the weights are of errors that are themselves estimated."""
    few = both(study(24, planted=planted(0.1)), study(24, seed=1, corpus="tau2019", name="other", planted=planted(0.1)))
    found = panels(few, {})
    together = pooled(found)
    assert together is not None
    errors = [panel.primary.found.contrast.error for panel in found if panel.primary.found]
    naive = 1 / math.sqrt(sum(error**-2 for error in errors))
    assert 1.05 * naive < together.contrast.error < 1.25 * naive
    freedoms = [panel.primary.found.contrast.freedom for panel in found if panel.primary.found]
    assert min(freedoms) < together.contrast.freedom <= sum(freedoms)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_too_few_trials_are_a_sentence(n: int) -> None:
    section = effects.section(study(n), {})
    assert section.headline
    assert all(str(statement) for statement in section.statements)


def test_the_power_of_the_factorial_of_216_is_what_was_simulated() -> None:
    """Half-width 0.015 with a cell's sd of 0.015 and a seed's of 0.025 (tests/analysis/test_adjusted.py)."""
    levels = [(s, r, b) for s in (0.5, 1, 2, 4) for r in (0.05, 0.22, 1.0) for b in (0.01, 0.05, 0.2)]
    point = {"tau_schedule": "exponential", "latent_dim": 10}
    points = [{**point, "tau_start": s, "tau_ratio": r, "beta": b} for s, r, b in levels for _ in range(6)]
    found = planned(points, factor="tau_ratio", margin=0.03)
    assert found is not None
    assert found.n == 36
    assert found.half == pytest.approx(0.015, abs=0.002)
    assert planned(points[:6], factor="tau_ratio", margin=0.03) is None


def test_all_claims_but_the_primary_share_one_level() -> None:
    (panel,) = panels(study(96, planted=planted(0.0)), {"fabricated": PLAN})
    assert panel.primary.found is not None
    assert panel.primary.found.contrast.level == 0.95
    contrasts = [e.found.contrast for e in panel.effects if e.found and not e.primary]
    shapes = [e.found for e in panel.effects if e.found and e.outcome == "val/ami"]
    bends = [shape.curved for shape in shapes if shape.curved]
    crossings = {
        frozenset((e.factor, crossing.other)): crossing.contrast
        for e in panel.effects
        if e.found and e.outcome == "val/ami"
        for crossing in e.found.crossings
    }
    claims = [*contrasts, *bends, *crossings.values()]
    assert len(crossings) >= 3
    assert {claim.level for claim in claims} == {1 - FAMILY / len(claims)}


def test_a_share_of_decided_trainings_that_moves_with_the_temperature_is_said() -> None:
    def world(design: pd.DataFrame, rng: Generator) -> dict[str, Any]:
        decided = rng.random(len(design)) < 0.5 - 0.9 * (ratio(design) + 0.5)
        return {**planted(0.0)(design, rng), "val/mutual_information": np.where(decided, 0.9, 0.01) * math.log(K)}

    made = study(120, planted=world)
    (panel,) = panels(made, {"fabricated": PLAN})
    (hurdle,) = (e for e in panel.effects if (e.outcome, e.factor) == (DECIDED, "tau_ratio"))
    assert hurdle.found is not None
    assert hurdle.found.rows == 120
    true = -0.9 * math.log(hurdle.found.high / hurdle.found.low) / math.log(20)
    assert hurdle.found.contrast.low < true < hurdle.found.contrast.high < 0
    said = answer(made)["effects/fsdd-k-10/seeds"]
    assert said.values["tau_ratio_high"] == hurdle.found.contrast.high
    assert f"{hurdle.found.contrast.value:+.2f}" in str(said)


def test_a_share_changes_by_no_more_than_all() -> None:
    def world(design: pd.DataFrame, rng: Generator) -> dict[str, Any]:
        decided = ratio(design) + rng.normal(0, 0.05, len(design)) < -0.5
        return {**planted(0.0)(design, rng), "val/mutual_information": np.where(decided, 0.9, 0.01) * math.log(K)}

    (panel,) = panels(study(24, planted=world), {"fabricated": PLAN})
    (hurdle,) = (e for e in panel.effects if (e.outcome, e.factor) == (DECIDED, "tau_ratio"))
    assert hurdle.found is not None
    assert -1 == hurdle.found.contrast.low <= hurdle.found.contrast.value < hurdle.found.contrast.high < 0
    assert hurdle.found.contrast.detectable <= 1


def test_a_design_that_fits_every_setting_exactly_knows_no_noise() -> None:
    (panel,) = panels(study(40, planted=lambda design, _: {"val/ami": 0.5 + 0.1 * ratio(design)}), {})
    assert panel.primary.found is None
    assert "fits every setting exactly" in panel.primary.reason


def test_where_every_training_decides_there_is_no_hurdle() -> None:
    (panel,) = panels(study(40, planted=planted(0.0)), {})
    assert [e.reason for e in panel.effects if e.outcome == DECIDED] == ["the outcome is 1 in every trial"] * 2


def test_an_effect_that_depends_on_beta_is_said_to() -> None:
    def world(design: pd.DataFrame, rng: Generator) -> dict[str, Any]:
        b = np.log(design["config/beta"] / 0.1) / np.log(10)
        return {"val/ami": 0.5 + 0.2 * ratio(design) * b + rng.normal(0, 0.01, len(design))}

    said = answer(study(96, planted=world))["effects/fsdd-k-10/tau_ratio"]
    assert said.values["beta_more_low"] > 0
    assert "depends on β" in str(said)


def test_the_estimator_is_a_category_and_exact_has_no_temperature() -> None:
    """Straight-through estimates lie 0.2 lower, and where the sum is exact AMI has nothing to do with a temperature."""

    def world(design: pd.DataFrame, rng: Generator) -> dict[str, Any]:
        kinds = np.asarray(["gumbel", "straight_through", "exact"])[rng.integers(0, 3, len(design))]
        scores = planted(0.12)(design, rng)
        ami = scores["val/ami"] - 0.2 * (kinds == "straight_through")
        return {**scores, "val/ami": np.where(kinds == "exact", 0.9, ami), "config/y_estimator": kinds}

    made = study(96, planted=world)
    (panel,) = panels(made, {"fabricated": PLAN})
    exact = int((made.trials["config/y_estimator"] == "exact").sum())
    assert (panel.without_temperature, panel.primary.found.rows if panel.primary.found else 0) == (exact, 96 - exact)
    assert panel.primary.found is not None
    assert "y_estimator straight_through" in panel.primary.found.terms
    true = 0.12 * math.log(panel.primary.found.high / panel.primary.found.low) / math.log(20)
    assert panel.primary.found.contrast.low < true < panel.primary.found.contrast.high
    assert panel.primary.found.contrast.half < 0.03
    assert answer(made)["effects/fsdd-k-10/seeds"].values["exact"] == exact
    made.trials["config/y_estimator"] = "exact"
    assert answer(made)["effects/fsdd-k-10/seeds"].values["exact"] == 96


def test_the_invariance_term_is_a_covariate_of_which_0_is_a_level() -> None:
    def world(design: pd.DataFrame, rng: Generator) -> dict[str, Any]:
        weight = np.asarray([0.0, 10.0])[rng.integers(0, 2, len(design))]
        scores = planted(0.12)(design, rng)
        return {**scores, "val/ami": scores["val/ami"] + 0.02 * weight, "config/invariance": weight}

    (panel,) = panels(study(96, planted=world), {"fabricated": PLAN})
    assert panel.primary.found is not None
    assert "1 + invariance" in panel.primary.found.terms
    assert panel.primary.found.contrast.half < 0.03


def test_an_extension_is_said(tmp_path: Path) -> None:
    record = {"design": {"primary": "tau_ratio", "margin": 0.03}, "stages": [{"trials": 24}, {"trials": 40}]}
    (tmp_path / "study.json").write_text(json.dumps(record))
    plan = read_plan(tmp_path)
    assert plan.grown == (24, 40)
    said = answer(study(40), plan)["effects/fsdd-k-10/extended"]
    assert (said.values["first"], said.values["last"], said.values["times"]) == (24, 40, 1)
    assert "effects/fsdd-k-10/extended" not in answer(study(40), replace(plan, grown=(24,)))
