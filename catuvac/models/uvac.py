"""UVAC, the baseline: a variational autoencoder with a Gaussian-mixture prior over z (arXiv 2503.18579; after VaDE,
Jiang et al. 2017).

p(x, c, z) = p(x | z) N(z; μ_c, σ_c²) π_c        q(c, z | x) = p(c | z) q(z | x)

The networks are those of Cat. UVAC without y. π, μ and σ are trained; the cluster of a clip is the component most
responsible for it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from catuvac.config import ModelConfig
from catuvac.models.distributions import kl_categorical, kl_normal, log_normal, sample_normal
from catuvac.models.fast_conv import split_pixels
from catuvac.models.networks import ConvDecoder, ConvRecurrentEncoder
from catuvac.models.variational import Inference, LossTerms, VariationalModel

N_INIT = 10  # restarts of the mixture that the prior starts from
START_SHARE = 0.01  # q(z | x)'s initial share of the mixture's variance: noise new to the decoder loses clusters


class UVAC(VariationalModel):
    """UVAC for any K and d, and for T and F that are multiples of 16."""

    def __init__(self, config: ModelConfig, *, n_frames: int, n_bands: int) -> None:
        super().__init__()
        self.config = config
        k, d = config.n_clusters, config.latent_dim
        size: dict[str, int] = {"n_frames": n_frames, "n_bands": n_bands, "channels": config.channels}
        self.encoder = ConvRecurrentEncoder(out_features=2 * d, gru_size=config.gru_size, **size)
        self.decoder = ConvDecoder(latent_dim=d, n_clusters=0, **size)
        self.prior_logits = nn.Parameter(torch.zeros(k))  # log π up to a constant
        self.prior_mean = nn.Parameter(torch.randn(k, d))  # μ
        self.prior_log_variance = nn.Parameter(torch.zeros(k, d))  # log σ²
        self.autoencoder = False  # warm-up: no noise, only the reconstruction

    @property
    def prototypes(self) -> Tensor:
        """As in the base class: the decoder's output at the mean of each component."""
        return self.generate(self.prior_mean.new_zeros(len(self.prior_mean), 0), self.prior_mean)

    @property
    def macs(self) -> int:
        """The multiply-accumulates for the cluster of one clip, without the mixture's few hundred."""
        return self.encoder.macs

    def infer(self, x: Tensor, *, tau: float | Tensor = 1.0, generator: torch.Generator | None = None) -> Inference:
        """Runs q(z | x) and p(c | z); there is no relaxed y, so `tau` is unused."""
        del tau
        mean, log_variance = self.encoder(split_pixels(x)).float().chunk(2, dim=-1)
        noise = generator is not None and not self.autoencoder
        z = sample_normal(mean, log_variance, generator=generator) if noise else mean  # type: ignore[arg-type]
        logits = self.log_responsibilities(z)
        return Inference(
            logits=logits,
            elbo_logits=logits,
            y=z.new_empty(len(z), 0),
            mean=mean,
            log_variance=log_variance,
            z=z,
        )

    def cluster_logits(self, x: Tensor) -> Tensor:
        """Computes log p(c | z) at the mean of z: `[B, 1, T, F]` → `[B, K]`."""
        return self.infer(x).logits

    def log_responsibilities(self, z: Tensor) -> Tensor:
        """Computes log p(c | z) in nats: `[B, d]` → `[B, K]`.

        p(c | z) ∝ π_c Π_j N(z_j; μ_cj, σ_cj²), whose normaliser, with -½ log σ², differs between components.
        """
        density = log_normal(z[:, None], self.prior_mean, self.prior_log_variance)  # [B, K]
        return torch.log_softmax(torch.log_softmax(self.prior_logits, dim=0) + density, dim=-1)

    def generate(self, y: Tensor, z: Tensor) -> Tensor:
        """Computes p(x | z): `[B, 0]`, `[B, d]` → logits `[B, 1, T, F]`."""
        out: Tensor = self.decoder(y, z)
        return out

    def divergences(self, inference: Inference) -> tuple[Tensor, Tensor]:
        """Returns KL(p(c|z) || π) and Σ_c p(c|z) KL(q(z|x) || N(μ_c, σ_c²)), each `[B]`; they sum to the prior's KL."""
        log_gamma = inference.logits
        kl_y = kl_categorical(log_gamma, self.prior_logits)
        by_component = kl_normal(
            inference.mean[:, None], inference.log_variance[:, None], self.prior_mean, self.prior_log_variance
        )  # [B, K]
        return kl_y, (log_gamma.exp() * by_component).sum(dim=-1)

    def loss(self, x: Tensor, cells: Tensor, inference: Inference, recon_logits: Tensor) -> LossTerms:
        """As in the base class; only the reconstruction during the warm-up."""
        terms = super().loss(x, cells, inference, recon_logits)
        if not self.autoencoder:
            return terms
        return LossTerms(total=terms.recon, recon=terms.recon, kl_y=terms.kl_y, kl_z=terms.kl_z)

    def warm_up(self, on: bool) -> None:
        """Switches training as a plain autoencoder on or off."""
        self.autoencoder = on

    def after_warm_up(self, means: Callable[[], NDArray[np.float32]], *, seed: int) -> None:
        """Sets the prior to a Gaussian mixture of the clips' means, itself initialised by k-means.

        The warm-up determines neither the scale of z nor a variance of q(z | x), so the mixture sets the latter.

        Args:
            means: computes those `[N, d]` of q(z | x) over the training clips.
            seed: of the mixture's restarts.
        """
        k = self.config.n_clusters
        mixture = GaussianMixture(k, covariance_type="diag", n_init=N_INIT, random_state=seed).fit(means())
        within = mixture.weights_ @ mixture.covariances_  # [d]
        d = self.config.latent_dim
        with torch.no_grad():
            self.prior_logits.copy_(torch.from_numpy(np.log(mixture.weights_)))
            self.prior_mean.copy_(torch.from_numpy(mixture.means_))
            self.prior_log_variance.copy_(torch.from_numpy(np.log(mixture.covariances_)))
            self.encoder.head.weight[d:] = 0
            self.encoder.head.bias[d:] = torch.from_numpy(np.log(START_SHARE * within))
