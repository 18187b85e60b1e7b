"""Labels never select; they say what that cost."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted import falling_with_tau_end, trial

from analysis.selection import agreement_with_labels, select
from analysis.trials import load
from catuvac.results import append_trial


def test_labels_do_not_select_and_regret_says_what_that_cost(tmp_path: Path) -> None:
    selection = select(load(falling_with_tau_end(tmp_path)))
    assert selection is not None
    assert selection.best["trial_id"] == "t00"
    assert selection.acc == 0.70
    assert (selection.best_acc, selection.best_acc_trial) == (0.75, "t02")
    assert selection.regret == pytest.approx(0.05)


def test_no_labels_no_regret(tmp_path: Path) -> None:
    study = load(falling_with_tau_end(tmp_path, labels=False))
    selection = select(study)
    assert selection is not None
    assert selection.best["trial_id"] == "t00"
    assert selection.regret is None
    assert agreement_with_labels(study)["objective"].n == 0


def test_nothing_is_selected_from_no_complete_trial(tmp_path: Path) -> None:
    append_trial(tmp_path, trial(0, status="error", objective=None))
    assert select(load(tmp_path)) is None


def test_agreement_is_signed_so_that_higher_is_better(tmp_path: Path) -> None:
    for i in range(4):
        append_trial(tmp_path, trial(i, **{"val/acc": 0.1 * i, "val/dbi_x": 3.0 - i, "val/silhouette_x": -0.1 * i}))
    agreement = agreement_with_labels(load(tmp_path))
    assert agreement["val/dbi_x"].rho == pytest.approx(1.0)
    assert agreement["val/silhouette_x"].rho == pytest.approx(-1.0)
    assert agreement["objective"].rho is None
    assert "val/dbi_z" not in agreement
