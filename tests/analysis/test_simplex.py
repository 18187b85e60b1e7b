"""The numpy distribution is the model's own, and its gradients are autograd's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from analysis.figures import style
from analysis.questions import simplex
from analysis.questions.simplex import LOGITS, LOSSES, Loss
from analysis.section import Group
from analysis.sections import simplex as words
from catuvac.models import distributions


def noise(rows: int, k: int = simplex.K, *, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).gumbel(size=(rows, k))


@pytest.mark.parametrize("tau", [0.1, 1.0, 5.0])
def test_samples_are_those_of_the_model_given_the_same_noise(tau: float) -> None:
    logits = torch.linspace(-1, 1, 6).repeat(50, 1)
    theirs = distributions.gumbel_softmax(logits, tau=tau, generator=torch.Generator().manual_seed(3))
    exponential = torch.empty_like(logits).exponential_(generator=torch.Generator().manual_seed(3))
    mine = simplex.gumbel_softmax(logits.double().numpy(), -exponential.double().log().numpy(), tau=tau)
    np.testing.assert_allclose(mine, theirs.numpy(), atol=1e-5)


def test_samples_lie_on_the_simplex() -> None:
    drawn = simplex.samples()
    y = drawn[["y0", "y1", "y2"]].to_numpy()
    assert (y >= 0).all()
    np.testing.assert_allclose(y.sum(axis=1), 1.0)
    assert drawn["tau"].value_counts().to_dict() == dict.fromkeys(simplex.DRAWN, simplex.SAMPLES)


def test_cold_samples_are_corners_with_the_right_frequencies() -> None:
    p = np.array(simplex.PROBABILITIES)
    y = simplex.gumbel_softmax(np.log(p), noise(20_000, 3), tau=0.01)
    assert (y.max(axis=1) > 0.99).mean() > 0.95
    np.testing.assert_allclose(y.mean(axis=0), p, atol=0.015)


def test_hot_samples_are_near_the_centre() -> None:
    y = simplex.gumbel_softmax(np.log(np.array(simplex.PROBABILITIES)), noise(1000, 3), tau=100.0)
    np.testing.assert_allclose(y, 1 / 3, atol=0.05)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
@pytest.mark.parametrize("tau", [0.1, 0.7, 5.0])
def test_the_gradient_is_autograds(loss: Loss, tau: float) -> None:
    g = noise(20)
    logits = torch.tensor(LOGITS).repeat(20, 1).requires_grad_()
    y = torch.softmax((logits + torch.tensor(g)) / tau, dim=-1)
    (y @ torch.tensor(loss.costs) + loss.curvature * y.square().sum(dim=-1)).sum().backward()
    mine = simplex.gumbel_softmax(LOGITS, g, tau=tau)
    assert logits.grad is not None
    np.testing.assert_allclose(
        simplex.sample_gradient(mine, loss.slope(mine), tau=tau), logits.grad.numpy(), atol=1e-10, rtol=1e-7
    )


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_the_exact_gradient_is_autograds(loss: Loss) -> None:
    logits = torch.tensor(LOGITS, requires_grad=True)
    (torch.softmax(logits, dim=-1) @ torch.tensor(loss.costs + loss.curvature)).backward()
    assert logits.grad is not None
    np.testing.assert_allclose(simplex.exact_gradient(loss), logits.grad.numpy(), atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
@pytest.mark.parametrize("tau", [0.2, 1.0, 5.0])
def test_the_integral_is_the_mean_of_many_sampled_gradients(loss: Loss, tau: float) -> None:
    y = simplex.gumbel_softmax(LOGITS, noise(100_000), tau=tau)
    sampled = simplex.sample_gradient(y, loss.slope(y), tau=tau)
    error = sampled.std(axis=0) / np.sqrt(len(sampled))
    assert (np.abs(sampled.mean(axis=0) - simplex.relaxed_gradient(loss, tau=tau)) < 4 * error).all()


def test_the_moments_are_those_of_a_distribution_on_the_simplex() -> None:
    """Any sum over one index is a lower moment: 1, E[y_i], E[y_i²] …"""
    for tau in (0.05, 1.0, 10.0):
        first, pairs, triples = simplex._moments(tau)
        assert first.sum() == pytest.approx(1.0, abs=1e-8)
        np.testing.assert_allclose(pairs.sum(axis=1), first, atol=1e-8)
        np.testing.assert_allclose(triples.sum(axis=0), pairs.diagonal(), atol=1e-8)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_colder_means_more_variance_and_less_bias(loss: Loss) -> None:
    found = simplex.gradients(loss)
    table = found.table
    assert (np.diff(table["variance"]) < 0).all()
    assert (np.diff(table["bias"]) > 0).all()
    assert ((table["low"] < table["variance"]) & (table["variance"] < table["high"])).all()
    assert found.growth == pytest.approx(table["variance"][0.1] / table["variance"][1.0], rel=0.01)
    assert found.growth_low < found.growth < found.growth_high
    y = simplex.gumbel_softmax(LOGITS, noise(100_000, seed=2), tau=0.1)
    fresh = simplex.sample_gradient(y, loss.slope(y), tau=0.1).var(axis=0).sum()
    assert fresh == pytest.approx(table["variance"][0.1], rel=0.05)


def test_the_section_says_what_a_low_temperature_costs() -> None:
    found = words.section()
    said = {statement.name: str(statement) for statement in found.statements}
    assert set(said) == {"simplex/samples", "simplex/gradients/linear", "simplex/gradients/quadratic"}
    assert "grows by a factor of" in said["simplex/gradients/linear"]
    drawings = [d for part in found.parts if isinstance(part, Group) for d in part.drawings]
    assert len(drawings) == len(simplex.DRAWN) + 2
    for drawing in drawings:
        assert "<svg" in style.svg(drawing.figure, drawing.alt)
