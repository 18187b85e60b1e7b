"""The paper's convolutions, exact but faster: y's channels folded, one channel computed as four, separate biases.

Each class has the weights, and so the state_dict, of the plain layer that it replaces, and tests compare the two in
float64. The paper's network is defined in `catuvac.models.networks`.

Shape legend: B clips, C channels, T frames, F bands, K clusters.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDED: dict[str, Any] = {"kernel_size": 8, "stride": 2, "padding": 3}  # halves, or doubles, T and F


class FirstConvolution(nn.Conv2d):
    """The encoder's first layer, on x and K further channels, each of which is one value of y on the whole grid.

    Equals the convolution of `[x, y]`, with a tenth of the arithmetic at K = 10: it is linear, so y only weights K maps
    that do not depend on x.
    """

    def __init__(self, *, n_clusters: int, out_channels: int) -> None:
        # The batch norm that follows adds the bias.
        super().__init__(1 + n_clusters, out_channels, bias=False, **STRIDED)

    def forward(self, pixels: Tensor, y: Tensor | None = None) -> Tensor:
        """Maps `split_pixels(x)` and y `[B, K]`, None if there is none, to `[B, C, T/2, F/2]`."""
        of_x, of_y = self.weight[:, :1], self.weight[:, 1:]
        h = F.conv2d(pixels, split_kernel(of_x))
        if y is None:
            return h
        ones = split_pixels(pixels.new_ones(1, 1, *(2 * size - 6 for size in pixels.shape[-2:])))
        maps = F.conv2d(ones, split_kernel(of_y.transpose(0, 1).flatten(0, 1)[:, None]))  # [1, K 16, T/2, F/2]
        return add_weighted(h, y, maps.view(-1, self.out_channels, *maps.shape[-2:]))


class TransposedConvolution(nn.ConvTranspose2d):
    """Doubles T and F; adds the bias separately: its gradient in a convolution takes a CPU as long as the rest."""

    bias: Tensor

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, **STRIDED)

    def forward(self, h: Tensor) -> Tensor:  # type: ignore[override]
        """h `[B, C, T, F]` → `[B, C', 2 T, 2 F]`."""
        return add_bias(F.conv_transpose2d(h, self.weight, stride=2, padding=3), self.bias)


class FirstTransposedConvolution(TransposedConvolution):
    """The decoder's first layer, on h and y's constant channels; exact, as in `FirstConvolution`."""

    def __init__(self, in_channels: int, out_channels: int, *, n_clusters: int) -> None:
        super().__init__(in_channels + n_clusters, out_channels)
        self.of_h = in_channels

    def forward(self, h: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        """h `[B, C, T, F]` and y `[B, K]` → `[B, C', 2 T, 2 F]`."""
        of_h, of_y = self.weight[: self.of_h], self.weight[self.of_h :]
        out = F.conv_transpose2d(h, of_h, stride=2, padding=3)
        if len(of_y):
            grid = torch.eye(len(of_y), dtype=h.dtype, device=h.device)[:, :, None, None].expand(-1, -1, *h.shape[-2:])
            out = add_weighted(out, y, F.conv_transpose2d(grid, of_y, stride=2, padding=3))
        return add_bias(out, self.bias)


class LastTransposedConvolution(TransposedConvolution):
    """The decoder's last layer, to one channel; computed as four, as in `FirstConvolution`."""

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels, 1)

    def forward(self, h: Tensor) -> Tensor:  # type: ignore[override]
        """h `[B, C, T, F]` → `[B, 1, 2 T, 2 F]`."""
        return join_pixels(F.conv_transpose2d(h, split_kernel(self.weight))) + self.bias


def add_weighted(h: Tensor, y: Tensor, maps: Tensor) -> Tensor:
    """Computes h `[B, C, T, F]` + Σ_k y_k maps_k for y `[B, K]` and maps `[K, C, T, F]`."""
    return to_grid(torch.addmm(to_rows(h), y.to(h.dtype), to_rows(maps)), like=h)


def add_bias(h: Tensor, bias: Tensor) -> Tensor:
    """Adds bias `[C]` to h `[B, C, T, F]` in long rows: a few channels at a time take several times as long."""
    rows = to_rows(h)
    return to_grid(rows + bias.to(h.dtype).repeat(rows.shape[1] // len(bias)), like=h)


def to_rows(h: Tensor) -> Tensor:
    """Reshapes `[B, C, T, F]` to `[B, T F C]`, without a copy: channels are last in memory."""
    return h.permute(0, 2, 3, 1).flatten(1)


def to_grid(rows: Tensor, *, like: Tensor) -> Tensor:
    """Reshapes `[B, T F C]` to `[B, C, T, F]`, with C, T and F of `like`."""
    return rows.view(len(rows), *like.shape[-2:], like.shape[1]).permute(0, 3, 1, 2)


def split_pixels(x: Tensor) -> Tensor:
    """`[B, 1, T, F]` → `[B, 4, T/2 + 3, F/2 + 3]`: the four pixels of each step of a strided kernel, as channels.

    Matrix units process 16 or 32 channels at a time, so that a single channel leaves them idle.
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
