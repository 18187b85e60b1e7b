"""The convolutional-recurrent encoder and the convolutional decoder (paper, model section; design, section 2).

Shape legend: B clips, C channels, T frames, F bands, K clusters, d latent dimensions.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = (16, 32, 64, 128)
GRID = 2 ** len(CHANNELS)  # four halvings: T and F are multiples of this
GRU_SIZE = 128
GRU_LAYERS = 2
STRIDED: dict[str, Any] = {"kernel_size": 8, "stride": 2, "padding": 3}  # halves, or doubles, T and F


def require_grid(n_frames: int, n_bands: int) -> None:
    """Raises ValueError unless T and F are multiples of 16, so that encoder and decoder grids match."""
    if n_frames < GRID or n_bands < GRID or n_frames % GRID or n_bands % GRID:
        raise ValueError(f"T and F must be positive multiples of {GRID}, got T={n_frames}, F={n_bands}")


class FirstConvolution(nn.Conv2d):
    """The encoder's first layer, on x and, beside it, K channels that each hold one value of y all over the grid.

    Exactly the convolution of `[x, y]`, in a tenth of the arithmetic at K = 10: it is linear, so y only weighs K maps
    that do not depend on x.
    """

    def __init__(self, *, n_clusters: int) -> None:
        # The batch norm that follows has the bias.
        super().__init__(1 + n_clusters, CHANNELS[0], bias=False, **STRIDED)

    def forward(self, pixels: Tensor, y: Tensor | None = None) -> Tensor:
        """`split_pixels(x)` and y `[B, K]`, None where there is none, → `[B, 16, T/2, F/2]`."""
        of_x, of_y = self.weight[:, :1], self.weight[:, 1:]
        h = F.conv2d(pixels, split_kernel(of_x))
        if y is None:
            return h
        ones = split_pixels(pixels.new_ones(1, 1, *(2 * size - 6 for size in pixels.shape[-2:])))
        maps = F.conv2d(ones, split_kernel(of_y.transpose(0, 1).flatten(0, 1)[:, None]))  # [1, K 16, T/2, F/2]
        return add_weighted(h, y, maps.view(-1, CHANNELS[0], *maps.shape[-2:]))


class TransposedConvolution(nn.ConvTranspose2d):
    """Doubles T and F; adds the bias by itself, whose gradient inside a convolution takes a CPU as long as the rest."""

    bias: Tensor

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, **STRIDED)

    def forward(self, h: Tensor) -> Tensor:  # type: ignore[override]
        """h `[B, C, T, F]` → `[B, C', 2 T, 2 F]`."""
        return add_bias(F.conv_transpose2d(h, self.weight, stride=2, padding=3), self.bias)


class FirstTransposedConvolution(TransposedConvolution):
    """The decoder's first layer, on h and, beside it, y's constant channels; exactly so, as `FirstConvolution`."""

    def __init__(self, *, n_clusters: int) -> None:
        super().__init__(CHANNELS[-1] + n_clusters, CHANNELS[-2])

    def forward(self, h: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        """h `[B, 128, T/16, F/16]` and y `[B, K]` → `[B, 64, T/8, F/8]`."""
        of_h, of_y = self.weight[: CHANNELS[-1]], self.weight[CHANNELS[-1] :]
        out = F.conv_transpose2d(h, of_h, stride=2, padding=3)
        if len(of_y):
            each = torch.eye(len(of_y), dtype=h.dtype, device=h.device)[:, :, None, None].expand(-1, -1, *h.shape[-2:])
            out = add_weighted(out, y, F.conv_transpose2d(each, of_y, stride=2, padding=3))
        return add_bias(out, self.bias)


class LastTransposedConvolution(TransposedConvolution):
    """The decoder's last layer, to one channel; computed as four, as `FirstConvolution` does."""

    def __init__(self) -> None:
        super().__init__(CHANNELS[0], 1)

    def forward(self, h: Tensor) -> Tensor:  # type: ignore[override]
        """h `[B, 16, T/2, F/2]` → `[B, 1, T, F]`."""
        return join_pixels(F.conv_transpose2d(h, split_kernel(self.weight))) + self.bias


def add_weighted(h: Tensor, y: Tensor, maps: Tensor) -> Tensor:
    """h `[B, C, T, F]` + Σ_k y_k maps_k for y `[B, K]` and maps `[K, C, T, F]`."""
    return to_grid(torch.addmm(to_rows(h), y.to(h.dtype), to_rows(maps)), like=h)


def add_bias(h: Tensor, bias: Tensor) -> Tensor:
    """h `[B, C, T, F]` + bias `[C]`, as long rows: a few channels at a time take several times as long."""
    rows = to_rows(h)
    return to_grid(rows + bias.to(h.dtype).repeat(rows.shape[1] // len(bias)), like=h)


def to_rows(h: Tensor) -> Tensor:
    """`[B, C, T, F]` → `[B, T F C]`, without a copy: channels come last in memory."""
    return h.permute(0, 2, 3, 1).flatten(1)


def to_grid(rows: Tensor, *, like: Tensor) -> Tensor:
    """`[B, T F C]` → `[B, C, T, F]`, of which `like` has C, T and F."""
    return rows.view(len(rows), *like.shape[-2:], like.shape[1]).permute(0, 3, 1, 2)


def split_pixels(x: Tensor) -> Tensor:
    """`[B, 1, T, F]` → `[B, 4, T/2 + 3, F/2 + 3]`: the four pixels of each step of a strided kernel, as channels.

    Matrix units work on 16 or 32 channels at a time, and one channel leaves them idle.
    """
    padded = F.pad(x[:, 0], (3, 3, 3, 3))
    return torch.stack([padded[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], dim=-1).permute(0, 3, 1, 2)


def join_pixels(pixels: Tensor) -> Tensor:
    """`[B, 4, T/2 + 3, F/2 + 3]` → `[B, 1, T, F]`: the inverse of `split_pixels`, without its border."""
    upper_left, upper_right, lower_left, lower_right = pixels.permute(0, 2, 3, 1).unbind(dim=-1)
    upper = torch.stack([upper_left, upper_right], dim=-1).flatten(2)  # [B, T/2 + 3, F + 6]
    lower = torch.stack([lower_left, lower_right], dim=-1).flatten(2)
    return torch.stack([upper, lower], dim=2).flatten(1, 2)[:, None, 3:-3, 3:-3]


def split_kernel(weight: Tensor) -> Tensor:
    """`[C, 1, 8, 8]` → `[C, 4, 4, 4]`: does on `split_pixels(x)` what `weight` does on x with stride 2."""
    return F.pixel_unshuffle(weight, 2)


class ConvRecurrentEncoder(nn.Module):
    """Four strided convolutions with batch norm and ReLU, two GRU layers over time, a linear head on the last step."""

    def __init__(self, *, n_clusters: int = 0, n_frames: int, n_bands: int, out_features: int) -> None:
        super().__init__()
        require_grid(n_frames, n_bands)
        first = FirstConvolution(n_clusters=n_clusters)
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
        layers: list[nn.Module] = [FirstTransposedConvolution(n_clusters=n_clusters)]
        for previous, following in itertools.pairwise(CHANNELS[-2::-1]):  # 64 → 32 → 16
            layers += [nn.ReLU(), TransposedConvolution(previous, following)]
        self.convolutions = nn.Sequential(*layers, nn.ReLU(), LastTransposedConvolution())  # logits: no ReLU at the end

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        """`[B, K]`, `[B, d]` → reconstruction logits `[B, 1, T, F]`."""
        first, *others = self.convolutions
        h: Tensor = first(self.project(z).unflatten(1, self.grid), y)
        for layer in others:
            h = layer(h)
        return h
