"""The table of trials reads well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from planted import falling_with_tau_end, trial

from analysis.table import constant_settings, number, settings_in_words, title, trial_table, varied_settings
from analysis.trials import load_all
from catuvac.results import append_trial


def test_scores_in_p_stand_beside_the_clusters_used(tmp_path: Path) -> None:
    append_trial(tmp_path, trial(0, **{"val/acc": 0.5, "val/dbi_p": 0.1, "test/chi_p": 9.0, "test/clusters_used": 5}))
    titles = trial_table(load_all([tmp_path])).titles
    start = titles.index("clusters used")
    assert titles[start : start + 3] == ["clusters used", "Silhouette (p)", "DBI (p)"]
    assert titles[titles.index("test CHI (p)") - 1] == "test clusters used"


def test_the_table_says_why_a_value_is_missing(tmp_path: Path) -> None:
    append_trial(tmp_path, trial(0, **{"val/acc": None, "test/acc": None}))
    append_trial(tmp_path, trial(1, status="error", objective=None))
    table = trial_table(load_all([tmp_path]))
    cells = [dict(zip(table.titles, row, strict=True)) for row in table.rows.values()]
    assert cells[0]["ACC"].text == "–"
    assert cells[0]["ACC"].reason == "no labels"
    assert cells[1]["objective"].reason == "the trial's status is error"


def test_settings_are_varied_or_shared(tmp_path: Path) -> None:
    study = load_all([falling_with_tau_end(tmp_path)])
    assert varied_settings(study) == ["config/tau_end"]
    assert constant_settings(study) == {"tau_start": 1.0, "beta": 1.0, "split": "grouped", "group": "speaker"}


def test_of_too_many_trials_the_best_are_kept_in_their_order(tmp_path: Path) -> None:
    study = load_all([falling_with_tau_end(tmp_path)])  # trial 0 has 0.9, trial 6 0.99, an error none
    assert list(trial_table(study, 3).rows) == [0, 1, 6]
    assert list(trial_table(study).rows) == list(range(9))


def test_of_several_studies_the_table_says_which(tmp_path: Path) -> None:
    study = load_all([falling_with_tau_end(tmp_path)])
    assert "study" not in trial_table(study).titles
    study.trials.loc[study.trials.index[5:], "study"] = "other"
    table = trial_table(study)
    place = table.titles.index("study")
    assert [row[place].text for row in table.rows.values()].count("other") == 4


def test_a_trial_is_named_with_what_varies(tmp_path: Path) -> None:
    assert settings_in_words(load_all([falling_with_tau_end(tmp_path)]))[2] == "t02: τ_end 0.300"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (pd.NA, "–"),
        (np.nan, "–"),
        (5.0, "5"),
        (0.12345, "0.123"),
        (1234.5, "1.23e+03"),
        (1e-4, "0.0001"),
        (True, "True"),
        ("linear", "linear"),
        ("", "(empty)"),
    ],
)
def test_numbers_read_well(value: object, text: str) -> None:
    assert number(value) == text


def test_columns_have_names_for_people() -> None:
    assert title("val/dispersion_x") == "BCSS/WCSS (x)"
    assert title("val/nmi_speaker") == "NMI speaker"
    assert title("test/acc") == "test ACC"
    assert title("config/latent_dim") == "d"
