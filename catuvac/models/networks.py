"""The convolutional-recurrent encoder and the convolutional decoder (paper, model section; design, section 2).

Shape legend: B clips, C channels, T frames, F bands, K clusters, d latent dimensions.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

CHANNELS = (16, 32, 64, 128)
GRID = 2 ** len(CHANNELS)  # four halvings: T and F are multiples of this
GRU_SIZE = 128
GRU_LAYERS = 2


def require_grid(n_frames: int, n_bands: int) -> None:
    """Raises ValueError unless T and F are multiples of 16, so that encoder and decoder grids match."""
    if n_frames < GRID or n_bands < GRID or n_frames % GRID or n_bands % GRID:
        raise ValueError(f"T and F must be positive multiples of {GRID}, got T={n_frames}, F={n_bands}")


class ConvRecurrentEncoder(nn.Module):
    """Four strided convolutions with batch norm and ReLU, two GRU layers over time, a linear head on the last step."""

    def __init__(self, *, in_channels: int, n_frames: int, n_bands: int, out_features: int) -> None:
        super().__init__()
        require_grid(n_frames, n_bands)
        layers: list[nn.Module] = []
        for previous, channels in zip((in_channels, *CHANNELS), CHANNELS, strict=False):
            layers += [
                # The batch norm that follows has the bias.
                nn.Conv2d(previous, channels, kernel_size=8, stride=2, padding=3, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            ]
        self.convolutions = nn.Sequential(*layers)
        self.recurrent = nn.GRU(CHANNELS[-1] * n_bands // GRID, GRU_SIZE, num_layers=GRU_LAYERS, batch_first=True)
        self.head = nn.Linear(GRU_SIZE, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, T, F]` → `[B, out_features]` float32."""
        h = self.convolutions(x)  # [B, 128, T/16, F/16]
        h = h.permute(0, 2, 1, 3).flatten(start_dim=2)  # [B, T/16, 128 * F/16]
        with torch.autocast(h.device.type, enabled=False):  # a few steps of 128: float32 costs nothing here
            steps, _ = self.recurrent(h.float())
            out: Tensor = self.head(steps[:, -1])
        return out


class ConvDecoder(nn.Module):
    """z → grid; y beside its channels; four transposed convolutions; the sigmoid is left to the loss."""

    def __init__(self, *, latent_dim: int, n_clusters: int, n_frames: int, n_bands: int) -> None:
        super().__init__()
        require_grid(n_frames, n_bands)
        self.grid = (CHANNELS[-1], n_frames // GRID, n_bands // GRID)
        self.project = nn.Linear(latent_dim, self.grid[0] * self.grid[1] * self.grid[2])
        channels = (CHANNELS[-1] + n_clusters, *CHANNELS[-2::-1], 1)  # 128 + K → 64 → 32 → 16 → 1
        layers: list[nn.Module] = []
        for previous, following in itertools.pairwise(channels):
            layers += [nn.ConvTranspose2d(previous, following, kernel_size=8, stride=2, padding=3), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers[:-1])  # no ReLU after the last: these are logits

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        """`[B, K]`, `[B, d]` → reconstruction logits `[B, 1, T, F]`."""
        h = self.project(z).unflatten(1, self.grid)
        h = torch.cat([h, expand(y.to(h.dtype), h)], dim=1)
        out: Tensor = self.convolutions(h)
        return out


def expand(y: Tensor, like: Tensor) -> Tensor:
    """Repeats `y [B, K]` over the grid of `like [B, C, T, F]`: `[B, K, T, F]`, to stand beside its channels."""
    return y[:, :, None, None].expand(-1, -1, *like.shape[-2:])
