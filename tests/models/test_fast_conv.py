"""Each fast convolution and its gradients are those of the plain layer that it stands for, in float64."""

from __future__ import annotations

import pytest
import torch

from catuvac.models.fast_conv import (
    FirstConvolution,
    FirstTransposedConvolution,
    LastTransposedConvolution,
    TransposedConvolution,
    join_pixels,
    split_pixels,
)


def constant_channels(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x `[B, C, T, F]` and beside it y `[B, K]`, each value all over the grid: `[B, C + K, T, F]`."""
    return torch.cat([x, y[:, :, None, None].expand(-1, -1, *x.shape[-2:])], dim=1)


@pytest.mark.parametrize("n_clusters", [0, 1, 7])
@pytest.mark.parametrize(("n_frames", "n_bands"), [(16, 16), (32, 48)])
def test_the_first_convolution_is_that_of_x_beside_ys_channels(n_clusters: int, n_frames: int, n_bands: int) -> None:
    layer = FirstConvolution(n_clusters=n_clusters, out_channels=16).double()
    x, y = torch.randn(3, 1, n_frames, n_bands).double(), torch.randn(3, n_clusters).double()
    plain = torch.nn.functional.conv2d(constant_channels(x, y), layer.weight, stride=2, padding=3)
    folded = layer(split_pixels(x), y if n_clusters else None)
    torch.testing.assert_close(folded, plain, rtol=0, atol=1e-13)
    target = torch.randn_like(plain)
    (expected,) = torch.autograd.grad((plain * target).sum(), layer.weight)
    (found,) = torch.autograd.grad((folded * target).sum(), layer.weight)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("n_clusters", [0, 1, 7])
def test_the_first_transposed_convolution_is_that_of_h_beside_ys_channels(n_clusters: int) -> None:
    layer = FirstTransposedConvolution(128, 64, n_clusters=n_clusters).double()
    h, y = torch.randn(3, 128, 2, 3).double(), torch.randn(3, n_clusters).double().requires_grad_()
    plain = torch.nn.functional.conv_transpose2d(constant_channels(h, y), layer.weight, layer.bias, stride=2, padding=3)
    folded = layer(h, y)
    torch.testing.assert_close(folded, plain, rtol=0, atol=1e-13)
    target = torch.randn_like(plain)
    expected = torch.autograd.grad((plain * target).sum(), [layer.weight, y], materialize_grads=True)
    found = torch.autograd.grad((folded * target).sum(), [layer.weight, y], materialize_grads=True)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("layer", [TransposedConvolution(4, 3), LastTransposedConvolution(16)])
@pytest.mark.parametrize(("n_frames", "n_bands"), [(8, 8), (16, 24)])
def test_the_other_transposed_convolutions_are_torchs(
    layer: TransposedConvolution, n_frames: int, n_bands: int
) -> None:
    layer = layer.double()
    h = torch.randn(3, layer.in_channels, n_frames, n_bands).double().requires_grad_()
    plain = torch.nn.ConvTranspose2d.forward(layer, h)
    folded = layer(h)
    torch.testing.assert_close(folded, plain, rtol=0, atol=1e-13)
    target = torch.randn_like(plain)
    expected = torch.autograd.grad((plain * target).sum(), [layer.weight, layer.bias, h])
    found = torch.autograd.grad((folded * target).sum(), [layer.weight, layer.bias, h])
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-11)


def test_pixels_that_are_split_are_joined_again() -> None:
    x = torch.randn(2, 1, 6, 10)
    assert torch.equal(join_pixels(split_pixels(x)), x)
