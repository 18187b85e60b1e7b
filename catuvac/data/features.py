"""Computes features `[T, F]` and their activity mask from samples, and normalises them to [0, 1] (design, section 3).

T frames and F bands are padded to multiples of 16, the encoder's total stride.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchaudio.functional import create_dct
from torchaudio.transforms import AmplitudeToDB

from catuvac.config import FeatureConfig
from catuvac.data import embedding
from catuvac.errors import CatuvacError

STRIDE = 16  # four convolutions of stride 2
BLOCK = 32  # clips that the normaliser reads at a time: they fit into a core's cache
MELS_PER_COEFFICIENT = 2  # mel_cepstrum: mel bands per kept coefficient (26 for 13 is the classic choice)

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]


def frames(config: FeatureConfig) -> tuple[int, int]:
    """Returns T and F, both padded to multiples of 16."""
    if config.time_fit == "stretch":
        count = config.stretch_frames
    elif config.kind == "embedding":
        count = embedding.shape(config.weights, clip_samples(config))[0]
    else:
        count = clip_samples(config) // config.hop + 1
    return _padded(count), _padded(config.n_bands)


def extract(clips: Sequence[Tensor], *, durations: Sequence[float], config: FeatureConfig) -> tuple[Tensor, Tensor]:
    """Computes the features of B clips, not yet normalised over the corpus, each as if it were alone.

    A frame is active if its centre lies within `duration` and its power is at most `activity_db` below that of the
    clip's loudest frame; that of an embedding, if its window starts within `duration`. Stretching interpolates between
    the first and the last active frame; its result is all active.

    Args:
        clips: `[n]` each, finite, at `config.sample_rate` Hz.
        durations: true lengths in s; later samples are padding. NaN means that there is no padding.
        config: the front end.

    Returns:
        `x` float32 `[B, T, F]`, whose bands after `config.n_bands` are 0, and `mask` bool `[B, T]`, True where active.

    Raises:
        CatuvacError: the kind is "array", which has no front end, or an embedding's model cannot be used.
    """
    front = front_end(config)
    clips = [
        samples[: own_samples(len(samples), duration, config)]
        for samples, duration in zip(clips, durations, strict=True)
    ]
    x, active = front.describe(clips)
    if config.time_fit == "stretch":
        x = torch.stack([_stretched(*clip, config.stretch_frames) for clip in zip(x, active, strict=True)])
        active = torch.ones(x.shape[:2], dtype=torch.bool)
    x = _clip_normalised(x, active, config)

    time, bands = frames(config)
    missing = time - x.shape[1]
    return F.pad(x, (0, bands - x.shape[2], 0, missing)).contiguous(), F.pad(active, (0, missing))


def extract_usable(
    clips: Sequence[Tensor], *, durations: Sequence[float], config: FeatureConfig
) -> tuple[Tensor, Tensor, list[str]]:
    """Returns what `extract` does, and for each clip the reason why its features cannot be used, or ""."""
    x, mask = extract(clips, durations=durations, config=config)
    reasons = [
        ""
        if clip_x.isfinite().all()
        else f"samples of up to {samples.abs().max():.2g}, where full scale is 1: too loud for float32"
        for samples, clip_x in zip(clips, x, strict=True)
    ]
    return x, mask, reasons


@dataclass(frozen=True)
class Normaliser:
    """Maps features to [0, 1] with statistics of the training clips' active frames.

    `mean` and `std`, float64 `[n_bands]`, are 0 and 1 without `corpus_norm`; `low`, `high`: the extremes after it.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    low: float
    high: float

    @classmethod
    def fit(cls, x: Array, mask: Mask, config: FeatureConfig) -> Self:
        """Fits statistics to `x` `[N, T, F]` where `mask` `[N, T]` is True; pass False for all but training clips."""
        bands = config.n_bands
        count, total, squares = 0, np.zeros(bands), np.zeros(bands)
        least, most = np.full(bands, np.inf), np.full(bands, -np.inf)
        for start in range(0, len(x), BLOCK):
            cells = x[start : start + BLOCK][mask[start : start + BLOCK]][:, :bands].astype(np.float64)
            if len(cells):
                count += len(cells)
                total += cells.sum(axis=0)
                squares += (cells**2).sum(axis=0)
                least, most = np.minimum(least, cells.min(axis=0)), np.maximum(most, cells.max(axis=0))
        mean, std = np.zeros(bands), np.ones(bands)
        if config.corpus_norm == "mean_var":
            mean = total / count
            deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
            std = np.where(deviation > 1e-4 * np.maximum(np.abs(least), np.abs(most)), deviation, 1.0)
        return cls(mean, std, float(((least - mean) / std).min()), float(((most - mean) / std).max()))

    def to_dict(self) -> dict[str, Any]:
        """Returns plain numbers, without loss, for `from_dict`."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist(), "low": self.low, "high": self.high}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """Restores a normaliser from the result of `to_dict`."""
        return cls(np.array(stored["mean"]), np.array(stored["std"]), float(stored["low"]), float(stored["high"]))

    def apply(self, x: Array, mask: Mask) -> Array:
        """Returns float32 features `[n, T, F]` in [0, 1]; inactive frames and padded bands are 0."""
        bands = len(self.mean)
        span = self.high - self.low or 1.0  # all cells equal: they become 0
        cells = x[..., :bands] - self.mean
        cells /= self.std
        cells -= self.low
        cells /= span
        out = np.zeros(x.shape, dtype=np.float32)
        np.clip(cells, 0, 1, out=out[..., :bands], where=mask[..., None], casting="same_kind")
        return out


class FrontEnd:
    """The transforms of one configuration, built once and shared by threads.

    Attributes:
        n_fft: samples per transform; the window is centred in it.
        window: `[config.window]`.
        mel: filters `[bins, mels]`; None for a spectrogram.
        dct: `[mels, coefficients]`; None except for a cepstrum.
    """

    def __init__(self, config: FeatureConfig) -> None:
        if config.kind == "array":
            raise CatuvacError(
                "features of kind 'array' were computed elsewhere, so recordings cannot be turned into them; "
                "give CatUVACClusterer arrays of the same features"
            )
        if config.kind == "embedding":
            raise CatuvacError(
                "features of kind 'embedding' are a pretrained model's: there are no transforms to export"
            )
        self.config = config
        linear, cepstrum = config.kind == "spectrogram", config.kind == "mel_cepstrum"
        mels = config.n_bands * (MELS_PER_COEFFICIENT if cepstrum else 1)
        self.n_fft = config.window if linear else _mel_fft(config, mels)
        self.window = torch.hann_window(config.window)
        self.mel = None if linear else mel_filters(mels, config.sample_rate, self.n_fft)  # [bins, mels]
        self.decibels = AmplitudeToDB("power", top_db=config.top_db)
        self.dct = create_dct(config.n_bands, mels, norm="ortho") if cepstrum else None  # [mels, coefficients]

    def describe(self, clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Returns the levels `[B, frames, bands]` of B clips `[n]` and which frames are active, `[B, frames]`."""
        power = self.power(clips)
        lengths = torch.tensor([len(samples) for samples in clips])
        within = torch.arange(power.shape[1]) * self.config.hop < lengths[:, None]
        loudness = power.sum(dim=2).where(within, 0)
        active = within & (loudness >= loudness.amax(dim=1, keepdim=True) * 10 ** (-self.config.activity_db / 10))
        return self.level(power), active

    def power(self, clips: Sequence[Tensor]) -> Tensor:
        """Returns the power `[B, frames, bands]` of B clips `[n]`; frames after a clip's end are zero."""
        config, half = self.config, self.n_fft // 2
        bands = config.n_bands if self.mel is None else self.mel.shape[1]
        power = torch.zeros(len(clips), clip_samples(config) // config.hop + 1, bands)
        # One by one: a clip fits into a core's cache, a batch does not.
        for samples, out in zip(clips, power, strict=True):
            filled = min(len(out), -(-(len(samples) + half) // config.hop))  # frames whose windows contain samples
            end = (filled - 1) * config.hop + self.n_fft - half
            spectrum = torch.stft(
                F.pad(samples, (half, end - len(samples))),
                self.n_fft,
                config.hop,
                config.window,
                self.window,
                center=False,
                return_complex=True,
            ).T  # [filled, bins]
            cells = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
            if self.mel is None:
                out[:filled] = cells[:, config.low_bin : config.low_bin + bands]
            else:
                torch.mm(cells, self.mel, out=out[:filled])
        return power

    def level(self, power: Tensor) -> Tensor:
        """Converts power `[B, frames, bands]` to magnitude, dB (at least each clip's peak - `top_db`) or cepstra."""
        if not self.config.decibels:
            return power.sqrt()
        level: Tensor = self.decibels(power[:, None])[:, 0]
        return level if self.dct is None else level @ self.dct


class EmbeddingFrontEnd:
    """A pretrained model in place of the transforms."""

    def __init__(self, config: FeatureConfig) -> None:
        self.embedder = embedding.embedder(config.weights)
        self.samples = clip_samples(config)
        self.count, bands = embedding.shape(config.weights, self.samples)
        if bands != config.n_bands:
            raise CatuvacError(f"{config.weights} gives {bands} numbers per frame: set n_bands {bands}")

    def describe(self, clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Returns the frames `[B, frames, bands]` of B clips `[n]`; active are those that start within the clip."""
        x = torch.stack([self.embedder.frames(F.pad(clip, (0, self.samples - len(clip)))) for clip in clips])
        lengths = torch.tensor([len(clip) for clip in clips])
        return x, torch.arange(self.count) * self.embedder.hop(self.samples, self.count) < lengths[:, None]


@lru_cache(maxsize=8)
def front_end(config: FeatureConfig) -> FrontEnd | EmbeddingFrontEnd:
    """Returns the transforms or the model of a configuration, cached."""
    return EmbeddingFrontEnd(config) if config.kind == "embedding" else spectral(config)


@lru_cache(maxsize=8)
def spectral(config: FeatureConfig) -> FrontEnd:
    """Returns the transforms of a configuration that has some, cached."""
    return FrontEnd(config)


def weights_checksum(config: FeatureConfig) -> str:
    """Returns a checksum of the weights that an embedding has loaded; "" for transforms, which have none."""
    return embedding.embedder(config.weights).checksum if config.kind == "embedding" else ""


def mel_filters(mels: int, sample_rate: int, n_fft: int) -> Tensor:
    """Returns triangles of height 1, `[bins, mels]`, evenly spaced in mel (HTK) from 0 Hz to half the sample rate.

    torchaudio computes them in float32: if a bin is close to a filter's edge, its weight is off by up to 0.4 %.
    """
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64)[:, None] * sample_rate / n_fft  # Hz
    edges = 700 * (10 ** (torch.linspace(0, _top_mel(sample_rate), mels + 2, dtype=torch.float64) / 2595) - 1)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    return torch.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clamp(min=0).float()


def _mel_fft(config: FeatureConfig, mels: int) -> int:
    """Returns the transform's size: the window, zero-padded to a power of two if a mel filter would contain no bin.

    Filters are narrowest at 0 Hz; one is certain to contain a bin if it is wider than the spacing of the bins. Padding
    adds bins between the existing ones but no resolution: neighbouring narrow bands then look alike.
    """
    narrowest = 700 * (10 ** (2 * _top_mel(config.sample_rate) / (mels + 1) / 2595) - 1)  # Hz
    needed = config.sample_rate / narrowest
    return config.window if config.window > needed else 1 << math.ceil(math.log2(needed))


def _top_mel(sample_rate: int) -> float:
    """Returns half the sample rate in mel (HTK)."""
    return 2595 * math.log10(1 + sample_rate / 2 / 700)


def own_samples(samples: int, duration: float, config: FeatureConfig) -> int:
    """Returns how many of a clip's samples are used: no padding, and at most `clip_samples`."""
    samples = min(samples, clip_samples(config))
    return samples if math.isnan(duration) else min(samples, max(1, round(duration * config.sample_rate)))


def _stretched(x: Tensor, active: Tensor, count: int) -> Tensor:
    """Interpolates `x` `[frames, bands]` from its first to its last active frame, NaN if none: `[count, bands]`."""
    span = active.nonzero()
    if not len(span):  # the power is infinite or NaN
        return torch.full((count, x.shape[1]), math.nan)
    sound = x[int(span[0]) : int(span[-1]) + 1]
    return F.interpolate(sound.T[None], size=count, mode="linear", align_corners=True)[0].T


def _clip_normalised(x: Tensor, active: Tensor, config: FeatureConfig) -> Tensor:
    """Subtracts each band's mean over a clip's active frames and divides by its deviation, as set by `clip_norm`."""
    if config.clip_norm == "none":
        return x
    weight = (active / active.sum(dim=1, keepdim=True))[:, :, None]  # [B, frames, 1]
    centred = x - (x * weight).sum(dim=1, keepdim=True)
    if config.clip_norm == "mean":
        return centred
    deviation = (centred.square() * weight).sum(dim=1, keepdim=True).sqrt()
    steady = deviation <= 1e-4 * x.abs().amax(dim=(1, 2), keepdim=True)  # a constant band deviates only by rounding
    return centred / torch.where(steady, 1.0, deviation)


def clip_samples(config: FeatureConfig) -> int:
    """Returns the number of samples that the networks see at a time: a whole clip, or a window of `context` s."""
    return max(1, round(config.seconds * config.sample_rate))


def _padded(count: int) -> int:
    return -(-count // STRIDE) * STRIDE
