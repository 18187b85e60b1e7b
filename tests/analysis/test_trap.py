"""The Silhouette trap: what of the score is saturation, and the null of sharpening alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from checks import drawn, told
from fabricate import study
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.special import softmax

from analysis.questions import trap
from analysis.sections import trap as words
from analysis.stats.bootstrap import Estimate
from analysis.trials import Study
from catuvac.evaluation.metrics import cluster_scores

K = 10


def logits(used: int = 6, *, n: int = 300, seed: int = 0) -> NDArray[np.float64]:
    """`[n, K]`: clips of `used` clusters, each undecided between its own and the others."""
    rng = np.random.default_rng(seed)
    table = rng.normal(0, 0.5, (n, K))
    table[:, used:] -= 8
    table[np.arange(n), np.arange(n) % used] += 2
    return table


def saturated(design: pd.DataFrame, rng: Generator) -> Mapping[str, Any]:
    confidence = rng.uniform(0.3, 1.0, len(design))
    return {"val/confidence": confidence, "val/silhouette_p": 2 * confidence**2 - 1}


def of_the_partition(design: pd.DataFrame, rng: Generator) -> Mapping[str, Any]:
    confidence, ami = rng.uniform(0.3, 1.0, len(design)), rng.uniform(0.0, 0.8, len(design))
    return {"val/confidence": confidence, "val/ami": ami, "val/silhouette_p": 0.3 * confidence + 0.7 * ami}


def without(found: Study, *columns: str) -> Study:
    return replace(found, trials=found.trials.drop(columns=list(columns)))


def test_sharpening_leaves_the_partition_and_lifts_silhouette_to_its_limit() -> None:
    table = logits()
    found = trap.sharpen("planted", table)
    curve = found.curve
    assert list(curve["temperature"]) == sorted(trap.SHARPENING, reverse=True)
    for t in curve["temperature"]:
        assert np.array_equal(softmax(table / t, axis=1).argmax(axis=1), table.argmax(axis=1))
    assert (np.diff(curve["silhouette"]) > 0).all()
    assert (np.diff(curve["confidence"]) > 0).all()
    assert (np.diff(curve["dbi"]) < 0).all()
    assert curve["silhouette"].iloc[0] < 0.6
    assert curve["silhouette"].iloc[-1] > 0.95  # of the limit 1: every clip at its cluster's corner of the simplex
    assert found.clusters_used == 6


def test_at_temperature_one_the_score_is_the_models_own() -> None:
    table = logits()
    curve = trap.sharpen("planted", table, temperatures=(2.0, 0.5)).curve.set_index("temperature")
    own = cluster_scores(softmax(table, axis=1), table.argmax(axis=1))
    assert curve["silhouette"][1.0] == pytest.approx(own["silhouette"])
    assert list(curve.index) == [2.0, 1.0, 0.5]


def test_label_scores_are_of_the_partition_and_absent_without_labels() -> None:
    table = logits()
    labels = [str(i) for i in table.argmax(axis=1)]
    assert trap.sharpen("planted", table, labels).ami == pytest.approx(1.0)
    assert trap.sharpen("planted", table, labels).acc == pytest.approx(1.0)
    assert trap.sharpen("planted", table).ami is None
    assert trap.sharpen("planted", table, [None] * len(table)).ami is None


def test_one_cluster_a_diverged_model_and_many_clips_are_handled() -> None:
    one = trap.sharpen("merged", logits(1))
    assert (one.clusters_used, len(one.curve)) == (1, 0)
    diverged = trap.sharpen("diverged", np.full((5, K), np.nan), ["a"] * 5)
    assert (diverged.clips, len(diverged.curve)) == (0, 0)
    assert trap.sharpen("many", logits(n=5000), temperatures=(1.0,)).clips == trap.MAX_CLIPS
    section = words.section(study(20), [one, diverged])
    said = [str(each) for each in section.statements if "sharpened" in each.name]
    assert len(said) == 2
    assert all("no Silhouette (p) to change" in text for text in said)
    told(section)


def test_a_trained_model_is_sharpened_without_importing_torch() -> None:
    clips = pd.DataFrame({"label": [str(i % 6) for i in range(300)]})
    config = SimpleNamespace(corpus=SimpleNamespace(corpus="fsdd"))
    model = SimpleNamespace(name="trial 7 of fsdd", logits=logits(), clips=clips, config=config)
    found = trap.of_trained(model)  # type: ignore[arg-type]
    assert (found.name, found.corpus) == ("trial 7 of fsdd", "fsdd")
    assert found.ami == pytest.approx(0.97, abs=0.02)
    model.clips = clips.drop(columns="label")
    assert trap.of_trained(model).ami is None  # type: ignore[arg-type]
    lines = "import sys; from analysis.sections import trap, dynamics, collapse; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", lines], check=False).returncode == 0


def test_the_lift_is_stated_with_the_clusters_used_beside_it() -> None:
    section = words.section(study(20), [trap.sharpen("trial 7 of fsdd", logits(), corpus="fsdd")])
    statement = next(each for each in section.statements if "sharpened" in each.name)
    assert statement.values["used"] == 6
    assert "raises Silhouette (p) of trial 7 of fsdd" in str(statement)
    assert "unchanged partition (clusters used 6 of 10)" in str(statement)
    assert statement.name in section.headline


def test_silhouette_that_follows_confidence_alone_is_saturated() -> None:
    found = trap.trap(study(48, planted=saturated))
    assert found.measure == "val/confidence"
    assert found.explained.verdict == "saturated"
    assert found.explained.alone is not None
    assert found.explained.alone.value > 0.95


def test_silhouette_that_depends_on_ami_is_not() -> None:
    explained = trap.trap(study(48, planted=of_the_partition)).explained
    assert explained.verdict == "more than saturation"
    assert explained.gain is not None
    assert explained.gain.low > 0.3
    assert explained.with_ami is not None
    assert explained.with_ami.value > 0.95


def test_noise_is_explained_by_neither() -> None:
    assert trap.trap(study(200)).explained.verdict == "neither"


def test_tpe_trials_are_shown_but_carry_no_inference() -> None:
    found = trap.trap(study(48, arm="tpe", planted=saturated))
    assert len(found.points) == 48
    assert found.points["adaptive"].all()
    assert found.explained.alone is None
    section = words.section(study(48, arm="tpe", planted=saturated))
    assert len(told(section)) == 2


def test_a_gain_that_may_be_nothing_or_much_decides_nothing() -> None:
    """The point estimate alone would call the first saturated and the second more than that."""
    alone = Estimate(0.9, 0.8, 0.95)
    for gain in (Estimate(0.02, -0.05, 0.09), Estimate(0.08, 0.01, 0.15)):
        assert trap.Explained(alone, alone, gain, 30).verdict == "undecided"
    assert trap.Explained(alone, alone, Estimate(0.0, -0.02, 0.03), 30).verdict == "saturated"
    assert trap.Explained(alone, alone, Estimate(0.2, 0.1, 0.3), 30).verdict == "more than saturation"


def test_undecided_trials_carry_no_inference() -> None:
    def ties(design: pd.DataFrame, rng: Generator) -> Mapping[str, Any]:
        return {**saturated(design, rng), "val/mutual_information": np.where(np.arange(len(design)) < 8, 0.1, 2.0)}

    found = trap.trap(study(48, planted=ties))
    assert (found.points["adaptive"].sum(), found.explained.n) == (8, 40)


def test_trials_of_one_cluster_have_no_silhouette_and_are_left_out() -> None:
    def merged(design: pd.DataFrame, rng: Generator) -> Mapping[str, Any]:
        used = np.where(np.arange(len(design)) < 5, 1.0, 6.0)
        return {**saturated(design, rng), "val/clusters_used": used}

    found = trap.trap(study(40, planted=merged))
    assert (found.undefined, len(found.points)) == (5, 35)


def test_seeds_of_one_setting_are_one_unit() -> None:
    def repeated(design: pd.DataFrame, rng: Generator) -> Mapping[str, Any]:
        first = design.iloc[np.arange(len(design)) // 10 * 10].reset_index(drop=True)
        return {**{str(name): first[name] for name in first}, **saturated(design, rng), "arm": "factorial"}

    found = trap.trap(study(60, planted=repeated))
    assert found.explained.alone is None


def test_older_tables_fall_back_on_entropy() -> None:
    found = trap.trap(without(study(30), "val/confidence"))
    assert found.measure == "val/entropy_y"
    assert len(told(words.section(without(study(30), "val/confidence"), [trap.sharpen("m", logits())]))) == 4


def test_without_labels_nothing_is_said_of_ami() -> None:
    section = words.section(without(study(48, planted=saturated), "val/acc", "val/ami", "val/ari"))
    statement = next(each for each in section.statements if each.name.endswith("explained"))
    assert "gain" not in statement.values
    assert "Not all of them have labels" in str(statement)
    told(section)


def test_two_corpora_are_two_panels_with_their_own_models() -> None:
    both = study(24, planted=saturated), study(24, corpus="tau2019", name="other", planted=saturated)
    joined = replace(both[0], trials=pd.concat([each.trials for each in both], ignore_index=True))
    section = words.section(joined, [trap.sharpen("m", logits(), corpus="tau2019")])
    names = [each.name for each in section.statements]
    assert len(set(names)) == len(names)
    assert [name.split("/")[1] for name in names if "sharpened" in name] == ["tau2019-k-10"]
    assert len(drawn(section)) == 6


@pytest.mark.parametrize(
    "odd",
    [
        study(0),
        study(1),
        study(30, planted=lambda *_: {"status": "diverged", "objective": None}),
        study(30, planted=lambda *_: {"val/silhouette_p": 0.5, "val/confidence": 0.9}),
        without(study(30), "val/silhouette_p"),
        without(study(30), "val/confidence", "val/entropy_y", "val/clusters_used"),
    ],
    ids=["no trial", "one trial", "none complete", "constant", "no silhouette", "no measure"],
)
def test_odd_tables_are_said_in_words(odd: Study) -> None:
    section = words.section(odd)
    assert section.parts
    assert not [each for each in section.statements if "alone" in each.values]
    drawn(section)
