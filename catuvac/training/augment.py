"""Label-preserving views of a clip: what a cluster must not depend on.

A view is the clip's features as another speaker, another microphone or another moment might have produced them. All
views of a batch are drawn at once, on the device of the batch and from the run's generator, so that a seed reproduces
them, a resumed run continues them, and a CUDA graph can capture them.

Shape legend: B clips, T frames, F bands.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from catuvac.config import ViewSet

BLUR_BANDS = 5  # width of the blur along frequency: neighbouring harmonics of a voice merge, formants stay apart
TILT_COSINES = 3  # of the smooth spectral tilt: slower than any formant
ACTIVE = 0.5  # share of a warped cell that must have been active for it to stay active


@dataclass(frozen=True, kw_only=True)
class Views:
    """How far a view may differ from its clip, at strength 1; every amplitude is proportional to the strength.

    Axes run over [-1, 1], levels over [0, 1], the range of the features.
    """

    frequency_scale: float = 0.0  # the frequency axis, scaled about its low end by 1 ± this: vocal tract length
    frequency_bend: float = 0.0  # largest sine-shaped displacement along frequency: formants move against each other
    time_bend: float = 0.0  # largest cosine-shaped displacement along time; half of it sine-shaped: tempo
    time_shift: float = 0.0  # largest shift along time
    circular: bool = False  # a shift by any number of frames that wraps around
    contrast: float = 0.0  # levels, scaled about the clip's mean by 1 ± this
    gain: float = 0.0  # largest offset of all levels
    tilt: float = 0.0  # standard deviation of each of three cosines over frequency: microphone and room
    noise: float = 0.0  # largest standard deviation of white noise on the levels
    blur: bool = False  # a random blend with the features blurred along frequency: pitch harmonics
    frequency_masks: int = 0  # ranges of bands set to the clip's mean
    frequency_mask: float = 0.0  # largest share of the bands that one of them covers
    time_masks: int = 0  # ranges of frames set to the clip's mean
    time_mask: float = 0.0  # largest share of the frames that one of them covers
    mix: float = 0.0  # largest share of another clip of the batch


VIEWS: dict[ViewSet, Views] = {
    # A spoken word stays the same word from another mouth, at another tempo and through another microphone. What must
    # not be destroyed: the order of its sounds (no circular shift, no strong masks) and the pattern of its formants.
    "speech": Views(
        frequency_scale=0.15,
        frequency_bend=0.1,
        time_bend=0.3,
        time_shift=0.1,
        contrast=0.3,
        tilt=0.04,
        noise=0.06,
        blur=True,
        frequency_masks=2,
        frequency_mask=0.125,
        time_masks=1,
        time_mask=0.19,
    ),
    # A scene stays the same scene at another moment, at another distance and among other sounds. What must not be
    # destroyed: its bands and pitches (next to no warp along frequency) and the rate of its repetitions (no tempo).
    "scene": Views(
        frequency_scale=0.03,
        circular=True,
        contrast=0.2,
        gain=0.1,
        tilt=0.04,
        noise=0.06,
        frequency_masks=1,
        frequency_mask=0.1,
        time_masks=2,
        time_mask=0.15,
    ),
}
assert set(VIEWS) == set(get_args(ViewSet))


def view(x: Tensor, cells: Tensor, views: Views, *, strength: float, generator: torch.Generator) -> Tensor:
    """Draws one view of every clip.

    Args:
        x: `[B, 1, T, F]` features in [0, 1].
        cells: `[B, 1, T, F]`, 1 where a cell counts (active frames, bands before padding), else 0.
        views: what may change, and how far.
        strength: factor on every amplitude; 0 leaves the clips unchanged, except for a circular shift.
        generator: source of all randomness, on the device of `x`.

    Returns:
        `[B, 1, T, F]` in [0, 1], float32; cells that do not count are 0, as in `x`.
    """
    batch, device = len(x), x.device

    def signed(*shape: int) -> Tensor:
        return 2 * torch.rand(batch, *shape, generator=generator, device=device) - 1

    x, cells = _warped(x.float(), cells, views, strength=strength, signed=signed)
    if views.mix:
        share = 0.5 * strength * views.mix * (1 + signed(1, 1, 1))
        other = torch.roll(x, 1, dims=0)  # the order of a batch is random already
        x = x + share * (other - x)
    mean = (x * cells).sum(dim=(1, 2, 3), keepdim=True) / cells.sum(dim=(1, 2, 3), keepdim=True).clamp(min=1)
    if views.blur:
        share = 0.5 * (1 + signed(1, 1, 1))
        x = x + min(1.0, strength) * share * (_blurred(x) - x)
    x = mean + (x - mean) * (1 + strength * views.contrast * signed(1, 1, 1))
    x = x + strength * views.gain * signed(1, 1, 1) + _tilt(x, strength * views.tilt, generator)
    if views.noise:
        deviation = 0.5 * strength * views.noise * (1 + signed(1, 1, 1))
        x = x + deviation * torch.randn(x.shape, generator=generator, device=device)
    for axis, count, share_of_axis in (
        (3, views.frequency_masks, views.frequency_mask),
        (2, views.time_masks, views.time_mask),
    ):
        for _ in range(count):
            x = torch.where(_range(x.shape[axis], axis, strength * share_of_axis, signed), mean, x)
    return x.clamp(0, 1) * cells


def _warped(
    x: Tensor, cells: Tensor, views: Views, *, strength: float, signed: Callable[..., Tensor]
) -> tuple[Tensor, Tensor]:
    """Bends both axes by one bilinear interpolation of the features and of the cells that count."""
    batch, _, frames, bands = x.shape
    time = ((torch.arange(frames, device=x.device) + 0.5) * (2 / frames) - 1).expand(batch, -1)
    frequency = ((torch.arange(bands, device=x.device) + 0.5) * (2 / bands) - 1).expand(batch, -1)
    frequency = (frequency + 1) * (1 + strength * views.frequency_scale * signed(1)) - 1
    frequency = frequency + strength * views.frequency_bend * signed(1) * torch.sin(math.pi * (frequency + 1) / 2)
    if views.time_bend:
        bend = strength * views.time_bend
        cosine, sine = torch.cos(math.pi * time / 2), torch.sin(math.pi * time)
        time = time + bend * signed(1) * cosine + 0.5 * bend * signed(1) * sine
    time = time + strength * views.time_shift * signed(1)
    if views.circular:
        time = torch.remainder(time + 1 + signed(1), 2) - 1
    grid = torch.stack(
        [frequency[:, None, :].expand(-1, frames, -1), time[:, :, None].expand(-1, -1, bands)], dim=-1
    )  # [B, T, F, 2]
    both = torch.cat([x * cells, cells], dim=1)
    picture, weight = F.grid_sample(both, grid, padding_mode="border", align_corners=False).chunk(2, dim=1)
    return picture / weight.clamp(min=ACTIVE), (weight > ACTIVE).float()


def _blurred(x: Tensor) -> Tensor:
    """Returns the mean over neighbouring bands."""
    return F.avg_pool2d(x, (1, BLUR_BANDS), 1, (0, BLUR_BANDS // 2), count_include_pad=False)


def _tilt(x: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    """Draws a smooth random offset over frequency, `[B, 1, 1, F]`."""
    bands = x.shape[3]
    place = (torch.arange(bands, device=x.device) + 0.5) / bands
    order = torch.arange(1, TILT_COSINES + 1, device=x.device)
    weights = torch.randn(len(x), TILT_COSINES, generator=generator, device=x.device)
    return (deviation * weights @ torch.cos(math.pi * order[:, None] * place))[:, None, None, :]


def _range(size: int, axis: int, largest: float, signed: Callable[..., Tensor]) -> Tensor:
    """Draws a mask, True in a random range of an axis: `[B, 1, size, 1]` for axis 2, `[B, 1, 1, size]` for axis 3."""
    width = 0.5 * largest * size * (1 + signed(1))
    start = 0.5 * (size - width) * (1 + signed(1))
    place = torch.arange(size, device=width.device) + 0.5
    inside = (place >= start) & (place < start + width)  # [B, size]
    return inside[:, None, :, None] if axis == 2 else inside[:, None, None, :]
