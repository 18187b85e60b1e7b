"""Gumbel-Softmax samples and closed-form KL divergences, always in float32."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def gumbel_softmax(logits: Tensor, *, tau: float, generator: torch.Generator) -> Tensor:
    """Draws a relaxed one-hot sample, `softmax((logits + g) / tau)` with g ~ Gumbel(0, 1) (Jang et al. 2017, eq. 2).

    Args:
        logits: `[B, K]`, unnormalised log-probabilities.
        tau: temperature > 0; near 0 the sample is one-hot, large values make it uniform.
        generator: source of the noise, on the device of `logits`.

    Returns:
        `[B, K]` float32, rows on the simplex.

    Raises:
        ValueError: if `tau` is not positive.
    """
    if not tau > 0:
        raise ValueError(f"tau must be positive, got {tau}")
    logits = logits.float()
    exponential = torch.empty_like(logits).exponential_(generator=generator)
    gumbel = -exponential.clamp_min(torch.finfo(torch.float32).tiny).log()
    return torch.softmax((logits + gumbel) / tau, dim=-1)


def kl_uniform(logits: Tensor) -> Tensor:
    """KL(Cat(softmax(logits)) || Cat(1/K)) in nats, in [0, log K].

    Args:
        logits: `[B, K]`.

    Returns:
        `[B]` float32.
    """
    log_q = torch.log_softmax(logits.float(), dim=-1)
    return (log_q.exp() * log_q).sum(dim=-1) + math.log(logits.shape[-1])


def kl_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, I)) in nats.

    Args:
        mean, log_variance: `[B, d]`.

    Returns:
        `[B]` float32.
    """
    mean, log_variance = mean.float(), log_variance.float()
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(dim=-1)


def sample_normal(mean: Tensor, log_variance: Tensor, *, generator: torch.Generator) -> Tensor:
    """Draws from N(mean, exp(log_variance)) by reparametrisation; `[B, d]` in, `[B, d]` float32 out."""
    mean, log_variance = mean.float(), log_variance.float()
    noise = torch.empty_like(mean).normal_(generator=generator)
    return mean + (0.5 * log_variance).exp() * noise
