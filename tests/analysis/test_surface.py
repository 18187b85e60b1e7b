"""A planted interaction is found and its absence is not; the map shows what was planted and where it is unsure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fabricate import study
from numpy.random import Generator
from test_temperature import both, without, written

from analysis.columns import metric
from analysis.figures.style import svg
from analysis.section import Group, Table
from analysis.surface import MIN_INTERACTION, Surface, section, surface, surfaces
from analysis.trials import Study

MORE = -0.3  # of the slope of NMI over tau_end, for a decade of tau_start
NMI = metric("val/nmi")


def logs(design: pd.DataFrame) -> tuple[pd.Series[float], pd.Series[float]]:
    return np.log10(design["config/tau_start"]), np.log10(design["config/tau_end"])


def interacting(design: pd.DataFrame, rng: Generator) -> Mapping[str, Any]:
    start, end = logs(design)
    return {"val/nmi": 0.4 - 0.1 * end + MORE * start * end + rng.normal(0, 0.03, len(design))}


def curved(design: pd.DataFrame, rng: Generator) -> Mapping[str, Any]:
    """Both temperatures act, one of them along a parabola, and neither depends on the other."""
    start, end = logs(design)
    return {"val/nmi": 0.4 + 0.1 * start - 0.1 * end**2 + rng.normal(0, 0.03, len(design))}


def narrow(found: Study) -> Study:
    """Without the metrics that a test does not need: each costs a fit."""
    return without(found, "val/silhouette_p", "val/clusters_used")


def nmi(found: Study) -> Surface:
    return surface("fsdd, K = 10", found, NMI)


def test_a_planted_interaction_is_found_with_its_size_inside_the_interval() -> None:
    found = nmi(study(80, planted=interacting))
    assert found.interaction is not None
    assert found.starts is not None
    true = MORE * np.log10(found.starts[1] / found.starts[0])
    assert found.interaction.low < true < found.interaction.high < 0
    assert "depends on τ_start" in str(section(narrow(study(80, planted=interacting))).statements[0])


def test_a_curved_effect_is_no_interaction() -> None:
    found = nmi(study(80, planted=curved))
    assert found.interaction is not None
    assert found.interaction.low < 0 < found.interaction.high
    assert "is not seen to depend" in str(section(narrow(study(80, planted=curved))).statements[0])


def test_without_an_interaction_few_studies_show_one() -> None:
    called = sum(
        found.interaction.excludes_zero
        for found in (nmi(study(60, seed=seed, planted=curved)) for seed in range(12))
        if found.interaction is not None
    )
    assert called <= 3  # P(more) < 0.01 at 5 %


def test_each_temperatures_own_effect_is_found_with_the_other_held() -> None:
    found = nmi(study(80, planted=lambda d, rng: {"val/nmi": 0.2 * logs(d)[0] + rng.normal(0, 0.03, len(d))}))
    assert found.start_held is not None
    assert found.end_held is not None
    assert found.start_held.low < 0 < found.start_held.high
    assert found.end_held.low > 0.05


def test_the_bins_hold_every_independent_trial_once_and_lie_below_the_diagonal() -> None:
    found = nmi(both(study(64), study(20, arm="tpe", name="search")))
    assert found.bins["n"].sum() == 64
    total = (found.bins["n"] * found.bins["mean"]).sum()
    assert total == pytest.approx(found.points.loc[found.points["independent"], "value"].sum())
    assert (found.bins["end_low"] <= found.bins["start_high"]).all()


def test_the_fit_recovers_the_surface_and_its_noise_and_stays_below_the_diagonal() -> None:
    found = nmi(study(120, planted=interacting))
    fit = found.fit.dropna()
    start, end = np.log10(fit["tau_start"]), np.log10(fit["tau_end"])
    true = 0.4 - 0.1 * end + MORE * start * end
    assert np.abs(fit["mean"] - true).median() < 0.02
    assert (np.abs(fit["mean"] - true) < 3 * fit["sd"] + 0.01).mean() > 0.9
    assert found.noise == pytest.approx(0.03, rel=0.3)
    assert fit["sd"].median() < found.noise / 2  # of the surface, not of a trial
    assert (fit["tau_end"] <= fit["tau_start"] * 1.0001).all()
    assert len(fit) < len(found.fit)


def test_a_fit_takes_at_most_a_fixed_number_of_trials_always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.surface.CAP", 30)
    found = nmi(study(40))
    assert found.fitted == 30
    assert nmi(study(40)).fit.equals(found.fit)
    assert "30 of them drawn with a fixed seed" in written(section(narrow(study(40))))


def test_trials_of_tpe_carry_neither_fit_nor_inference() -> None:
    alone, search = study(40, planted=interacting), study(40, arm="tpe", name="search", seed=8)
    expected, found = nmi(alone), nmi(both(alone, search))
    assert found.interaction == expected.interaction
    assert found.fit.equals(expected.fit)
    only = section(narrow(search))
    assert "no inference" in written(only)
    drawn = next(part for part in only.parts if isinstance(part, Group)).drawings
    assert drawn[0].title == "NMI, trials"


def test_seeds_of_one_setting_count_as_one() -> None:
    once = study(12)
    repeated = once.trials.loc[once.trials.index.repeat(5)].reset_index(drop=True)
    repeated["trial_id"], repeated["arm"] = [f"c{i}" for i in range(60)], "confirm"
    found = nmi(replace(once, trials=repeated))
    assert found.units == 12 < MIN_INTERACTION
    assert found.interaction is None


def test_without_labels_the_objective_takes_the_place_of_nmi() -> None:
    found = without(study(30), "val/acc", "val/nmi")
    names = [each.metric.name for each in surfaces("p", found)]
    assert names == ["objective", "silhouette_p", "clusters_used"]
    assert "No labels" in written(section(found))


@pytest.mark.parametrize("n", [0, 1, 5, 15])
def test_few_trials_are_said_to_be_few(n: int) -> None:
    found = section(narrow(study(n)) if n else replace(study(1), trials=study(1).trials.iloc[:0]))
    words = "No trial" if n == 0 else f"{n} independent settings are too few"
    assert words in written(found)
    for part in found.parts:
        for each in part.drawings if isinstance(part, Group) else ():
            svg(each.figure, each.alt)


def test_a_constant_metric_and_a_constant_temperature_are_borne() -> None:
    constant = study(30, planted=lambda d, _: {"val/nmi": np.full(len(d), 0.3)})
    assert "do not tell whether the effect of τ_end on NMI" in written(section(narrow(constant)))
    found = section(study(30, planted=lambda _design, _rng: {"config/tau_start": 1.0, "config/tau_end": 0.5}))
    assert "too few different temperatures" in written(found)
    drawings = [each for part in found.parts if isinstance(part, Group) for each in part.drawings]
    for each in drawings:
        svg(each.figure, each.alt)


def test_two_corpora_are_two_panels_and_all_is_drawn() -> None:
    found = section(both(study(30), study(30, corpus="urbansound8k", name="other", seed=4)))
    written(found)
    assert found.headline == ("surface/fsdd-k-10/nmi", "surface/urbansound8k-k-10/nmi")
    assert sum(isinstance(part, Table) for part in found.parts) == 2
    drawings = [each for part in found.parts if isinstance(part, Group) for each in part.drawings]
    assert len(drawings) == 16
    assert "clusters" in found.parts[1].caption  # type: ignore[union-attr]
    svg(drawings[0].figure, drawings[0].alt)


def test_missing_columns_are_borne() -> None:
    written(section(without(study(20), "config/tau_start", "config/tau_end")))
    written(section(without(study(20), "val/silhouette_p", "val/clusters_used")))
