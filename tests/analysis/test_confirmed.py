"""Each top setting against itself: planted differences are found, none is invented, and what is left out is said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from checks import rendered, texts
from fabricate import K, study

from analysis.questions.confirm import confirmed
from analysis.questions.effects import Plan
from analysis.report import SECTIONS, ReportInputs
from analysis.sections import confirm
from analysis.trials import Study

MARGIN = 0.03
PLANS = {"tau-confirm": Plan("tau_ratio", MARGIN, True)}


def run(
    effects: Sequence[float] = (0.0,),
    *,
    seeds: int = 5,
    noise: float = 0.01,
    undecided: Sequence[str] = (),
    twins: bool = True,
    seed: int = 0,
) -> Study:
    """A confirm run whose AMI is a level of its setting, what the seed adds to all, the effect of a top setting's own
    temperature, and noise.
    """
    names = [f"top{n}{end}" for n in range(1, len(effects) + 1) for end in (("", "-paper") if twins else ("",))]
    names += [] if twins else ["paper"]
    cells = [(s, name) for s in range(seeds) for name in names]

    def planted(design: Any, rng: np.random.Generator) -> dict[str, Any]:
        del design
        level, adds = rng.normal(0.5, 0.1, len(effects)), rng.normal(0, 0.05, seeds)
        scores = []
        for s, name in cells:
            number = int(name[3]) - 1 if name != "paper" else 0
            own = 0.0 if name.endswith("paper") else effects[number]
            scores.append(level[number] + adds[s] + own + rng.normal(0, noise))
        information = [0.2 if f"{name}-{s}" in undecided else 0.9 for s, name in cells]
        return {
            "trial_id": [f"fsdd-k10-{name}-s{40 + s}" for s, name in cells],
            "seed": [40 + s for s, _ in cells],
            "arm": "confirm",
            "config/tau_start": [1.0 if name.endswith("paper") else 3.0 for _, name in cells],
            "config/tau_end": [0.5 if name.endswith("paper") else 0.2 for _, name in cells],
            "val/mutual_information": np.array(information) * np.log(K),
            "test/ami": np.array(scores),
        }

    return study(len(cells), planted=planted, name="tau-confirm", seed=seed)


def test_planted_differences_get_their_words_and_numbers() -> None:
    (found,) = confirmed(run([0.1, 0.0, -0.1], seeds=8), PLANS)
    assert found.outcome == "test/ami"
    assert [pair.setting for pair in found.pairs] == ["top1", "top2", "top3"]
    assert [pair.contrast.verdict for pair in found.pairs if pair.contrast] == ["matters", "negligible", "matters"]
    for pair, effect in zip(found.pairs, (0.1, 0.0, -0.1), strict=True):
        assert pair.contrast is not None
        assert pair.contrast.low < effect < pair.contrast.high
        assert (pair.n, pair.contrast.margin, pair.contrast.freedom) == (8, MARGIN, 7)
        assert pair.contrast.level == pytest.approx(1 - 0.05 / 3)
    assert found.seed_sd == pytest.approx(0.05, rel=0.5)  # what seeds add to all is no part of a difference


def test_a_temperature_without_effect_is_found_to_matter_in_one_of_twenty_runs() -> None:
    """Whatever the settings' own levels, which a choice by the search inflates: they cancel."""
    claims = [
        any(pair.contrast is not None and pair.contrast.verdict == "matters" for pair in found.pairs)
        for seed in range(200)
        for found in confirmed(run([0.0, 0.0, 0.0], seeds=5, noise=0.04, seed=seed), PLANS)
    ]
    assert np.mean(claims) <= 0.07


def test_an_effect_of_the_size_that_matters_is_found() -> None:
    found = [confirmed(run([-0.08], seeds=5, noise=0.02, seed=seed), PLANS)[0].pairs[0] for seed in range(50)]
    assert np.mean([pair.contrast is not None and pair.contrast.verdict == "matters" for pair in found]) >= 0.9


def test_undecided_trainings_are_left_out_with_their_pair_and_counted() -> None:
    (found,) = confirmed(run([0.1], undecided=["top1-0", "top1-paper-3"]), PLANS)
    (pair,) = found.pairs
    assert (pair.n, pair.undecided) == (3, 2)
    (few,) = confirmed(run([0.1], seeds=3, undecided=["top1-0"]), PLANS)
    assert few.pairs[0].contrast is None
    said = confirm.section(run([0.1], undecided=["top1-0"]), PLANS)
    assert {s.values["undecided"] for s in said.statements if "undecided" in s.values} == {1}


def test_a_run_of_an_earlier_version_is_read_and_says_that_it_compares_other_things() -> None:
    (found,) = confirmed(run([0.1], twins=False), PLANS)
    assert found.pairs == ()
    assert list(found.scores) == ["top1", "paper"]
    section = confirm.section(run([0.1], twins=False), PLANS)
    assert rendered(section) == 1
    assert "earlier version" in " ".join(texts(section).values())


def test_without_confirm_runs_the_section_says_how_to_make_them() -> None:
    section = confirm.section(study(8), {})
    assert section.statements == ()
    assert rendered(section) == 0


def test_every_number_of_a_sentence_is_that_of_its_pair() -> None:
    study_ = run([0.1, 0.0])
    (found,) = confirmed(study_, PLANS)
    section = confirm.section(study_, PLANS)
    assert rendered(section) == 1
    by_name = {statement.name.rpartition("/")[2]: statement for statement in section.statements}
    for pair in found.pairs:
        assert pair.contrast is not None
        values = by_name[pair.setting].values
        assert (values["value"], values["low"], values["high"]) == (
            pair.contrast.value,
            pair.contrast.low,
            pair.contrast.high,
        )
        assert values["verdict"] == pair.contrast.verdict


def test_confirm_runs_without_their_study_open_the_page() -> None:
    inputs = ReportInputs(run(seeds=3), PLANS, {}, (), "")
    opened = [section for build in SECTIONS[:1] if (section := build(inputs)) is not None]
    assert [section.title for section in opened] == [confirm.QUESTION]
    assert all(name.startswith("confirm/") for name in opened[0].headline)
    titles = [section.title for build in SECTIONS if (section := build(inputs)) is not None]
    assert titles.count(confirm.QUESTION) == 1
