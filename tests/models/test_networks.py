from __future__ import annotations

import pytest
import torch

from catuvac.models.networks import (
    ConvDecoder,
    ConvRecurrentEncoder,
    FirstConvolution,
    FirstTransposedConvolution,
    LastTransposedConvolution,
    TransposedConvolution,
    join_pixels,
    split_pixels,
)


@pytest.mark.parametrize(("n_frames", "n_bands"), [(16, 16), (32, 64), (144, 128)])
def test_shapes(n_frames: int, n_bands: int) -> None:
    encoder = ConvRecurrentEncoder(n_clusters=3, n_frames=n_frames, n_bands=n_bands, out_features=6)
    decoder = ConvDecoder(latent_dim=5, n_clusters=3, n_frames=n_frames, n_bands=n_bands)
    assert encoder(split_pixels(torch.rand(2, 1, n_frames, n_bands)), torch.rand(2, 3)).shape == (2, 6)
    assert decoder(torch.rand(2, 3), torch.rand(2, 5)).shape == (2, 1, n_frames, n_bands)


@pytest.mark.parametrize(("n_frames", "n_bands"), [(24, 32), (32, 40), (0, 16)])
def test_a_grid_that_does_not_halve_four_times_is_refused(n_frames: int, n_bands: int) -> None:
    with pytest.raises(ValueError, match=f"T={n_frames}, F={n_bands}"):
        ConvRecurrentEncoder(n_frames=n_frames, n_bands=n_bands, out_features=2)


def test_layers_are_the_papers() -> None:
    encoder = ConvRecurrentEncoder(n_frames=32, n_bands=32, out_features=2)
    convolutions = [layer for layer in encoder.convolutions if isinstance(layer, torch.nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [(1, 16), (16, 32), (32, 64), (64, 128)]
    assert {(c.kernel_size, c.stride, c.padding) for c in convolutions} == {((8, 8), (2, 2), (3, 3))}
    assert (encoder.recurrent.num_layers, encoder.recurrent.hidden_size) == (2, 128)
    decoder = ConvDecoder(latent_dim=2, n_clusters=10, n_frames=32, n_bands=32)
    transposed = [layer for layer in decoder.convolutions if isinstance(layer, torch.nn.ConvTranspose2d)]
    assert [(c.in_channels, c.out_channels) for c in transposed] == [(138, 64), (64, 32), (32, 16), (16, 1)]


def constant_channels(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x `[B, C, T, F]` and beside it y `[B, K]`, each value all over the grid: `[B, C + K, T, F]`."""
    return torch.cat([x, y[:, :, None, None].expand(-1, -1, *x.shape[-2:])], dim=1)


@pytest.mark.parametrize("n_clusters", [0, 1, 7])
@pytest.mark.parametrize(("n_frames", "n_bands"), [(16, 16), (32, 48)])
def test_the_first_convolution_is_that_of_x_beside_ys_channels(n_clusters: int, n_frames: int, n_bands: int) -> None:
    layer = FirstConvolution(n_clusters=n_clusters).double()
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
    layer = FirstTransposedConvolution(n_clusters=n_clusters).double()
    h, y = torch.randn(3, 128, 2, 3).double(), torch.randn(3, n_clusters).double().requires_grad_()
    plain = torch.nn.functional.conv_transpose2d(constant_channels(h, y), layer.weight, layer.bias, stride=2, padding=3)
    folded = layer(h, y)
    torch.testing.assert_close(folded, plain, rtol=0, atol=1e-13)
    target = torch.randn_like(plain)
    expected = torch.autograd.grad((plain * target).sum(), [layer.weight, y], materialize_grads=True)
    found = torch.autograd.grad((folded * target).sum(), [layer.weight, y], materialize_grads=True)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("layer", [TransposedConvolution(4, 3), LastTransposedConvolution()])
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
