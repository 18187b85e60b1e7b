"""The baseline: a straightforward Cat. UVAC. Eager float32, a DataLoader, y as K constant channels.

It uses nothing from `catuvac`, so that it reveals mistakes there: tests/studies/test_throughput.py compares the losses
of both. Parameters have the names of `catuvac.models`, so that one can start from the other's weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

CHANNELS = (16, 32, 64, 128)


class Encoder(nn.Module):
    """`[B, C, T, F]` → `[B, out_features]`."""

    def __init__(self, in_channels: int, n_bands: int, out_features: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((in_channels, *CHANNELS), CHANNELS, strict=False):
            layers += [nn.Conv2d(before, after, 8, stride=2, padding=3, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.recurrent = nn.GRU(CHANNELS[-1] * n_bands // 16, 128, num_layers=2, batch_first=True)
        self.head = nn.Linear(128, out_features)

    def forward(self, x: Tensor) -> Tensor:
        h = self.convolutions(x).permute(0, 2, 1, 3).flatten(start_dim=2)
        steps, _ = self.recurrent(h)
        out: Tensor = self.head(steps[:, -1])
        return out


class Decoder(nn.Module):
    """`[B, K]`, `[B, d]` → logits `[B, 1, T, F]`."""

    def __init__(self, latent_dim: int, n_clusters: int, n_frames: int, n_bands: int) -> None:
        super().__init__()
        self.grid = (CHANNELS[-1], n_frames // 16, n_bands // 16)
        self.project = nn.Linear(latent_dim, math.prod(self.grid))
        self.convolutions = nn.Sequential(
            nn.ConvTranspose2d(CHANNELS[3] + n_clusters, CHANNELS[2], 8, stride=2, padding=3),
            nn.ReLU(),
            nn.ConvTranspose2d(CHANNELS[2], CHANNELS[1], 8, stride=2, padding=3),
            nn.ReLU(),
            nn.ConvTranspose2d(CHANNELS[1], CHANNELS[0], 8, stride=2, padding=3),
            nn.ReLU(),
            nn.ConvTranspose2d(CHANNELS[0], 1, 8, stride=2, padding=3),
        )

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        h = self.project(z).view(-1, *self.grid)
        out: Tensor = self.convolutions(torch.cat([h, constant_channels(y, h)], dim=1))
        return out


class PlainCatUVAC(nn.Module):
    """q(y|x), q(z|x,y) and p(x|y,z)."""

    def __init__(self, n_clusters: int, latent_dim: int, n_frames: int, n_bands: int) -> None:
        super().__init__()
        self.encoder_y = Encoder(1, n_bands, n_clusters)
        self.encoder_z = Encoder(1 + n_clusters, n_bands, 2 * latent_dim)
        self.decoder = Decoder(latent_dim, n_clusters, n_frames, n_bands)

    def loss(self, x: Tensor, mask: Tensor, *, tau: float, beta: float, sigma: float, noise: torch.Generator) -> Tensor:
        """Returns the negative ELBO in nats per clip; x `[B, T, F]`, mask `[B, T]`."""
        x = x[:, None]
        logits = self.encoder_y(x)
        gumbel = -torch.empty_like(logits).exponential_(generator=noise).log()
        y = torch.softmax((logits + gumbel) / tau, dim=-1)
        mean, log_variance = self.encoder_z(torch.cat([x, constant_channels(y, x)], dim=1)).chunk(2, dim=-1)
        z = mean + torch.exp(log_variance / 2) * torch.empty_like(mean).normal_(generator=noise)
        picture = torch.sigmoid(self.decoder(y, z))
        cells = 0.5 * ((x - picture) / sigma) ** 2 + math.log(sigma * math.sqrt(2 * math.pi))
        recon = (cells * mask[:, None, :, None]).sum(dim=(1, 2, 3)).mean()
        q = torch.softmax(logits, dim=-1)
        kl_y = (q * (q.log() + math.log(q.shape[-1]))).sum(dim=-1).mean()
        kl_z = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(dim=-1).mean()
        total: Tensor = recon + beta * kl_y + kl_z
        return total


def constant_channels(y: Tensor, like: Tensor) -> Tensor:
    """`[B, K]` → `[B, K, T, F]`."""
    return y[:, :, None, None].expand(-1, -1, *like.shape[-2:])


def train(
    model: PlainCatUVAC,
    x: Tensor,
    mask: Tensor,
    *,
    batch_size: int,
    tau: float,
    beta: float,
    sigma: float,
    lr: float,
    grad_clip: float,
    noise: torch.Generator,
    order: torch.Generator,
) -> Iterator[float]:
    """Trains endlessly on the device of `model`, yielding each step's loss; x `[N, T, F]`, mask `[N, T]`."""
    device = next(model.parameters()).device
    batches = DataLoader(TensorDataset(x, mask), batch_size, shuffle=True, drop_last=True, generator=order)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    model.train()
    while True:
        for clips, active in batches:
            loss = model.loss(clips.to(device), active.to(device), tau=tau, beta=beta, sigma=sigma, noise=noise)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
            optimizer.step()
            yield loss.item()
