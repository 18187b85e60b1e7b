"""Cat. UVAC: a variational autoencoder with a categorical cluster variable y and a Gaussian z (arXiv 2504.07652).

p(x, y, z) = p(x | y, z) Cat(y; 1/K) N(z; 0, I)        q(y, z | x) = q(y | x) q(z | x, y)
"""

from __future__ import annotations

import torch
from torch import Tensor

from catuvac.config import ModelConfig
from catuvac.models.distributions import gumbel_softmax, kl_standard_normal, kl_uniform, sample_normal
from catuvac.models.fast_conv import split_pixels
from catuvac.models.networks import ConvDecoder, ConvRecurrentEncoder
from catuvac.models.variational import Inference, LossTerms, VariationalModel


class CatUVAC(VariationalModel):
    """The networks of section 2 of the design, for any K and d, and for T and F that are multiples of 16."""

    def __init__(self, config: ModelConfig, *, n_frames: int, n_bands: int) -> None:
        super().__init__()
        self.config = config
        k, d = config.n_clusters, config.latent_dim
        self.size: dict[str, int] = {"n_frames": n_frames, "n_bands": n_bands, "channels": config.channels}
        self.encoder_y = self.new_cluster_encoder()
        self.encoder_z = ConvRecurrentEncoder(n_clusters=k, out_features=2 * d, gru_size=config.gru_size, **self.size)
        self.decoder = ConvDecoder(latent_dim=d, n_clusters=k, **self.size)
        self.held = False  # the ELBO's gradient does not reach q(y | x)
        self.limited = False  # the ELBO's gradient on each clip's logits is limited

    @property
    def cluster_encoder(self) -> ConvRecurrentEncoder:
        """The network q(y | x)."""
        return self.encoder_y

    def new_cluster_encoder(self) -> ConvRecurrentEncoder:
        """Returns another q(y | x) with its own weights."""
        return ConvRecurrentEncoder(out_features=self.config.n_clusters, gru_size=self.config.gru_size, **self.size)

    @property
    def prototypes(self) -> Tensor:
        """As in the base class: the decoder's output at each one-hot y and z = 0."""
        k, d = self.config.n_clusters, self.config.latent_dim
        device = self.encoder_y.head.weight.device
        return self.generate(torch.eye(k, device=device), torch.zeros(k, d, device=device))

    def limit(self, on: bool) -> None:
        """Limits the ELBO's gradient on each clip's logits to norm 1."""
        self.limited = on

    @property
    def macs(self) -> int:
        """The multiply-accumulates for the cluster of one clip."""
        return self.encoder_y.macs

    def infer(self, x: Tensor, *, tau: float | Tensor = 1.0, generator: torch.Generator | None = None) -> Inference:
        """Runs q(y | x) and q(z | x, y); without `generator` y is the one-hot argmax of the logits and z the mean."""
        pixels = split_pixels(x)  # both encoders read it
        logits = self.encoder_y(pixels).float()
        elbo_logits = self._reached(logits)
        if generator is None:
            y = one_hot(logits)
        else:
            y = gumbel_softmax(elbo_logits, tau=tau, generator=generator)
            if self.config.y_estimator == "straight_through":
                y = one_hot(y) + y - y.detach()  # Jang et al. 2017, section 2.2
        mean, log_variance = self.encoder_z(pixels, y).float().chunk(2, dim=-1)
        z = mean if generator is None else sample_normal(mean, log_variance, generator=generator)
        return Inference(logits=logits, elbo_logits=elbo_logits, y=y, mean=mean, log_variance=log_variance, z=z)

    def generate(self, y: Tensor, z: Tensor) -> Tensor:
        """Computes p(x | y, z): `[B, K]`, `[B, d]` → logits `[B, 1, T, F]`."""
        out: Tensor = self.decoder(y, z)
        return out

    def cluster_logits(self, x: Tensor) -> Tensor:
        """Computes the logits of q(y | x): `[B, 1, T, F]` → `[B, K]` float32."""
        return self.encoder_y(split_pixels(x)).float()  # type: ignore[no-any-return]

    def negative_elbo(
        self, x: Tensor, cells: Tensor, *, tau: float | Tensor, generator: torch.Generator
    ) -> tuple[LossTerms, Tensor]:
        """As in the base class; with the estimator "exact", y's expectation is a sum over all K and tau is unused."""
        if self.config.y_estimator != "exact":
            return super().negative_elbo(x, cells, tau=tau, generator=generator)
        logits = self.cluster_logits(x)
        elbo_logits = self._reached(logits)
        batch, k = logits.shape
        clusters = torch.eye(k, device=x.device).repeat(batch, 1)  # [B K, K]: every cluster of every clip
        pixels = split_pixels(x).repeat_interleave(k, dim=0)
        mean, log_variance = self.encoder_z(pixels, clusters).float().chunk(2, dim=-1)
        z = sample_normal(mean, log_variance, generator=generator)
        recon_logits = self.generate(clusters, z)
        nats = self._negative_log_likelihood(x.float().repeat_interleave(k, dim=0), recon_logits.float())
        recon = (cells.repeat_interleave(k, dim=0) * nats).sum(dim=(1, 2, 3)).view(batch, k)
        kl_z = kl_standard_normal(mean, log_variance).view(batch, k)
        q = torch.softmax(elbo_logits, dim=-1)
        terms = self.weighted(
            elbo_logits,
            recon=(q * recon).sum(dim=-1).mean(),
            kl_y=kl_uniform(elbo_logits).mean(),
            kl_z=(q * kl_z).sum(dim=-1).mean(),
        )
        return terms, logits

    def divergences(self, inference: Inference) -> tuple[Tensor, Tensor]:
        """Returns KL(q(y|x) || Cat(1/K)) and KL(q(z|x,y) || N(0, I)), each `[B]`."""
        kl_z = kl_standard_normal(inference.mean, inference.log_variance)
        return kl_uniform(inference.elbo_logits), kl_z

    def warm_up(self, on: bool) -> None:
        """Stops the ELBO's gradient to q(y | x) while on: an untrained decoder favours one cluster for every clip."""
        self.held = on

    def _reached(self, logits: Tensor) -> Tensor:
        """Returns the logits with the ELBO's gradient stopped, limited or unchanged."""
        if self.held:
            return logits.detach()
        return limit_pull(logits) if self.limited else logits


def one_hot(scores: Tensor) -> Tensor:
    """Returns 1 for the largest score of each row, 0 for the others; `[B, K]` in and out."""
    # Unlike F.one_hot, this checks no values, which would have to be read on the CPU.
    return torch.zeros_like(scores).scatter_(-1, scores.argmax(dim=-1, keepdim=True), 1.0)


def limit_pull(logits: Tensor) -> Tensor:
    """Returns `[B, K]` logits unchanged, and limits the gradient of a batch-mean loss on each clip's logits to norm 1.

    A cross-entropy's gradient on a clip's logits has at most norm √2, that of a reconstruction of T·F cells hundreds:
    unlimited, the ELBO drowns out any added term, by a factor that depends on the corpus and on the size of its
    features. Limited, the weight between the two means the same everywhere. It is gradient clipping, per clip and at
    the logits: the direction is preserved.
    """
    out = logits.view_as(logits)
    if out.requires_grad:
        out.register_hook(_limited)  # type: ignore[no-untyped-call]
    return out


def _limited(gradient: Tensor) -> Tensor:
    """Scales the gradient `[B, K]` of a mean over B clips so that its rows have norm 1 / B at most."""
    norm = len(gradient) * torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
    limited: Tensor = gradient / norm.clamp(min=1.0)
    return limited
