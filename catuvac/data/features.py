"""From samples to a picture `[T, F]` and its activity mask, and from there to [0, 1] (design, section 3).

T frames and F bands are padded to multiples of 16, the encoder's total stride.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchaudio.functional import create_dct
from torchaudio.transforms import AmplitudeToDB, MelScale, Spectrogram

from catuvac.config import FeatureConfig
from catuvac.data.audio import fit_length

STRIDE = 16  # four convolutions of stride 2
BLOCK = 256  # clips that the normaliser reads at a time: the whole corpus may not fit into memory
MELS_PER_COEFFICIENT = 2  # mel_cepstrum: mel bands for each kept coefficient (26 for 13 is the classic pair)

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Features:
    """One clip: `x` float32 `[T, F]`, not yet normalised over the corpus, and `mask` bool `[T]`, True where active."""

    x: Tensor
    mask: Tensor


def frames(config: FeatureConfig) -> tuple[int, int]:
    """T and F, both padded to multiples of 16."""
    count = config.stretch_frames if config.time_fit == "stretch" else _length(config) // config.hop + 1
    return _padded(count), _padded(config.n_bands)


def valid_bands(config: FeatureConfig) -> int:
    """The bands before padding: `x[:, valid_bands:]` is zero."""
    return config.n_bands


def extract(samples: Tensor, *, duration: float, config: FeatureConfig) -> Features:
    """The features of one clip.

    A frame is active where its centre lies within `duration` and its power is at most `activity_db` below the clip's
    loudest frame. Stretching interpolates between the first and the last active frame, all of the result is active.

    Args:
        samples: `[n]`, finite, at `config.sample_rate` Hz.
        duration: the true length in s; later samples are padding, and NaN means that all are the clip's own.
        config: the front end.
    """
    front = _front_end(config)
    length = min(len(samples), _length(config))
    if not math.isnan(duration):
        length = min(length, max(1, round(duration * config.sample_rate)))
    power = front.power(fit_length(samples[:length], _length(config)))  # [bands, frames]

    loudness = power.sum(dim=0)
    within = torch.arange(power.shape[1]) * config.hop < length
    active = within & (loudness >= loudness[within].max() * 10 ** (-config.activity_db / 10))

    x = front.level(power).T  # [frames, bands]
    if config.time_fit == "stretch":
        span = active.nonzero().squeeze(1)
        x = x[int(span[0]) : int(span[-1]) + 1]
        x = F.interpolate(x.T[None], size=config.stretch_frames, mode="linear", align_corners=True)[0].T
        active = torch.ones(config.stretch_frames, dtype=torch.bool)
    x = _clip_normalised(x, active, config)

    time, bands = frames(config)
    return Features(
        x=F.pad(x, (0, bands - x.shape[1], 0, time - x.shape[0])).contiguous(),
        mask=F.pad(active, (0, time - active.shape[0])),
    )


@dataclass(frozen=True)
class Normaliser:
    """Maps features to [0, 1] with statistics of the training clips' active frames.

    `mean` and `std` float64 `[valid bands]` are 0 and 1 without `corpus_norm`; `low` and `high` are the extremes then.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    low: float
    high: float

    @classmethod
    def fit(cls, x: Array, mask: Mask, config: FeatureConfig) -> Self:
        """Statistics of `x` `[N, T, F]` where `mask` `[N, T]` is True; give False for all but the training clips."""
        bands = valid_bands(config)
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

    def apply(self, x: Array, mask: Mask) -> Array:
        """Features `[n, T, F]` in [0, 1], float32; inactive frames and padded bands are 0."""
        bands = len(self.mean)
        span = self.high - self.low or 1.0  # all cells equal: they become 0
        out = np.zeros(x.shape, dtype=np.float32)
        out[..., :bands] = np.clip(((x[..., :bands] - self.mean) / self.std - self.low) / span, 0, 1)
        out[~mask] = 0
        return out


class _FrontEnd:
    """The torchaudio transforms of one configuration, built once for each process."""

    def __init__(self, config: FeatureConfig) -> None:
        self.config = config
        linear, cepstrum = config.kind == "spectrogram", config.kind == "mel_cepstrum"
        mels = config.n_bands * (MELS_PER_COEFFICIENT if cepstrum else 1)
        n_fft = config.window if linear else _mel_fft(config, mels)
        self.spectrogram = Spectrogram(
            n_fft=n_fft, win_length=config.window, hop_length=config.hop, power=2.0, pad_mode="constant"
        )
        self.mel = None if linear else MelScale(mels, config.sample_rate, n_stft=n_fft // 2 + 1)
        self.decibels = AmplitudeToDB("power", top_db=config.top_db)
        self.dct = create_dct(config.n_bands, mels, norm="ortho") if cepstrum else None  # [mels, coefficients]

    def power(self, samples: Tensor) -> Tensor:
        """Samples `[n]` to power `[bands, frames]`."""
        power: Tensor = self.spectrogram(samples)
        if self.mel is None:
            return power[self.config.low_bin : self.config.low_bin + self.config.n_bands]
        mel: Tensor = self.mel(power)
        return mel

    def level(self, power: Tensor) -> Tensor:
        """Power to magnitude, to dB floored `top_db` below the clip's peak, or to cepstral coefficients."""
        if not self.config.decibels:
            return power.sqrt()
        level: Tensor = self.decibels(power)
        return level if self.dct is None else self.dct.T @ level


@lru_cache(maxsize=8)
def _front_end(config: FeatureConfig) -> _FrontEnd:
    return _FrontEnd(config)


def _mel_fft(config: FeatureConfig, mels: int) -> int:
    """The transform's size: the window, zero-padded to a power of two where a mel filter would hold no bin.

    Filters are narrowest at 0 Hz; one holds a bin for certain if it is wider than the spacing of the bins. Padding
    adds bins between the old ones and no resolution: neighbouring narrow bands then look alike.
    """
    top = 2595 * math.log10(1 + config.sample_rate / 2 / 700)  # mel (HTK), as torchaudio counts
    narrowest = 700 * (10 ** (2 * top / (mels + 1) / 2595) - 1)  # Hz
    needed = config.sample_rate / narrowest
    return config.window if config.window > needed else 1 << math.ceil(math.log2(needed))


def _clip_normalised(x: Tensor, active: Tensor, config: FeatureConfig) -> Tensor:
    """Subtracts each band's mean over the active frames and divides by its deviation, as `clip_norm` says."""
    if config.clip_norm == "none":
        return x
    centred = x - x[active].mean(dim=0)
    if config.clip_norm == "mean":
        return centred
    deviation = x[active].std(dim=0, correction=0)
    steady = deviation <= 1e-4 * x.abs().max()  # a constant band: its deviation is rounding error
    return centred / torch.where(steady, 1.0, deviation)


def _length(config: FeatureConfig) -> int:
    return max(1, round(config.clip_seconds * config.sample_rate))


def _padded(count: int) -> int:
    return -(-count // STRIDE) * STRIDE
