"""The convolutional-recurrent encoder and the convolutional decoder (paper, model section; design, section 2).

The paper has 16 channels in the first convolution and recurrent layers of 128 units; smaller networks are for devices.

Shape legend: B clips, C channels, T frames, F bands, K clusters, d latent dimensions.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from catuvac.config import ModelConfig
from catuvac.models.fast_conv import (
    STRIDED,
    FirstConvolution,
    FirstTransposedConvolution,
    LastTransposedConvolution,
    TransposedConvolution,
)

WIDENING = (1, 2, 4, 8)  # channels of the four convolutions, as multiples of the first
GRID = 2 ** len(WIDENING)  # four halvings: T and F are multiples of this
GRU_LAYERS = 2


def require_grid(n_frames: int, n_bands: int) -> None:
    """Raises ValueError unless T and F are multiples of 16, so that encoder and decoder grids match."""
    if n_frames < GRID or n_bands < GRID or n_frames % GRID or n_bands % GRID:
        raise ValueError(f"T and F must be positive multiples of {GRID}, got T={n_frames}, F={n_bands}")


class ConvRecurrentEncoder(nn.Module):
    """Four strided convolutions with batch norm and ReLU, two GRU layers over time, a linear head on the last step."""

    def __init__(
        self,
        *,
        n_clusters: int = 0,
        n_frames: int,
        n_bands: int,
        out_features: int,
        channels: int = ModelConfig.channels,
        gru_size: int = ModelConfig.gru_size,
    ) -> None:
        super().__init__()
        require_grid(n_frames, n_bands)
        self.size = (n_frames, n_bands)
        widths = [channels * factor for factor in WIDENING]
        first = FirstConvolution(n_clusters=n_clusters, out_channels=widths[0])
        layers: list[nn.Module] = [first, nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)]
        for previous, width in itertools.pairwise(widths):
            layers += [
                nn.Conv2d(previous, width, bias=False, **STRIDED),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
        self.convolutions = nn.Sequential(*layers)
        self.recurrent = nn.GRU(widths[-1] * n_bands // GRID, gru_size, num_layers=GRU_LAYERS, batch_first=True)
        self.head = nn.Linear(gru_size, out_features)

    @property
    def macs(self) -> int:
        """The multiply-accumulates for one clip in convolutions and matrix products."""
        cells, products = self.size[0] * self.size[1], self.head.weight.numel()
        for layer in self.convolutions:
            if isinstance(layer, nn.Conv2d):
                cells //= 4
                products += cells * layer.weight.numel()
        weights = (parameter for name, parameter in self.recurrent.named_parameters() if name.startswith("weight"))
        return int(products + self.size[0] // GRID * sum(weight.numel() for weight in weights))

    def forward(self, pixels: Tensor, y: Tensor | None = None) -> Tensor:
        """Maps `split_pixels(x)`, and y `[B, K]` if there are clusters, to `[B, out_features]` float32."""
        first, *others = self.convolutions
        h = first(pixels, y)
        for layer in others:
            h = layer(h)  # finally [B, 128, T/16, F/16]
        h = h.permute(0, 2, 1, 3).flatten(start_dim=2)  # [B, T/16, 128 * F/16]
        with torch.autocast(h.device.type, enabled=False):  # a few steps of 128: bfloat16 gains next to nothing
            steps, _ = self.recurrent(h.to(self.head.weight.dtype))
            out: Tensor = self.head(steps[:, -1])
        return out


class ConvDecoder(nn.Module):
    """Maps z to a grid, adds y as channels, and applies four transposed convolutions; the loss applies the sigmoid."""

    def __init__(
        self, *, latent_dim: int, n_clusters: int, n_frames: int, n_bands: int, channels: int = ModelConfig.channels
    ) -> None:
        super().__init__()
        require_grid(n_frames, n_bands)
        widths = [channels * factor for factor in reversed(WIDENING)]
        self.grid = (widths[0], n_frames // GRID, n_bands // GRID)
        self.project = nn.Linear(latent_dim, self.grid[0] * self.grid[1] * self.grid[2])
        layers: list[nn.Module] = [FirstTransposedConvolution(widths[0], widths[1], n_clusters=n_clusters)]
        for previous, following in itertools.pairwise(widths[1:]):  # 64 → 32 → 16
            layers += [nn.ReLU(), TransposedConvolution(previous, following)]
        self.convolutions = nn.Sequential(
            *layers, nn.ReLU(), LastTransposedConvolution(widths[-1])
        )  # logits: no ReLU at the end

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        """Maps y `[B, K]` and z `[B, d]` to reconstruction logits `[B, 1, T, F]`."""
        first, *others = self.convolutions
        h: Tensor = first(self.project(z).unflatten(1, self.grid), y)
        for layer in others:
            h = layer(h)
        return h
