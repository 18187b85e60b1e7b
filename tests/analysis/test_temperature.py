"""The effect of a temperature has the planted sign."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planted import falling_with_tau_end, trial

from analysis.temperature import effect
from analysis.trials import RankCorrelation, load
from catuvac.results import append_trial


def test_the_effect_of_tau_end_has_the_planted_sign(tmp_path: Path) -> None:
    found = effect(load(falling_with_tau_end(tmp_path)), "tau_end")
    assert found.rho["objective"] == RankCorrelation(pytest.approx(-1.0), 6)
    # Ranks of clusters used: four at 4.5, two at 1.5; against -1, …, -6.
    assert found.rho["clusters_used"].rho == pytest.approx(-12 / np.sqrt(17.5 * 12))
    assert found.points["tau"].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert found.adaptive == 6


def test_a_constant_temperature_has_no_rho(tmp_path: Path) -> None:
    found = effect(load(falling_with_tau_end(tmp_path)), "tau_start")
    assert found.rho["objective"].rho is None


def test_a_method_without_temperature_has_no_points(tmp_path: Path) -> None:
    row = {name: value for name, value in trial(0, method="kmeans").items() if "tau" not in name}
    append_trial(tmp_path, row)
    assert effect(load(tmp_path), "tau_end").points.empty
