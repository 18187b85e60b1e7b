"""Cat. UVAC: a variational autoencoder with a categorical cluster variable y and a Gaussian z (arXiv 2504.07652).

p(x, y, z) = p(x | y, z) Cat(y; 1/K) N(z; 0, I)        q(y, z | x) = q(y | x) q(z | x, y)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catuvac.config import ModelConfig
from catuvac.models.distributions import gumbel_softmax, kl_standard_normal, kl_uniform, sample_normal
from catuvac.models.networks import ConvDecoder, ConvRecurrentEncoder, expand


@dataclass(frozen=True)
class Inference:
    """What the encoders say of a batch."""

    logits: Tensor  # [B, K] of q(y | x)
    y: Tensor  # [B, K] relaxed sample in training, one-hot argmax in evaluation
    mean: Tensor  # [B, d] of q(z | x, y)
    log_variance: Tensor  # [B, d]
    z: Tensor  # [B, d] sample in training, mean in evaluation


@dataclass(frozen=True)
class LossTerms:
    """Batch means, in nats a clip. `total` is what is minimised; the other three are not weighted."""

    total: Tensor
    recon: Tensor
    kl_y: Tensor
    kl_z: Tensor


class CatUVAC(nn.Module):
    """The networks of section 2 of the design, for any K, d, and T, F that are multiples of 16."""

    def __init__(self, config: ModelConfig, *, n_frames: int, n_bands: int) -> None:
        super().__init__()
        self.config = config
        k, d = config.n_clusters, config.latent_dim
        self.encoder_y = ConvRecurrentEncoder(in_channels=1, n_frames=n_frames, n_bands=n_bands, out_features=k)
        self.encoder_z = ConvRecurrentEncoder(in_channels=1 + k, n_frames=n_frames, n_bands=n_bands, out_features=2 * d)
        self.decoder = ConvDecoder(latent_dim=d, n_clusters=k, n_frames=n_frames, n_bands=n_bands)

    def infer(self, x: Tensor, *, tau: float = 1.0, generator: torch.Generator | None = None) -> Inference:
        """Runs q(y | x) and q(z | x, y).

        Args:
            x: `[B, 1, T, F]` in [0, 1].
            tau: Gumbel-Softmax temperature; read only with `generator`.
            generator: source of all noise, on x's device. None evaluates: y is the one-hot argmax of the logits, z
                the mean, no noise.
        """
        logits = self.encoder_y(x).float()
        if generator is None:
            y = F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
        else:
            y = gumbel_softmax(logits, tau=tau, generator=generator)
        mean, log_variance = self.encoder_z(torch.cat([x, expand(y.to(x.dtype), x)], dim=1)).float().chunk(2, dim=-1)
        z = mean if generator is None else sample_normal(mean, log_variance, generator=generator)
        return Inference(logits=logits, y=y, mean=mean, log_variance=log_variance, z=z)

    def generate(self, y: Tensor, z: Tensor) -> Tensor:
        """p(x | y, z): `[B, K]`, `[B, d]` → logits `[B, 1, T, F]`; a sigmoid gives the picture."""
        out: Tensor = self.decoder(y, z)
        return out

    def terms(self, x: Tensor, cells: Tensor, inference: Inference, recon_logits: Tensor) -> dict[str, Tensor]:
        """The unweighted terms of the negative ELBO per clip, in nats: `recon`, `kl_y`, `kl_z`, each `[B]`.

        Args:
            x: `[B, 1, T, F]` targets in [0, 1].
            cells: `[B, 1, T, F]`, 1 where the reconstruction counts (activity mask, true bands), else 0.
            inference: of the same batch.
            recon_logits: `[B, 1, T, F]` of `generate`.
        """
        return {
            "recon": (cells * self._negative_log_likelihood(x.float(), recon_logits.float())).sum(dim=(1, 2, 3)),
            "kl_y": kl_uniform(inference.logits),
            "kl_z": kl_standard_normal(inference.mean, inference.log_variance),
        }

    def loss(self, x: Tensor, cells: Tensor, inference: Inference, recon_logits: Tensor) -> LossTerms:
        """The negative ELBO with beta on the term that `beta_on` names; arguments as for `terms`."""
        means = {name: term.mean() for name, term in self.terms(x, cells, inference, recon_logits).items()}
        recon, kl_y, kl_z = means["recon"], means["kl_y"], means["kl_z"]
        beta = self.config.beta
        match self.config.beta_on:
            case "kl_y":
                total = recon + beta * kl_y + kl_z
            case "kl":
                total = recon + beta * (kl_y + kl_z)
            case "reconstruction":
                total = beta * recon + kl_y + kl_z
        return LossTerms(total=total, recon=recon, kl_y=kl_y, kl_z=kl_z)

    def _negative_log_likelihood(self, x: Tensor, recon_logits: Tensor) -> Tensor:
        """Per cell, in nats: `[B, 1, T, F]`."""
        if self.config.likelihood == "bernoulli":
            return F.binary_cross_entropy_with_logits(recon_logits, x, reduction="none")
        sigma = self.config.sigma
        squares = (x - torch.sigmoid(recon_logits)).square()
        return squares / (2 * sigma**2) + math.log(sigma * math.sqrt(2 * math.pi))
