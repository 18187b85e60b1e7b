"""Gumbel-Softmax samples, Gaussian densities and closed-form KL divergences, always in float32."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def gumbel_softmax(logits: Tensor, *, tau: float | Tensor, generator: torch.Generator) -> Tensor:
    """Draws a relaxed one-hot sample, `softmax((logits + g) / tau)` with g ~ Gumbel(0, 1) (Jang et al. 2017, eq. 2).

    Args:
        logits: `[B, K]`, unnormalised log-probabilities.
        tau: temperature > 0; near 0 the sample is one-hot, large values make it uniform. A tensor is not checked, which
            would synchronise with its device.
        generator: source of the noise, on the device of `logits`.

    Returns:
        `[B, K]` float32, rows on the simplex.

    Raises:
        ValueError: if the number `tau` is not positive.
    """
    if not isinstance(tau, Tensor) and not tau > 0:
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


def kl_marginal(logits: Tensor) -> Tensor:
    """KL(mean_b Cat(softmax(logits_b)) || Cat(1/K)) in nats: how unequal the cluster sizes of a batch are.

    The batch mean of `kl_uniform` is this plus I(x; y), the mutual information of clip and cluster.

    Args:
        logits: `[B, K]`.

    Returns:
        a scalar in [0, log K], float32.
    """
    mean = torch.softmax(logits.float(), dim=-1).mean(dim=0)
    negative_entropy: Tensor = torch.special.xlogy(mean, mean).sum()
    return negative_entropy + math.log(logits.shape[-1])


def kl_categorical(log_q: Tensor, prior_logits: Tensor) -> Tensor:
    """KL(Cat(exp(log_q)) || Cat(softmax(prior_logits))) in nats.

    Args:
        log_q: `[B, K]`, normalised log-probabilities.
        prior_logits: `[K]`.

    Returns:
        `[B]` float32.
    """
    log_q, log_p = log_q.float(), torch.log_softmax(prior_logits.float(), dim=-1)
    return (log_q.exp() * (log_q - log_p)).sum(dim=-1)


def kl_normal(mean: Tensor, log_variance: Tensor, prior_mean: Tensor, prior_log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(prior_mean, exp(prior_log_variance))) in nats, summed over the last axis.

    Args:
        mean, log_variance, prior_mean, prior_log_variance: `[…, d]`, broadcast against each other.

    Returns:
        `[…]` float32.
    """
    mean, log_variance = mean.float(), log_variance.float()
    prior_mean, prior_log_variance = prior_mean.float(), prior_log_variance.float()
    ratio = (log_variance - prior_log_variance).exp()
    squares = (mean - prior_mean).square() * (-prior_log_variance).exp()
    return 0.5 * (ratio + squares - 1.0 + prior_log_variance - log_variance).sum(dim=-1)


def kl_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, I)) in nats; `[B, d]` in, `[B]` float32 out."""
    zero = torch.zeros_like(mean)
    return kl_normal(mean, log_variance, zero, zero)


def log_normal(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log N(z; mean, exp(log_variance)) in nats, summed over the last axis; `[…, d]` in, `[…]` float32 out."""
    z, mean, log_variance = z.float(), mean.float(), log_variance.float()
    squares = (z - mean).square() * (-log_variance).exp()
    return -0.5 * (math.log(2 * math.pi) + log_variance + squares).sum(dim=-1)


def sample_normal(mean: Tensor, log_variance: Tensor, *, generator: torch.Generator) -> Tensor:
    """Draws from N(mean, exp(log_variance)) by reparametrisation; `[B, d]` in, `[B, d]` float32 out."""
    mean, log_variance = mean.float(), log_variance.float()
    noise = torch.empty_like(mean).normal_(generator=generator)
    return mean + (0.5 * log_variance).exp() * noise
