"""What Cat. UVAC and its baseline UVAC share: the terms of the negative ELBO, the likelihood, and the role of beta.

Shape legend: B clips, T frames, F bands, K clusters, d latent dimensions.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from catuvac.config import ModelConfig
from catuvac.models.distributions import kl_marginal
from catuvac.models.networks import ConvRecurrentEncoder


@dataclass(frozen=True)
class Inference:
    """A model's outputs for a batch."""

    logits: Tensor  # [B, K]; their softmax is the probability of each cluster
    elbo_logits: Tensor  # [B, K]; the same values; passes the ELBO's gradient to q(y | x) unless stopped or limited
    y: Tensor  # [B, K] relaxed sample in training, one-hot argmax in evaluation; [B, 0] if the decoder takes no y
    mean: Tensor  # [B, d] of q(z | x, …)
    log_variance: Tensor  # [B, d]
    z: Tensor  # [B, d] sample in training, mean in evaluation


@dataclass(frozen=True)
class LossTerms:
    """Batch means, in nats per clip. `total` is minimised; the other three are unweighted."""

    total: Tensor
    recon: Tensor
    kl_y: Tensor
    kl_z: Tensor


class VariationalModel(nn.Module, ABC):
    """A variational autoencoder whose latent variables include a cluster."""

    config: ModelConfig

    @abstractmethod
    def infer(self, x: Tensor, *, tau: float | Tensor = 1.0, generator: torch.Generator | None = None) -> Inference:
        """Runs the encoders.

        Args:
            x: `[B, 1, T, F]` in [0, 1].
            tau: Gumbel-Softmax temperature, if the model has a relaxed y; used only with `generator`.
            generator: source of all noise, on x's device. None evaluates without noise.
        """

    @abstractmethod
    def generate(self, y: Tensor, z: Tensor) -> Tensor:
        """Computes p(x | y, z): `[B, K]`, `[B, d]` → logits `[B, 1, T, F]`; their sigmoid is the reconstruction."""

    @abstractmethod
    def divergences(self, inference: Inference) -> tuple[Tensor, Tensor]:
        """Returns the KL terms of the cluster and of z per clip, in nats, each `[B]`."""

    @abstractmethod
    def warm_up(self, on: bool) -> None:
        """Switches the mode of the first epochs, in which the ELBO does not train the clusters yet."""

    @property
    @abstractmethod
    def prototypes(self) -> Tensor:
        """The decoder's output for each cluster at the prior mean of z: logits `[K, 1, T, F]`."""

    @property
    def cluster_encoder(self) -> ConvRecurrentEncoder | None:
        """The separate network q(y | x), which a start by invariance trains; None if the model has none."""
        return None

    def new_cluster_encoder(self) -> ConvRecurrentEncoder:
        """Returns another q(y | x) with its own weights, for a further start; raises TypeError if there is none."""
        raise TypeError(f"{type(self).__name__} has no separate q(y | x)")

    def limit(self, on: bool) -> None:
        """Limits the ELBO's gradient on each clip's logits, for models in which another term trains them too."""

    def after_warm_up(self, means: Callable[[], NDArray[np.float32]], *, seed: int) -> None:
        """Initialises what depends on the warm-up.

        Args:
            means: computes the means `[N, d]` of z of the training clips.
            seed: of all random draws.
        """

    @property
    @abstractmethod
    def macs(self) -> int:
        """The multiply-accumulates for the cluster of one clip, in convolutions and matrix products."""

    @abstractmethod
    def cluster_logits(self, x: Tensor) -> Tensor:
        """Computes only the logits of `infer`: `[B, 1, T, F]` → `[B, K]` float32."""

    def negative_elbo(
        self, x: Tensor, cells: Tensor, *, tau: float | Tensor, generator: torch.Generator
    ) -> tuple[LossTerms, Tensor]:
        """Returns the loss of a training step, and the logits `[B, K]` to which a taught start adds its own loss.

        Args:
            x: `[B, 1, T, F]` in [0, 1].
            cells: `[B, 1, T, F]`, 1 where the reconstruction counts, else 0.
            tau: Gumbel-Softmax temperature, if the model has a relaxed y.
            generator: source of all noise, on x's device.
        """
        inference = self.infer(x, tau=tau, generator=generator)
        recon_logits = self.generate(inference.y, inference.z)
        return self.loss(x, cells, inference, recon_logits), inference.logits

    def terms(self, x: Tensor, cells: Tensor, inference: Inference, recon_logits: Tensor) -> dict[str, Tensor]:
        """Returns the unweighted terms of the negative ELBO per clip, in nats: `recon`, `kl_y`, `kl_z`, each `[B]`.

        Args:
            x: `[B, 1, T, F]` targets in [0, 1].
            cells: `[B, 1, T, F]`, 1 where the reconstruction counts (activity mask, true bands), else 0.
            inference: of the same batch.
            recon_logits: `[B, 1, T, F]` from `generate`.
        """
        kl_y, kl_z = self.divergences(inference)
        recon = (cells * self._negative_log_likelihood(x.float(), recon_logits.float())).sum(dim=(1, 2, 3))
        return {"recon": recon, "kl_y": kl_y, "kl_z": kl_z}

    def loss(self, x: Tensor, cells: Tensor, inference: Inference, recon_logits: Tensor) -> LossTerms:
        """Returns the negative ELBO with beta on the term that `beta_on` names; arguments as for `terms`."""
        means = {name: term.mean() for name, term in self.terms(x, cells, inference, recon_logits).items()}
        return self.weighted(inference.elbo_logits, recon=means["recon"], kl_y=means["kl_y"], kl_z=means["kl_z"])

    def weighted(self, logits: Tensor, *, recon: Tensor, kl_y: Tensor, kl_z: Tensor) -> LossTerms:
        """Returns the weighted sum of the batch-mean terms.

        The batch's KL of y is exactly I(x; y) + KL(mean q(y|x) || 1/K); each part may have its own weight.

        Args:
            logits: `[B, K]`, whose mean distribution is the batch's q(y).
            recon, kl_y, kl_z: scalars, in nats per clip.
        """
        config, beta = self.config, self.config.beta
        beta_y = beta if config.beta_on in ("kl_y", "kl") else 1.0
        beta_z = beta if config.beta_on == "kl" else 1.0
        total = (beta if config.beta_on == "reconstruction" else 1.0) * recon + beta_z * kl_z
        if config.beta_marginal is None and config.beta_information is None:
            total = total + beta_y * kl_y
        else:
            marginal = kl_marginal(logits)
            of_marginal = beta_y if config.beta_marginal is None else config.beta_marginal
            of_information = beta_y if config.beta_information is None else config.beta_information
            total = total + of_marginal * marginal + of_information * (kl_y - marginal)
        return LossTerms(total=total, recon=recon, kl_y=kl_y, kl_z=kl_z)

    def _negative_log_likelihood(self, x: Tensor, recon_logits: Tensor) -> Tensor:
        """Returns the negative log-likelihood per cell, in nats: `[B, 1, T, F]`."""
        if self.config.likelihood == "bernoulli":
            return F.binary_cross_entropy_with_logits(recon_logits, x, reduction="none")
        sigma = self.config.sigma
        squares = (x - torch.sigmoid(recon_logits)).square()
        return squares / (2 * sigma**2) + math.log(sigma * math.sqrt(2 * math.pi))
