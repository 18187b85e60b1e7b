"""A planted response is found with its size, the null is called null, and what is not independent infers nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fabricate import study
from numpy.random import Generator
from scipy import stats as scipy_stats
from scipy.interpolate import make_smoothing_spline

from analysis.columns import METRICS
from analysis.figures.style import svg
from analysis.regression import resample_weights, slope
from analysis.section import Group, Section, Table
from analysis.smoothing import curve
from analysis.stats import Estimate, spearman
from analysis.temperature import Effect, effects, moved, responses, section
from analysis.trials import Study, units

SLOPE = -0.08  # of NMI for a decade of tau_end
TAUS = ["config/tau_end", "config/tau_start", "config/tau_mean"]


def falling(design: pd.DataFrame, rng: Generator) -> Mapping[str, Any]:
    n, end = len(design), np.log10(design["config/tau_end"])
    return {
        "val/nmi": 0.3 + SLOPE * end + rng.normal(0, 0.03, n),
        "val/dbi_x": 10 ** (0.3 * end + rng.normal(0, 0.1, n)),
        "val/silhouette_p": np.clip(0.5 - 0.3 * end + rng.normal(0, 0.05, n), -1, 1),
    }


def of(found: tuple[Effect, ...], temperature: str, column: str) -> Effect:
    return next(each for each in found if each.temperature == f"config/{temperature}" and each.metric.column == column)


def both(*studies: Study) -> Study:
    return replace(studies[0], trials=pd.concat([each.trials for each in studies], ignore_index=True))


def without(found: Study, *columns: str) -> Study:
    return replace(found, trials=found.trials.drop(columns=list(columns)))


def few(*args: Any, **settings: Any) -> Study:
    """A study with four metrics beside the objective, for tests that do not need all."""
    found = study(*args, **settings)
    kept = {"val/nmi", "val/silhouette_x", "val/silhouette_p", "val/clusters_used", "objective"}
    return without(found, *(each.column for each in METRICS if each.column not in kept))


def written(found: Section) -> str:
    """All text of a section, after checks that hold for each."""
    names = [each.name for each in found.statements]
    assert len(set(names)) == len(names)
    assert set(found.headline) <= set(names)
    json.dumps([dict(each.values) for each in found.statements], allow_nan=False)
    texts = [str(each) for each in found.statements]
    for part in found.parts:
        if isinstance(part, Group):
            texts += [part.caption, *(each.alt for each in part.drawings)]
        if isinstance(part, Table):
            texts += [part.caption, *(cell for row in part.rows for cell in row)]
            assert {len(row) for row in part.rows} == {len(part.titles)}
    text = " ".join(texts)
    assert not {"nan", "None", "inf", "NaN"} & set(text.replace("(", " ").replace(",", " ").split())
    return text


def test_a_planted_effect_of_tau_end_is_found_in_sign_with_its_size_inside_the_interval() -> None:
    found = effects(study(64, planted=falling))
    nmi = of(found, "tau_end", "val/nmi")
    assert nmi.moves
    assert nmi.change is not None
    assert nmi.tau_low is not None
    true = SLOPE * np.log10(nmi.tau_high / nmi.tau_low)
    assert nmi.change.low < true < nmi.change.high < 0
    dbi = of(found, "tau_end", "val/dbi_x")  # in factors
    assert dbi.change is not None
    assert 1 < dbi.change.low < (nmi.tau_high / nmi.tau_low) ** 0.3 < dbi.change.high
    planted = {"val/nmi", "val/dbi_x", "val/silhouette_p"}
    assert {each.metric.column for each in found if each.moves} == planted


def test_intervals_cover_the_true_size_about_as_often_as_they_say() -> None:
    rng, covered = np.random.default_rng(0), 0
    for _ in range(100):
        x = rng.uniform(-1, 1, 40)
        found = slope([x], 2 * x + rng.normal(0, 1, 40), resample_weights(np.arange(40)))
        covered += found is not None and found.low < 2 < found.high
    assert covered in range(*map(int, scipy_stats.binom.ppf([0.0005, 0.9995], 100, 0.93)))


def test_tau_start_moves_nothing_once_tau_end_is_held() -> None:
    start = of(effects(few(64, planted=falling)), "tau_start", "val/nmi")
    assert start.moves  # because tau_end <= tau_start
    assert start.held is not None
    assert start.held.low < 0 < start.held.high


def test_the_null_is_called_null() -> None:
    found = section(few(64, seed=3))
    text = written(found)
    assert "none of 5 metrics moves with τ_end" in text
    assert "not told from chance" in str(found.statements[0])


@pytest.mark.slow
def test_over_200_nulls_one_in_twenty_is_called_an_effect() -> None:
    p = []
    for seed in range(200):
        trials = study(40, seed=seed).independent
        tau, nmi = (trials[name].to_numpy(dtype=float) for name in ("config/tau_end", "val/nmi"))
        p.append(spearman(tau, nmi, units=units(trials)).p)
    low, high = scipy_stats.binom.ppf([0.005, 0.995], 200, 0.05)
    assert low <= sum(each is not None and each <= 0.05 for each in p) <= high


def test_holm_leaves_a_null_panel_without_an_effect() -> None:
    assert not [each for seed in range(2) for each in effects(study(40, seed=seed)) if each.moves]


def test_trials_that_tpe_placed_carry_no_inference() -> None:
    alone = few(40, planted=falling, seed=1)
    misleading = few(40, arm="tpe", name="search", seed=2, planted=lambda d, _: {"val/nmi": d["config/tau_end"]})
    expected, found = effects(alone), effects(both(alone, misleading))
    assert of(found, "tau_end", "val/nmi") == of(expected, "tau_end", "val/nmi")
    drawn = responses("p", both(alone, misleading))[0].points
    assert drawn["independent"].sum() == 40
    assert len(drawn) == 80


def test_a_study_of_tpe_alone_says_that_no_inference_is_possible_and_draws_the_points() -> None:
    found = section(few(12, arm="tpe", planted=falling))
    assert "no inference on the temperature is possible" in written(found)
    assert found.headline == ("temperature/fsdd-k-10/none",)
    assert not any(isinstance(part, Table) for part in found.parts)
    assert [len(part.drawings) for part in found.parts if isinstance(part, Group)] == [5, 5, 5]


def test_a_constant_metric_is_drawn_but_has_no_effect() -> None:
    found = few(20, planted=lambda d, _: {"val/nmi": np.full(len(d), 0.3)})
    nmi = of(effects(found), "tau_end", "val/nmi")
    assert (nmi.change, nmi.holm) == (None, None)
    text = written(section(found))
    assert "The same in all trials: NMI" in text
    # The headline goes to what is measured without labels.
    assert section(found).headline[0].endswith("silhouette_x")


def test_without_labels_nothing_is_said_of_them() -> None:
    found = section(without(few(30), "val/nmi"))
    text = written(found)
    assert "No labels" in text
    assert found.headline == tuple(f"temperature/fsdd-k-10/{tau}/silhouette_x" for tau in ("tau_end", "tau_start"))
    assert not any(name.endswith(("/nmi", "/acc")) for name in (each.name for each in found.statements))


def test_null_labels_count_as_none() -> None:
    found = few(30, planted=lambda _design, _rng: {"val/nmi": pd.NA})
    assert "No labels" in written(section(found))


@pytest.mark.parametrize("n", [0, 1, 4])
def test_too_few_trials_are_said_to_be_too_few(n: int) -> None:
    found = section(few(max(1, n)) if n else replace(few(1), trials=few(1).trials.iloc[:0]))
    assert {0: "No trial", 1: "1 of 1 complete", 4: "4 of 4 complete"}[n] in written(found)


def test_stopped_trials_do_not_count() -> None:
    found = section(few(30, planted=lambda _design, _rng: {"status": "stopped"}))
    assert "no trial ran to its end" in written(found)


def test_missing_temperatures_are_said_to_be_missing() -> None:
    text = written(section(without(few(20), "config/tau_mean")))
    assert "no picture of mean τ" in text
    written(section(without(few(20), *TAUS)))


def test_two_corpora_are_two_panels() -> None:
    found = section(both(few(30, planted=falling), few(30, corpus="urbansound8k", name="other", seed=4)))
    written(found)
    assert {name.split("/")[1] for name in found.headline} == {"fsdd-k-10", "urbansound8k-k-10"}
    assert len(found.headline) == 4


def test_seeds_of_a_confirmed_setting_count_as_one_unit() -> None:
    once = few(12, seed=5)
    repeated = once.trials.loc[once.trials.index.repeat(4)].reset_index(drop=True)
    repeated["trial_id"], repeated["arm"] = [f"c{i}" for i in range(48)], "confirm"
    confirm, random = (
        of(effects(replace(once, trials=repeated.assign(arm=arm))), "tau_end", "val/silhouette_x")
        for arm in ("confirm", "random")
    )
    assert (confirm.correlation.n, confirm.correlation.units) == (48, 12)
    assert random.correlation.units == 48
    assert confirm.change is not None
    assert random.change is not None
    assert confirm.change.high - confirm.change.low > 1.5 * (random.change.high - random.change.low)


def test_undefined_scores_are_left_out() -> None:
    def planted(design: pd.DataFrame, rng: Generator) -> Mapping[str, Any]:
        scores = rng.uniform(0, 1, len(design))
        return {"val/silhouette_x": np.where(np.arange(len(design)) < 6, -1.0, scores)}

    found = few(30, planted=planted)
    assert of(effects(found), "tau_end", "val/silhouette_x").correlation.n == 24
    assert "left out: 6 in all" in written(section(found))


def test_the_curve_is_scipys_smoothing_spline() -> None:
    rng = np.random.default_rng(0)
    x = np.sort(rng.permutation(40)[:30] / 40 + 0.01)
    y = np.sin(3 * x) + rng.normal(0, 0.2, 30)
    found = curve(x, y, resample_weights(np.arange(30)), log=False)
    expected = make_smoothing_spline((x - x[0]) / np.ptp(x), y)((np.log10(found["tau"]) - x[0]) / np.ptp(x))
    assert np.abs(found["value"] - expected).max() < 0.02
    assert ((found["low"] <= found["value"]) & (found["value"] <= found["high"])).all()


def test_the_curve_bears_duplicates_and_few_temperatures() -> None:
    x = np.repeat([0.0, 0.1, 0.2, 0.4, 1.0], 4)
    found = curve(x, x**2, resample_weights(np.arange(20)), log=True)
    assert np.isfinite(found.to_numpy()).all()
    assert found["value"].iloc[-1] == pytest.approx(10, rel=0.1)
    assert curve(np.repeat([0.0, 1.0], 5), np.arange(10.0), resample_weights(np.arange(10)), log=False).empty


def test_a_score_in_p_is_told_with_the_clusters_used() -> None:
    found = section(few(64, planted=falling))
    moves = next(each for each in found.statements if each.name.endswith("tau_end/moves"))
    assert "clusters used by" in str(moves)


def test_every_picture_is_drawn() -> None:
    found = section(both(study(30, planted=falling), study(9, arm="tpe", name="search")))
    drawings = [each for part in found.parts if isinstance(part, Group) for each in part.drawings]
    assert len(drawings) == 3 * len(METRICS)
    assert len({each.name for each in drawings}) == len(drawings)
    assert "clusters used" in svg(next(each for each in drawings if each.name.endswith("silhouette_p")).figure, "alt")


def test_an_interval_that_excludes_0_does_not_read_as_if_it_ended_there() -> None:
    found = Estimate(-0.6, -1.4, -0.02)
    assert moved("x", found).format(**found.values("x")) == "-0.60 (95 % interval -1.40 to -0.02"
    found = Estimate(-0.6, -1.4, 0.02)
    assert moved("x", found).format(**found.values("x")) == "-0.6 (95 % interval -1.4 to +0.0"
