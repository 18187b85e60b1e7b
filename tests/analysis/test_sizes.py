"""Smaller networks against the largest one, seed by seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from checks import rendered
from fabricate import study
from numpy.random import Generator

from analysis import report
from analysis.questions.sizes import sizes
from analysis.sections.sizes import section

SEEDS, MACS = 6, (1e6, 4e6, 16e6)


def falling(design: pd.DataFrame, rng: Generator) -> Mapping[str, Any]:
    """Seeds differ by far more than sizes; the smallest network loses 0.1, the middle one nothing."""
    n = len(design)
    seed, size = np.arange(n) % SEEDS, np.arange(n) // SEEDS % len(MACS)
    ami = 0.4 + 0.05 * seed - 0.1 * (size == 0) + rng.normal(0, 0.005, n)
    return {"seed": seed, "val/macs": np.take(MACS, size), "val/ami": ami}


def test_a_planted_loss_is_found_beside_a_size_that_loses_nothing() -> None:
    (panel,) = study(2 * SEEDS * len(MACS), planted=falling).panels().values()
    found = sizes(panel, margin=0.03)
    assert found is not None
    small, middle, large = found.sizes
    assert (small.macs, middle.macs, large.macs) == MACS
    assert large.change is None
    assert small.change is not None
    assert middle.change is not None
    assert small.change.n == SEEDS  # two trainings of a seed are one draw
    assert small.change.low < -0.1 < small.change.high
    assert (small.change.verdict, middle.change.verdict) == ("matters", "negligible")


def test_trainings_that_did_not_decide_are_left_out_and_counted() -> None:
    made = study(2 * SEEDS * len(MACS), planted=falling)
    half = np.arange(len(made.trials)) % (2 * SEEDS * len(MACS)) < SEEDS  # one of two trainings of the smallest size
    made.trials.loc[half, ["val/ami", "val/mutual_information"]] = 0.0
    (panel,) = made.panels().values()
    found = sizes(panel, margin=0.03)
    assert found is not None
    assert found.undecided == SEEDS
    assert found.sizes[0].mean == pytest.approx(0.425, abs=0.01)
    summary = section(made, {})
    assert summary is not None
    assert summary.statements[0].values["undecided"] == SEEDS


@pytest.mark.parametrize("labels", [True, False])
def test_the_sentences_have_these_numbers(labels: bool) -> None:
    made = study(2 * SEEDS * len(MACS), planted=falling)
    if not labels:
        made.trials["val/invariant_information"] = made.trials.pop("val/ami")
    found = section(made, {})
    assert found is not None
    rendered(found)
    summary, small, middle = found.statements
    counts = [summary.values[name] for name in ("sizes", "matters", "negligible", "open")]
    assert counts == [2, 1, 1, 0]
    assert found.headline == (summary.name, middle.name)
    assert small.values["share"] == 1 / 16
    assert small.values["verdict"] == "matters"
    assert middle.values["verdict"] == "negligible"
    assert "6.2% of the largest" in str(small)


def test_the_change_is_that_of_the_seeds_that_were_trained_on_both_and_its_error_that_of_all_sizes() -> None:
    """Three seeds, of which one lacks the middle size, and noise that is known."""
    ami = [[0.1, 0.42, 0.40], [0.2, np.nan, 0.50], [0.3, 0.63, 0.62]]
    rows = pd.DataFrame(ami, columns=MACS).rename_axis("seed").melt(ignore_index=False, var_name="macs").dropna()
    columns = {"seed": rows.index, "val/macs": rows["macs"].astype(float).tolist(), "val/ami": rows["value"].tolist()}
    (panel,) = study(len(rows), planted=lambda *_: columns).panels().values()
    found = sizes(panel, margin=0.03)
    assert found is not None
    small, middle, large = found.sizes
    assert (small.seeds, middle.seeds, large.seeds) == (3, 2, 3)
    assert small.change is not None
    assert middle.change is not None
    assert small.change.freedom == middle.change.freedom == 8 - 2 - 3
    assert small.change.value == pytest.approx(-0.307, abs=1e-3)
    assert middle.change.value == pytest.approx(0.015, abs=5e-3)
    assert small.change.error < middle.change.error


def test_one_seed_has_no_interval() -> None:
    (panel,) = (
        study(3, planted=lambda *_: {"seed": 0, "val/macs": list(MACS), "val/ami": [0.1, 0.2, 0.3]}).panels().values()
    )
    found = sizes(panel, margin=0.03)
    assert found is not None
    assert [size.change for size in found.sizes] == [None, None, None]


@pytest.mark.parametrize(
    ("tau", "opening"), [({"config/tau_start": 1.0, "config/tau_end": 0.5}, "sizes"), ({}, "effects")]
)
def test_a_study_of_sizes_alone_opens_with_them(tau: dict[str, float], opening: str) -> None:
    made = study(2 * SEEDS * len(MACS), planted=falling)
    inputs = report.ReportInputs(replace(made, trials=made.trials.assign(**tau)), {}, {}, [], "")
    first = next(each for part in report.SECTIONS if (each := part(inputs)) is not None)
    assert report.headline([first])[0].name.startswith(f"{opening}/")


def test_one_size_is_no_question() -> None:
    assert section(study(12), {}) is None
    assert section(study(12, planted=lambda *_: {"val/macs": 1e6}), {}) is None
