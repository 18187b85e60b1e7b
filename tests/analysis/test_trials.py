"""Reading a results folder, and rank correlation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from planted import falling_with_tau_end

from analysis.trials import RankCorrelation, load, rank_correlation
from catuvac.errors import CatuvacError
from catuvac.results import TRIALS


def test_only_complete_trials_answer(tmp_path: Path) -> None:
    study = load(falling_with_tau_end(tmp_path))
    assert study.name == "planted"
    assert study.complete["number"].tolist() == [0, 1, 2, 3, 4, 5]
    assert study.counts() == {"complete": 6, "stopped": 1, "diverged": 1, "error": 1}


def test_a_bad_folder_gives_one_line(tmp_path: Path) -> None:
    with pytest.raises(CatuvacError, match="no folder"):
        load(tmp_path / "absent")
    with pytest.raises(CatuvacError, match=r"no trials\.parquet"):
        load(tmp_path)
    (tmp_path / TRIALS).write_bytes(b"PAR1")
    with pytest.raises(CatuvacError, match="damaged"):
        load(tmp_path)


def test_rank_correlation_ignores_missing_pairs_and_shares_ties() -> None:
    a = pd.Series([1.0, 2.0, 3.0, np.nan, 5.0])
    assert rank_correlation(a, a**3) == RankCorrelation(pytest.approx(1.0), 4)
    # Ranks 1 2 3 and 1 2.5 2.5: rho = 1.5 / sqrt(2 × 1.5).
    tied = rank_correlation(pd.Series([1.0, 2.0, 3.0]), pd.Series([0.0, 7.0, 7.0]))
    assert tied.rho == pytest.approx(1.5 / np.sqrt(2 * 1.5))


def test_rank_correlation_says_why_it_is_undefined() -> None:
    a = pd.Series([1.0, 2.0, 3.0])
    assert rank_correlation(a, a * 0).reason == "one of the two is constant"
    assert rank_correlation(a[:2], a[:2]) == RankCorrelation(None, 2, "fewer than 3 trials")
