"""Decoding, resampling and length: from a file to samples."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import soundfile
import torch
from torch import Tensor
from torchaudio.transforms import Resample


class AudioError(Exception):
    """A file that cannot be used; the text is the reason, without the path."""


def load(path: str | Path, *, sample_rate: int) -> Tensor:
    """Decodes a file to mono, channels averaged, at `sample_rate` Hz: float32 `[samples]`, all finite.

    Raises:
        AudioError: the file is absent, empty, unreadable, holds no samples, or holds NaN or infinite ones.
    """
    path = Path(path)
    try:
        if path.stat().st_size == 0:
            raise AudioError("empty file (0 bytes)")
        data, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except OSError as error:
        raise AudioError(f"unreadable: {error.strerror}") from error
    except soundfile.SoundFileError as error:
        reason = str(error).replace(repr(str(path)), "").removeprefix("Error opening : ")
        raise AudioError(f"unreadable: {reason}") from error
    if len(data) == 0:
        raise AudioError("zero-length: no samples")
    samples = torch.from_numpy(data).mean(dim=1)
    if not torch.isfinite(samples).all():
        raise AudioError("holds NaN or infinite samples")
    return resample(samples, rate=rate, to=sample_rate)


def resample(samples: Tensor, *, rate: int, to: int) -> Tensor:
    """Samples `[n]` at `rate` Hz to `to` Hz; the same tensor where the two are equal."""
    if rate == to:
        return samples
    resampled: Tensor = _resampler(rate, to)(samples)
    return resampled


def duration(path: str | Path) -> float:
    """The length that a file's header states, in s; NaN where it cannot be read (`load` then says why)."""
    try:
        return float(soundfile.info(path).duration)
    except (OSError, soundfile.SoundFileError):
        return math.nan


def fit_length(samples: Tensor, length: int) -> Tensor:
    """Samples `[n]` to `[length]`: cut, or zeros after the end."""
    cut = samples[:length]
    return torch.nn.functional.pad(cut, (0, length - len(cut)))


@lru_cache(maxsize=16)
def _resampler(rate: int, to: int) -> Resample:
    return Resample(rate, to)  # holds its filter kernel: built once for each pair of rates
