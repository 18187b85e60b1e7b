"""Clusters of windows of sound as they arrive, from a file, a pipe or a microphone, in constant memory.

    stream = Stream(model, open_pipe(0, timeout=10), hop=0.5)
    for decision in stream:
        print(decision)

Shape legend: N samples of a window, K clusters.
"""

from __future__ import annotations

import math
import os
import select
import sys
import time
import wave
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from scipy.special import entr, softmax
from torch import Tensor

from catuvac.data import audio
from catuvac.data.audio import AudioError
from catuvac.errors import CatuvacError

BLOCK = 0.05  # s, the most that is read at a time
TIMED = 10_000  # number of latest windows whose latency is kept
ENDLESS = 0x7FFF0000  # bytes; headers state at least this size if the writer did not know the length
PCM = np.dtype("<i2")
FULL_SCALE = np.float32(2**15)

Samples = NDArray[np.float32]


class Classifier(Protocol):
    """A model that assigns windows to clusters, such as `catuvac.inference.FittedModel` or an exported model."""

    @property
    def sample_rate(self) -> int: ...

    @property
    def window(self) -> int: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def undecided_above(self) -> float: ...

    def logits(self, clips: Sequence[Tensor]) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class Sound:
    """Mono sound that arrives in blocks `[n]`, full scale 1, at `rate` Hz."""

    rate: int
    blocks: Iterator[Samples]


@dataclass(frozen=True)
class Decision:
    """A model's decision at the end of one window.

    Attributes:
        time: s from the start of the sound to the end of the window.
        cluster: the most probable cluster, after averaging.
        name: its name; "" without a name.
        probability: its probability.
        undecided: whether the entropy of q(y | x) is too high to rely on the cluster.
        state: the current cluster, which another one replaces only by a margin.
        changed: whether the state has changed with this window.
    """

    time: float
    cluster: int
    name: str
    probability: float
    undecided: bool
    state: int
    changed: bool


@dataclass(frozen=True)
class Summary:
    """The summary of a stream.

    Attributes:
        windows: number of decisions.
        changes: number of state changes.
        seconds: duration of the sound in s.
        mean_ms, p95_ms: latency from a complete window to its decision, over the last `TIMED` windows.
        cpu_share: CPU time of all threads, as a share of the duration.
    """

    windows: int
    changes: int
    seconds: float
    mean_ms: float
    p95_ms: float
    cpu_share: float

    def __str__(self) -> str:
        return (
            f"{self.windows} windows, {self.changes} changes in {self.seconds:.1f} s of sound; latency mean "
            f"{self.mean_ms:.2f} ms, 95 % within {self.p95_ms:.2f} ms; processor {self.cpu_share:.2%} of real time"
        )


class Stream:
    """Iterates over the decisions on a sound, one at the end of each window; then has their `summary`."""

    def __init__(
        self, model: Classifier, sound: Sound, *, hop: float = 0.0, smooth: int = 1, hysteresis: float = 0.0
    ) -> None:
        """Stores the arguments; nothing is computed yet.

        Args:
            model: makes the decisions.
            sound: at any rate; it is resampled to the model's.
            hop: s between the ends of consecutive windows; 0 places windows end to end.
            smooth: number of windows, up to the current one, whose logits are averaged.
            hysteresis: margin in [0, 1) by which a cluster's probability must exceed that of the state to replace it.
        """
        self.model = model
        self.sound = sound
        self.hop = hop or model.window / model.sample_rate
        self.recent: deque[NDArray[np.float32]] = deque(maxlen=smooth)
        self.hysteresis = hysteresis
        self.state: int | None = None
        self.windows = self.changes = self.samples = 0
        self.latencies: deque[float] = deque(maxlen=TIMED)  # s
        self.processor = 0.0  # s

    def __iter__(self) -> Iterator[Decision]:
        """Yields decisions as sound arrives.

        Raises:
            CatuvacError: the sound breaks off, or ends before its first window.
        """
        model, rate = self.model, self.model.sample_rate
        model.logits([torch.zeros(model.window)])  # libraries choose their kernels on the first call
        began = time.process_time()
        try:
            for end, samples in cut(self._blocks(), length=model.window, hop=self.hop, rate=rate):
                whole = time.perf_counter()
                decision = self.decide(model.logits([torch.from_numpy(samples)])[0], at=end / rate)
                self.latencies.append(time.perf_counter() - whole)
                yield decision
        finally:
            self.processor = time.process_time() - began
        if not self.windows:
            wanted, had = model.window / rate, self.samples / rate
            raise CatuvacError(f"the sound ended after {had:.2f} s, before a whole window of {wanted:g} s")

    def _blocks(self) -> Iterator[Samples]:
        """Yields the blocks at the model's rate."""
        for block in resampled(self.sound, self.model.sample_rate):
            self.samples += len(block)
            yield block

    def decide(self, logits: NDArray[np.float32], *, at: float) -> Decision:
        """Returns the decision on a window with logits `[K]` that ends `at` s."""
        self.recent.append(logits)
        probabilities = softmax(np.mean(self.recent, axis=0))
        cluster = int(probabilities.argmax())
        before = cluster if self.state is None else self.state
        changed = bool(cluster != before and probabilities[cluster] - probabilities[before] > self.hysteresis)
        self.state = cluster if changed else before
        self.windows += 1
        self.changes += changed
        return Decision(
            time=at,
            cluster=cluster,
            name=self.model.names[cluster],
            probability=float(probabilities[cluster]),
            undecided=bool(entr(probabilities).sum() > self.model.undecided_above),
            state=self.state,
            changed=changed,
        )

    @property
    def summary(self) -> Summary:
        """The summary of all decisions so far."""
        seconds, latencies = self.samples / self.model.sample_rate, 1e3 * np.array(self.latencies or [math.nan])
        share = self.processor / seconds if seconds else math.nan
        p95 = float(np.percentile(latencies, 95))
        return Summary(self.windows, self.changes, seconds, float(latencies.mean()), p95, share)


def cut(blocks: Iterator[Samples], *, length: int, hop: float, rate: int) -> Iterator[tuple[int, Samples]]:
    """Cuts sound into the same windows as `audio.windows`, as soon as each is complete.

    Args:
        blocks: samples `[n]` of each block, of any length.
        length: samples per window.
        hop: s between the starts of consecutive windows.
        rate: Hz.

    Yields:
        The number of samples up to the window's end, and the window `[length]`.
    """
    buffer, first, number = np.zeros(0, np.float32), 0, 0  # buffer[0] is the sample `first` of the sound
    for block in blocks:
        buffer = np.concatenate([buffer, block])
        while (start := round(number * hop * rate)) + length <= first + len(buffer):
            yield start + length, buffer[start - first : start - first + length]
            number += 1
        dropped = min(start - first, len(buffer))
        buffer, first = buffer[dropped:], first + dropped


def resampled(sound: Sound, rate: int) -> Iterator[Samples]:
    """Yields the blocks of a sound at `rate` Hz; the resampler's filter delays them by some milliseconds."""
    if sound.rate == rate:
        yield from sound.blocks
        return
    resampler = soxr.ResampleStream(sound.rate, rate, 1, dtype="float32")
    for block in sound.blocks:
        yield resampler.resample_chunk(block)
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def open_file(path: Path) -> Sound:
    """Opens a recording that `audio.load` can read, from its start to its end.

    Raises:
        CatuvacError: it cannot be read, now or while iterating.
    """
    try:
        rate, blocks = audio.blocks(path, seconds=BLOCK)
    except AudioError as error:
        raise CatuvacError(f"{path}: {error}") from error

    def read() -> Iterator[Samples]:
        try:
            for block in blocks:
                yield block.numpy()
        except AudioError as error:
            raise CatuvacError(f"{path}: {error}") from error

    return Sound(rate, read())


def open_pipe(handle: int, *, timeout: float, rate: int = 0, raw: bool = False) -> Sound:
    """Opens a pipe with a WAV file of 16-bit samples or with raw mono samples.

    Args:
        handle: file descriptor.
        timeout: s without a byte after which the pipe counts as stalled.
        rate: Hz; 0 uses the rate in the header. A WAV file at another rate is rejected.
        raw: there is no header, and the samples are at `rate`.

    Raises:
        CatuvacError: the header is invalid, the rate differs, or later the pipe stalls or ends early.
    """
    pipe = _Pipe(handle, timeout)
    if raw:
        return Sound(rate, _pcm(pipe.read, rate=rate, channels=1, stated=None))
    try:
        wav = wave.Wave_read(pipe)  # type: ignore[arg-type]  # which needs no more than `read`
    except (wave.Error, EOFError) as error:
        reason = str(error) or "it ends in its header"
        raise CatuvacError(
            f"the pipe has no WAV file of 16-bit samples ({reason}): give --raw --rate HZ for samples without a header"
        ) from error
    if wav.getsampwidth() != PCM.itemsize:
        raise CatuvacError(f"the pipe's WAV file has {8 * wav.getsampwidth()}-bit samples: give 16-bit ones")
    if rate and rate != wav.getframerate():
        raise CatuvacError(
            f"the pipe's header states {wav.getframerate()} Hz and --rate {rate} Hz: correct one of them"
        )
    rate, channels = wav.getframerate(), wav.getnchannels()
    frame = channels * PCM.itemsize
    stated = None if wav.getnframes() * frame >= ENDLESS else wav.getnframes()
    # `wav` would end at a placeholder's size.
    read: _Read = pipe.read if stated is None else lambda count: wav.readframes(count // frame)
    return Sound(rate, _pcm(read, rate=rate, channels=channels, stated=stated))


class _Read(Protocol):
    def __call__(self, count: int, /) -> bytes: ...


def _pcm(read: _Read, *, rate: int, channels: int, stated: int | None) -> Iterator[Samples]:
    """Yields blocks of mono samples from `read(bytes)`, which returns fewer bytes only at the end.

    Raises:
        CatuvacError: the data end within a frame, or before the `stated` number of frames.
    """
    frame, frames = channels * PCM.itemsize, 0
    block = max(1, round(BLOCK * rate)) * frame
    while data := read(block):
        if len(data) % frame:
            raise CatuvacError(f"the pipe ended within a sample, after {frames / rate:.2f} s: it was cut short")
        samples = np.frombuffer(data, PCM).reshape(-1, channels)
        frames += len(samples)
        yield samples.mean(axis=1, dtype=np.float32) / FULL_SCALE
    if stated is not None and frames < stated:
        raise CatuvacError(f"the pipe ended after {frames / rate:.2f} s of the {stated / rate:.2f} s in its header")


class _Pipe:
    """A file descriptor that is read with a timeout; it cannot be rewound."""

    def __init__(self, handle: int, timeout: float) -> None:
        self.handle = handle
        self.timeout = timeout

    def read(self, count: int) -> bytes:
        """Reads `count` bytes, or fewer if the pipe ends."""
        parts: list[bytes] = []
        while count:
            ready, _, _ = select.select([self.handle], [], [], self.timeout)
            if not ready:
                raise CatuvacError(
                    f"the pipe stalled: no byte for {self.timeout:g} s; check its writer, or raise --timeout"
                )
            data = os.read(self.handle, count)
            if not data:
                break
            parts.append(data)
            count -= len(data)
        return b"".join(parts)


def open_microphone(device: str, *, rate: int) -> Sound:
    """Opens a live input of PortAudio, in mono at `rate` Hz, which never ends.

    Args:
        device: its number or a part of its name.
        rate: Hz.

    Raises:
        CatuvacError: sounddevice or PortAudio is missing, or the input does not exist, now or later.
    """
    try:
        import sounddevice
    except ImportError as error:
        raise CatuvacError(f"a live input needs the module {error.name}: install catuvac[live]") from error
    except OSError as error:
        raise CatuvacError(f"a live input needs PortAudio ({error}): install it, such as libportaudio2") from error

    def read() -> Iterator[Samples]:
        chosen = int(device) if device.isdecimal() else device
        try:
            with sounddevice.InputStream(rate, device=chosen, channels=1, dtype="float32") as stream:
                while True:
                    block, lost = stream.read(max(1, round(BLOCK * rate)))
                    if lost:
                        print(f"the input {device!r} lost samples: later times are too early", file=sys.stderr)
                    yield block[:, 0]
        except (sounddevice.PortAudioError, ValueError) as error:
            raise CatuvacError(f"the input {device!r} cannot be read: {' '.join(str(error).split())}") from error

    return Sound(rate, read())
