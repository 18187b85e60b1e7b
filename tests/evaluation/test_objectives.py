"""The search's objective: no labels, no trap."""

from __future__ import annotations

import math

import numpy as np
import pytest

from catuvac.errors import CatuvacError
from catuvac.evaluation import metrics
from catuvac.evaluation.objectives import OBJECTIVES, objective, scored

K = 10


def real_scores(q: np.ndarray, seed: int = 0) -> dict[str, float]:
    clusters = q.argmax(axis=1)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(K, 8))[clusters] + rng.normal(size=(len(q), 8))
    return {**metrics.evaluate(probabilities=q, x=x, z=x[:, :3], views=(q, q)), "macs": 1.0}


def soft(clusters: np.ndarray, peak: float, spread: float, seed: int = 0) -> np.ndarray:
    """Probabilities that put about `peak` on the given cluster."""
    logits = np.random.default_rng(seed).normal(size=(len(clusters), K)) * spread
    logits[np.arange(len(clusters)), clusters] += peak
    q = np.exp(logits)
    return q / q.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_saturated_clusters_score_below_an_honest_partition(name: str) -> None:
    clusters = np.arange(300)
    trap = real_scores(soft(clusters % 2, 12.0, 0.5))
    honest = real_scores(soft(clusters % K, 4.0, 0.9))
    assert trap["silhouette_p"] > 0.98
    assert trap["clusters_used"] == 2
    assert 0.6 < honest["silhouette_p"] < 0.9
    assert honest["clusters_used"] == K
    # Two clusters that views never change hold log 2 of log 10 nats, whatever the honest partition's softness costs it.
    margin = 1.0 if name == "invariant_information" else 0.5
    assert objective(trap, name=name, n_clusters=K) < margin * objective(honest, name=name, n_clusters=K)


def test_the_trap_with_the_figures_of_the_design() -> None:
    trap = {"silhouette_p": 0.99, "silhouette_x": 0.3, "mutual_information": math.log(2)}
    honest = {"silhouette_p": 0.75, "silhouette_x": 0.1, "mutual_information": 0.8 * math.log(K)}
    for name in ("silhouette_p", "silhouette_x", "mutual_information"):
        assert objective(trap, name=name, n_clusters=K) < objective(honest, name=name, n_clusters=K)
    assert objective(trap, name="silhouette_p", n_clusters=K) == pytest.approx(0.995 / 9)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_undecided_assignments_do_not_pass_the_guard(name: str) -> None:
    # Two kinds of clip, each barely above uniform: compact in p, and every cluster holds its share of the mean.
    q = np.full((100, K), 0.95 / K)
    q[np.arange(100), np.arange(100) % 2] += 0.05
    assert objective(real_scores(q), name=name, n_clusters=K) < 0.01


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_perfect_partition_scores_high_and_a_diverged_run_zero(name: str) -> None:
    perfect = dict.fromkeys(("silhouette_x", "silhouette_z", "silhouette_p"), 1.0) | {"mutual_information": math.log(K)}
    perfect |= {"invariant_information": 1.0, "macs": 1.0}
    assert objective(perfect, name=name, n_clusters=K) == pytest.approx(1.0)
    diverged = {**metrics.floors(n_clusters=K, with_views=True), "macs": 1.0}
    assert objective(diverged, name=name, n_clusters=K) == 0.0
    assert objective(dict.fromkeys(perfect, math.nan), name=name, n_clusters=K) == 0.0


def test_of_two_networks_with_equal_clusters_the_smaller_one_has_the_better_macs() -> None:
    scores = real_scores(soft(np.arange(300) % K, 4.0, 0.9))
    small, large = (objective({**scores, "macs": macs}, name="macs", n_clusters=K) for macs in (1e5, 1e7))
    assert small > 5 * large > 0


def test_labels_change_nothing() -> None:
    scores = {"silhouette_p": 0.5, "mutual_information": 1.0}
    assert objective(scores, name="silhouette_p", n_clusters=K) == objective(
        {**scores, "acc": 1.0, "nmi_speaker": 1.0}, name="silhouette_p", n_clusters=K
    )


@pytest.mark.parametrize("name", ["acc", "nmi", "ami", "ari", "nmi_speaker", "ami_speaker"])
def test_label_scores_cannot_be_objectives(name: str) -> None:
    with pytest.raises(CatuvacError, match="labels, which may not select"):
        objective({name: 1.0}, name=name, n_clusters=K)


def test_an_objective_that_reads_labels_finds_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBJECTIVES, "cheat", lambda scores, _: scores["acc"])
    with pytest.raises(CatuvacError, match="'acc'"):
        objective({"acc": 1.0}, name="cheat", n_clusters=K)


def test_bad_requests_give_one_line() -> None:
    with pytest.raises(CatuvacError, match="unknown objective 'best'"):
        objective({}, name="best", n_clusters=K)
    with pytest.raises(CatuvacError, match="needs the score 'silhouette_p'"):
        objective({}, name="silhouette_p", n_clusters=K)
    with pytest.raises(CatuvacError, match="at least 2"):
        objective({}, name="silhouette_p", n_clusters=1)


def test_every_objective_of_a_report() -> None:
    report = {f"val/{name}": value for name, value in real_scores(soft(np.arange(300) % K, 4.0, 0.9)).items()}
    found = scored({"epoch": 3, "tau": 0.5, "loss/total": 1.0, "test/acc": 1.0, **report}, n_clusters=K)
    assert list(found) == [f"val/objective_{name}" for name in OBJECTIVES]
    scores = {name.removeprefix("val/"): value for name, value in report.items()}
    assert found["val/objective_silhouette_x"] == objective(scores, name="silhouette_x", n_clusters=K) > 0
    assert scored({**report, "val/objective_silhouette_x": 0.9}, n_clusters=K) == found
    with pytest.raises(CatuvacError, match="needs the score"):
        scored({"val/silhouette_x": 0.5, "test/mutual_information": 1.0}, n_clusters=K)
