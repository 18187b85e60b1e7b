"""Decodes, resamples and measures audio files."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor


class AudioError(Exception):
    """Raised for a file that cannot be used; the message is the reason, without the path."""


class NotFiniteError(AudioError):
    """Raised for NaN or infinite samples, after which others may be usable."""


def load(path: str | Path, *, sample_rate: int, start: float = 0.0, seconds: float = math.inf) -> Tensor:
    """Decodes a file to mono at `sample_rate` Hz by averaging its channels: float32 `[samples]`, all finite.

    Args:
        path: the file.
        sample_rate: Hz.
        start: s; audio before it is not read.
        seconds: audio more than this after `start` is not read.

    Raises:
        AudioError: the file is absent, empty, unreadable, ends before `start`, contains no samples, none at
            `sample_rate`, or NaN or infinite ones, or its header states impossible values.
    """
    with _opened(path) as file:
        first = round(start * file.samplerate)
        if first:
            if first >= file.frames:
                raise AudioError(f"ends at {file.frames / file.samplerate:g} s, before the clip's start at {start:g} s")
            file.seek(first)
        # Rounds down to whole samples; 1e-3 keeps the rounding error of frames / rate from dropping one.
        length = (file.frames - first) / file.samplerate
        wanted = max(1, math.floor(min(seconds, length) * file.samplerate + 1e-3))
        return resample(_read(file, wanted), rate=file.samplerate, to=sample_rate)


def windows(
    path: str | Path, *, sample_rate: int, seconds: float, hop: float
) -> Iterator[tuple[float, float, Tensor | str]]:
    """Decodes a recording window by window, so that memory does not grow with its length.

    Args:
        path: the file.
        sample_rate: Hz.
        seconds: length of a window; the last ones may be as short as half of it, and a sole one even shorter.
        hop: s between the starts of consecutive windows.

    Yields:
        Start and end in s, and the samples as `load` returns them, or the reason why a window cannot be used although
        later ones may be: NaN or infinite samples. Each window is resampled separately.

    Raises:
        AudioError: as `load`, at the affected window.
    """
    with _opened(path) as file:
        rate, length = file.samplerate, file.frames / file.samplerate
        for number in range(window_count(length, seconds=seconds, hop=hop)):
            start = number * hop
            first = round(start * rate)
            file.seek(min(first, file.frames))
            try:
                samples = _read(file, max(1, min(round(seconds * rate), file.frames - first)))
                window: Tensor | str = resample(samples, rate=rate, to=sample_rate)
            except NotFiniteError as error:
                window = str(error)
            yield start, min(start + seconds, length), window


def window_count(length: float, *, seconds: float, hop: float) -> int:
    """Returns the number of windows of a recording: at least one; a further one must be at least half filled.

    Args:
        length: of the recording, in the unit of the others: s, or samples.
        seconds: length of a window.
        hop: from the start of one window to that of the next.
    """
    return max(1, math.floor((length - seconds / 2) / hop + 1e-9) + 1)


def blocks(path: str | Path, *, seconds: float) -> tuple[int, Iterator[Tensor]]:
    """Returns a recording's rate in Hz, and its samples at that rate block by block, so that memory stays constant.

    Args:
        path: the file.
        seconds: length of a block; the last one may be shorter.

    Raises:
        AudioError: as `load`, immediately or at the affected block.
    """
    with _opened(path) as file:
        rate: int = file.samplerate

    def read() -> Iterator[Tensor]:
        with _opened(path) as file:
            yield _read(file, max(1, round(seconds * rate)))
            while file.tell() < file.frames:
                yield _read(file, max(1, round(seconds * rate)))

    return rate, read()


@contextmanager
def _opened(path: str | Path) -> Iterator[soundfile.SoundFile]:
    """Opens a sound file; errors on opening and while reading it become an `AudioError`."""
    path = Path(path)
    try:
        if path.stat().st_size == 0:
            raise AudioError("empty file (0 bytes)")
        with soundfile.SoundFile(os.fsencode(path)) as file:  # a name may consist of any bytes, not only UTF-8
            yield file
    except OSError as error:
        raise AudioError(f"unreadable: {error.strerror}") from error
    except soundfile.SoundFileError as error:
        reason = str(error).replace(repr(os.fsencode(path)), "").removeprefix("Error opening : ")
        raise AudioError(f"unreadable: {reason}") from error
    except TypeError as error:  # soundfile wants to be told the rate
        raise AudioError("unreadable: a .raw file does not state its rate and format") from error
    except (MemoryError, ValueError, RuntimeError) as error:
        raise AudioError("unreadable: its header states an impossible length, channel count or rate") from error


def _read(file: soundfile.SoundFile, frames: int) -> Tensor:
    """Reads the next frames as mono float32 `[frames]`."""
    # libsndfile takes longer to convert 16-bit samples to float than to read them.
    short = file.subtype == "PCM_16"
    data = file.read(frames, dtype="int16" if short else "float32", always_2d=True)
    if len(data) == 0:
        raise AudioError("zero-length: no samples")
    if not np.isfinite(data).all():
        raise NotFiniteError("contains NaN or infinite samples")
    mono = data[:, 0] if data.shape[1] == 1 else data.mean(axis=1, dtype=np.float32)
    return torch.from_numpy(mono * np.float32(2**-15) if short else mono)


def resample(samples: Tensor, *, rate: int, to: int) -> Tensor:
    """Resamples `[n]` at `rate` Hz to `round(n * to / rate)` at `to` Hz; returns the input itself if these match.

    Raises:
        AudioError: the result has no sample.
    """
    if rate == to:
        return samples
    resampled = soxr.resample(samples.numpy(), rate, to)
    if not len(resampled):
        raise AudioError(f"too short: no sample at {to} Hz")
    return torch.from_numpy(resampled)


def duration(path: str | Path) -> float:
    """Returns the length stated in a file's header, in s; NaN if it cannot be read (`load` then reports why)."""
    try:
        return float(soundfile.info(os.fsencode(path)).duration)
    except (OSError, soundfile.SoundFileError, TypeError):  # the last for a .raw file
        return math.nan
