from __future__ import annotations

import math

import pytest
import torch

from catuvac.models.distributions import gumbel_softmax, kl_standard_normal, kl_uniform, sample_normal


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_gumbel_max_draws_from_the_categorical() -> None:
    probabilities = torch.tensor([0.6, 0.3, 0.1])
    samples = gumbel_softmax(probabilities.log().expand(40_000, 3), tau=0.5, generator=generator())
    assert torch.allclose(samples.sum(-1), torch.ones(40_000), atol=1e-5)
    frequencies = torch.bincount(samples.argmax(-1), minlength=3) / 40_000
    assert torch.allclose(frequencies, probabilities, atol=0.01)  # four standard errors are 0.0098


def test_temperature_sets_the_hardness() -> None:
    logits = torch.zeros(2_000, 5)
    sharp = gumbel_softmax(logits, tau=0.05, generator=generator()).max(-1).values.mean()
    soft = gumbel_softmax(logits, tau=20.0, generator=generator()).max(-1).values.mean()
    assert sharp > 0.95
    assert soft < 0.25


@pytest.mark.parametrize("tau", [0.0, -1.0, float("nan")])
def test_tau_must_be_positive(tau: float) -> None:
    with pytest.raises(ValueError, match="tau must be positive"):
        gumbel_softmax(torch.zeros(1, 2), tau=tau, generator=generator())


def test_everything_is_float32_and_finite_at_extremes() -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0]], dtype=torch.bfloat16)
    for value in (gumbel_softmax(logits, tau=1e-3, generator=generator()), kl_uniform(logits)):
        assert value.dtype == torch.float32
        assert torch.isfinite(value).all()


@pytest.mark.parametrize("k", [2, 7, 10])
def test_kl_uniform_ends(k: int) -> None:
    assert kl_uniform(torch.zeros(1, k)).item() == pytest.approx(0.0, abs=1e-6)
    one_hot = torch.zeros(1, k)
    one_hot[0, 0] = 1e4
    assert kl_uniform(one_hot).item() == pytest.approx(math.log(k), rel=1e-5)


def test_kl_uniform_against_torch() -> None:
    logits = torch.randn(8, 6, generator=generator())
    q = torch.distributions.Categorical(logits=logits)
    p = torch.distributions.Categorical(logits=torch.zeros(8, 6))
    assert torch.allclose(kl_uniform(logits), torch.distributions.kl_divergence(q, p), atol=1e-5)


def test_kl_standard_normal_against_torch() -> None:
    mean, log_variance = torch.randn(8, 4, generator=generator()), torch.randn(8, 4, generator=generator(1))
    q = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(-1)
    assert torch.allclose(kl_standard_normal(mean, log_variance), expected, atol=1e-5)


def test_sample_normal_has_the_stated_moments_and_seed() -> None:
    mean, log_variance = torch.full((50_000, 1), 2.0), torch.full((50_000, 1), math.log(0.25))
    draw = sample_normal(mean, log_variance, generator=generator())
    assert draw.mean().item() == pytest.approx(2.0, abs=0.01)
    assert draw.std().item() == pytest.approx(0.5, abs=0.01)
    assert torch.equal(draw, sample_normal(mean, log_variance, generator=generator()))
