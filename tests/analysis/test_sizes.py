"""Smaller networks against the largest one, seed by seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from checks import rendered
from fabricate import study
from numpy.random import Generator

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


@pytest.mark.parametrize("labels", [True, False])
def test_the_sentences_have_these_numbers(labels: bool) -> None:
    made = study(2 * SEEDS * len(MACS), planted=falling)
    if not labels:
        made.trials["val/invariant_information"] = made.trials.pop("val/ami")
    found = section(made, {})
    assert found is not None
    rendered(found)
    small, middle = found.statements
    assert small.values["share"] == 1 / 16
    assert small.values["verdict"] == "matters"
    assert middle.values["verdict"] == "negligible"
    assert "6.2% of the largest" in str(small)


def test_one_size_is_no_question() -> None:
    assert section(study(12), {}) is None
    assert section(study(12, planted=lambda *_: {"val/macs": 1e6}), {}) is None
