from __future__ import annotations

import pytest
import torch

from catuvac.models.fast_conv import split_pixels
from catuvac.models.networks import ConvDecoder, ConvRecurrentEncoder


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


def test_a_smaller_network_has_the_same_shape_throughout() -> None:
    encoder = ConvRecurrentEncoder(n_frames=32, n_bands=32, out_features=2, channels=4, gru_size=24)
    widths = [layer.out_channels for layer in encoder.convolutions if isinstance(layer, torch.nn.Conv2d)]
    assert widths == [4, 8, 16, 32]
    assert encoder(split_pixels(torch.rand(2, 1, 32, 32))).shape == (2, 2)
    decoder = ConvDecoder(latent_dim=2, n_clusters=3, n_frames=32, n_bands=32, channels=4)
    assert decoder(torch.rand(2, 3), torch.rand(2, 2)).shape == (2, 1, 32, 32)
