"""Cat. UVAC: a variational autoencoder with a categorical cluster variable y and a Gaussian z (arXiv 2504.07652).

p(x, y, z) = p(x | y, z) Cat(y; 1/K) N(z; 0, I)        q(y, z | x) = q(y | x) q(z | x, y)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from catuvac.config import ModelConfig
from catuvac.models.distributions import gumbel_softmax, kl_standard_normal, kl_uniform, sample_normal
from catuvac.models.networks import ConvDecoder, ConvRecurrentEncoder, split_pixels
from catuvac.models.variational import Inference, VariationalModel


class CatUVAC(VariationalModel):
    """The networks of section 2 of the design, for any K, d, and T, F that are multiples of 16."""

    def __init__(self, config: ModelConfig, *, n_frames: int, n_bands: int) -> None:
        super().__init__()
        self.config = config
        k, d = config.n_clusters, config.latent_dim
        self.encoder_y = ConvRecurrentEncoder(n_frames=n_frames, n_bands=n_bands, out_features=k)
        self.encoder_z = ConvRecurrentEncoder(n_clusters=k, n_frames=n_frames, n_bands=n_bands, out_features=2 * d)
        self.decoder = ConvDecoder(latent_dim=d, n_clusters=k, n_frames=n_frames, n_bands=n_bands)
        self.held = False  # the ELBO does not reach q(y | x)

    def infer(self, x: Tensor, *, tau: float | Tensor = 1.0, generator: torch.Generator | None = None) -> Inference:
        """Runs q(y | x) and q(z | x, y); without `generator` y is the one-hot argmax of the logits and z the mean."""
        pixels = split_pixels(x)  # both encoders read it
        logits = self.encoder_y(pixels).float()
        if generator is None:
            y = F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
        else:
            y = gumbel_softmax(self._reached(logits), tau=tau, generator=generator)
        mean, log_variance = self.encoder_z(pixels, y).float().chunk(2, dim=-1)
        z = mean if generator is None else sample_normal(mean, log_variance, generator=generator)
        return Inference(logits=logits, y=y, mean=mean, log_variance=log_variance, z=z)

    def generate(self, y: Tensor, z: Tensor) -> Tensor:
        """p(x | y, z): `[B, K]`, `[B, d]` → logits `[B, 1, T, F]`."""
        out: Tensor = self.decoder(y, z)
        return out

    def divergences(self, inference: Inference) -> tuple[Tensor, Tensor]:
        """KL(q(y|x) || Cat(1/K)) and KL(q(z|x,y) || N(0, I)), each `[B]`."""
        kl_z = kl_standard_normal(inference.mean, inference.log_variance)
        return kl_uniform(self._reached(inference.logits)), kl_z

    def warm_up(self, on: bool) -> None:
        """Keeps the ELBO from q(y | x): a decoder that knows nothing yet favours one cluster for every clip."""
        self.held = on

    def _reached(self, logits: Tensor) -> Tensor:
        """The logits as the ELBO may change them."""
        return logits.detach() if self.held else logits
