"""Learning curves and their median."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted import evaluations, falling_with_tau_end, trial

from analysis.dynamics import curves
from analysis.trials import load
from catuvac.results import append_history, append_trial


def test_curves_and_their_median(tmp_path: Path) -> None:
    study = load(falling_with_tau_end(tmp_path))
    entropy = curves(study, "val/entropy_y")
    assert entropy.trials.shape == (4, 6)
    assert entropy.median.tolist() == pytest.approx([1.5, 1.0, 0.5, 0.25])
    assert curves(study, "tau").median.tolist() == [1.0, 0.5, 0.25, 0.125]
    assert curves(study, "val/absent").trials.empty


def test_the_median_is_over_the_trials_evaluated_there(tmp_path: Path) -> None:
    for i, entropies in enumerate([[1.0, 0.5], [2.0]]):
        append_trial(tmp_path, trial(i))
        append_history(tmp_path, evaluations(i, entropies))
    assert curves(load(tmp_path), "val/entropy_y").median.tolist() == [1.5, 0.5]
