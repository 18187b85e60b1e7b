"""The convolutional-recurrent encoder and the convolutional decoder (paper, model section; design, section 2).

Shape legend: B clips, C channels, T frames, F bands, K clusters, d latent dimensions.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from catuvac.models.fast_conv import (
    STRIDED,
    FirstConvolution,
    FirstTransposedConvolution,
    LastTransposedConvolution,
    TransposedConvolution,
)

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

    def __init__(self, *, n_clusters: int = 0, n_frames: int, n_bands: int, out_features: int) -> None:
        super().__init__()
        require_grid(n_frames, n_bands)
        first = FirstConvolution(n_clusters=n_clusters, out_channels=CHANNELS[0])
        layers: list[nn.Module] = [first, nn.BatchNorm2d(CHANNELS[0]), nn.ReLU(inplace=True)]
        for previous, channels in itertools.pairwise(CHANNELS):
            layers += [
                nn.Conv2d(previous, channels, bias=False, **STRIDED),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            ]
        self.convolutions = nn.Sequential(*layers)
        self.recurrent = nn.GRU(CHANNELS[-1] * n_bands // GRID, GRU_SIZE, num_layers=GRU_LAYERS, batch_first=True)
        self.head = nn.Linear(GRU_SIZE, out_features)

    def forward(self, pixels: Tensor, y: Tensor | None = None) -> Tensor:
        """`split_pixels(x)`, and y `[B, K]` where there are clusters, → `[B, out_features]` float32."""
        first, *others = self.convolutions
        h = first(pixels, y)
        for layer in others:
            h = layer(h)  # at last [B, 128, T/16, F/16]
        h = h.permute(0, 2, 1, 3).flatten(start_dim=2)  # [B, T/16, 128 * F/16]
        with torch.autocast(h.device.type, enabled=False):  # a few steps of 128: bfloat16 gains next to nothing
            steps, _ = self.recurrent(h.to(self.head.weight.dtype))
            out: Tensor = self.head(steps[:, -1])
        return out


class ConvDecoder(nn.Module):
    """z → grid; y beside its channels; four transposed convolutions; the sigmoid is left to the loss."""

    def __init__(self, *, latent_dim: int, n_clusters: int, n_frames: int, n_bands: int) -> None:
        super().__init__()
        require_grid(n_frames, n_bands)
        self.grid = (CHANNELS[-1], n_frames // GRID, n_bands // GRID)
        self.project = nn.Linear(latent_dim, self.grid[0] * self.grid[1] * self.grid[2])
        layers: list[nn.Module] = [FirstTransposedConvolution(CHANNELS[-1], CHANNELS[-2], n_clusters=n_clusters)]
        for previous, following in itertools.pairwise(CHANNELS[-2::-1]):  # 64 → 32 → 16
            layers += [nn.ReLU(), TransposedConvolution(previous, following)]
        self.convolutions = nn.Sequential(
            *layers, nn.ReLU(), LastTransposedConvolution(CHANNELS[0])
        )  # logits: no ReLU at the end

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        """`[B, K]`, `[B, d]` → reconstruction logits `[B, 1, T, F]`."""
        first, *others = self.convolutions
        h: Tensor = first(self.project(z).unflatten(1, self.grid), y)
        for layer in others:
            h = layer(h)
        return h
