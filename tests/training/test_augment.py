"""Views of a clip: what they may change, and what they must not."""

from __future__ import annotations

import pytest
import torch

from catuvac.training.augment import VIEWS, Views, view

T, F = 32, 64


def drawn(x: torch.Tensor, views: Views, *, strength: float = 0.6, seed: int = 0, cells: torch.Tensor | None = None):
    cells = torch.ones_like(x) if cells is None else cells
    return view(x, cells, views, strength=strength, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def x() -> torch.Tensor:
    """Sixteen smooth pictures."""
    noise = torch.rand(16, 1, T // 4, F // 4, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(noise, (T, F), mode="bilinear")


@pytest.mark.parametrize("name", VIEWS)
def test_a_seed_repeats_the_views_and_another_gives_others(x: torch.Tensor, name: str) -> None:
    views = VIEWS[name]  # type: ignore[index]
    one = drawn(x, views)
    assert torch.equal(one, drawn(x, views))
    other = drawn(x, views, seed=1)
    assert all(not torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert one.shape == x.shape
    assert 0 <= one.min() <= one.max() <= 1


def test_without_strength_a_clip_is_its_own_view(x: torch.Tensor) -> None:
    assert torch.allclose(drawn(x, VIEWS["speech"], strength=0.0), x, atol=1e-5)


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_nearer_to_its_clip_than_other_clips_are(x: torch.Tensor, name: str) -> None:
    apart = torch.cdist(drawn(x, VIEWS[name], strength=0.3).flatten(1), x.flatten(1))  # type: ignore[index]
    if name == "scene":  # its shift is circular: the nearest of all shifts
        views = drawn(x, VIEWS["scene"], strength=0.3).flatten(1)
        rolled = [torch.roll(x, shift, dims=2).flatten(1) for shift in range(T)]
        apart = torch.stack([torch.cdist(views, each) for each in rolled]).amin(dim=0)
    assert (apart.argmin(dim=1) == torch.arange(len(x))).float().mean() > 0.9


def test_cells_that_do_not_count_stay_zero_and_follow_the_warp(x: torch.Tensor) -> None:
    cells = torch.ones_like(x)
    cells[:, :, T // 2 :] = 0  # the second half is padding
    cells[..., F - 3 :] = 0  # and so are three bands
    views = drawn(x * cells, VIEWS["speech"], cells=cells)
    assert (views[:, :, T - 4 :] == 0).all()
    shifted = Views(time_shift=0.5)
    later = drawn(x * cells, shifted, strength=1.0, cells=cells)
    lengths = (later.amax(dim=(1, 3)) > 0).sum(dim=1)
    assert lengths.unique().numel() > 1


def test_a_circular_shift_moves_and_loses_nothing(x: torch.Tensor) -> None:
    """What leaves at the end comes in at the start: the mean of every band stays."""
    views = drawn(x, Views(circular=True), strength=1.0)
    assert not torch.allclose(views, x, atol=0.05)
    assert torch.allclose(views.mean(dim=2), x.mean(dim=2), atol=0.03)


def test_masks_take_no_more_than_their_share() -> None:
    ramp = torch.linspace(0.2, 0.8, F).expand(64, 1, T, F).contiguous()
    masked = drawn(ramp, Views(frequency_masks=1, frequency_mask=0.25), strength=1.0)
    bands = ((masked - ramp).abs() > 1e-3).any(dim=2).sum(dim=-1)
    assert bands.max() <= F * 0.25 + 1
    assert bands.float().mean() > F * 0.06


def test_mixing_brings_in_another_clip() -> None:
    x = torch.zeros(2, 1, T, F)
    x[1] = 1.0
    mixed = drawn(x, Views(mix=0.5), strength=1.0)
    assert 0 < mixed[0].mean() < 0.5
    assert 0.5 < mixed[1].mean() < 1
