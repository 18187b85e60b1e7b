"""A cluster for every window of sound as it arrives: from a file, a pipe or a microphone, in memory that stays flat.

    stream = Stream(model, open_pipe(0, timeout=10), hop=0.5)
    for decision in stream:
        print(decision)

Shape legend: N samples of a window, K clusters.
"""

from __future__ import annotations

import math
import os
import select
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

BLOCK = 0.05  # s that are read at a time, at most
TIMED = 10_000  # windows whose latency is kept
ENDLESS = 0x7FFF0000  # bytes: what a header states at least where its writer could not know the length
PCM = np.dtype("<i2")
FULL_SCALE = np.float32(2**15)

Samples = NDArray[np.float32]


class Classifier(Protocol):
    """What gives windows their clusters; `catuvac.inference.FittedModel` and an exported model do."""

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
    """What a model says at the end of one window.

    Attributes:
        time: s from the start of the sound to the window's end.
        cluster: the most probable one, after averaging.
        name: of it; "" without a name.
        probability: of it.
        undecided: whether the entropy of q(y | x) is too high to rely on the cluster.
        state: the cluster that holds, which another one replaces only by a margin.
        changed: whether that has just happened.
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
    """How a stream went.

    Attributes:
        windows: that were decided on.
        changes: of the state.
        seconds: of sound.
        mean_ms, p95_ms: from a whole window to its decision, over the last `TIMED` ones.
        cpu_share: processor time, all threads together, as a share of the sound's duration.
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
    """The decisions on a sound, one at the end of each window, and afterwards their `summary`."""

    def __init__(
        self, model: Classifier, sound: Sound, *, hop: float = 0.0, smooth: int = 1, hysteresis: float = 0.0
    ) -> None:
        """Computes nothing yet.

        Args:
            model: what decides.
            sound: at any rate; it is resampled to the model's.
            hop: s between the ends of two windows; 0 puts windows end to end.
            smooth: windows, up to the present one, whose logits are averaged.
            hysteresis: by how much another cluster must be more probable than the state to replace it, in [0, 1).
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
        """Decides as sound arrives.

        Raises:
            CatuvacError: the sound breaks off, or ends before its first window.
        """
        model, rate = self.model, self.model.sample_rate
        model.logits([torch.zeros(model.window)])  # libraries choose their kernels on a first call
        began = time.process_time()
        try:
            for end, samples in cut(self._heard(), length=model.window, hop=self.hop, rate=rate):
                whole = time.perf_counter()
                decision = self.decide(model.logits([torch.from_numpy(samples)])[0], at=end / rate)
                self.latencies.append(time.perf_counter() - whole)
                yield decision
        finally:
            self.processor = time.process_time() - began
        if not self.windows:
            wanted, had = model.window / rate, self.samples / rate
            raise CatuvacError(f"the sound ended after {had:.2f} s, before a whole window of {wanted:g} s")

    def _heard(self) -> Iterator[Samples]:
        """The blocks at the model's rate."""
        for block in resampled(self.sound, self.model.sample_rate):
            self.samples += len(block)
            yield block

    def decide(self, logits: NDArray[np.float32], *, at: float) -> Decision:
        """The decision on a window with logits `[K]` that ends `at` s."""
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
        """Of what was decided so far."""
        seconds, latencies = self.samples / self.model.sample_rate, 1e3 * np.array(self.latencies or [math.nan])
        share = self.processor / seconds if seconds else math.nan
        p95 = float(np.percentile(latencies, 95))
        return Summary(self.windows, self.changes, seconds, float(latencies.mean()), p95, share)


def cut(blocks: Iterator[Samples], *, length: int, hop: float, rate: int) -> Iterator[tuple[int, Samples]]:
    """Cuts sound into the windows of `audio.windows`, as they become whole.

    Args:
        blocks: `[n]` each, of any length.
        length: samples of a window.
        hop: s between the starts of two windows.
        rate: Hz.

    Yields:
        The samples from the start of the sound to the window's end, and the window `[length]`.
    """
    held, first, number = np.zeros(0, np.float32), 0, 0  # held[0] is the sample `first` of the sound
    for block in blocks:
        held = np.concatenate([held, block])
        while (start := round(number * hop * rate)) + length <= first + len(held):
            yield start + length, held[start - first : start - first + length]
            number += 1
        gone = min(start - first, len(held))
        held, first = held[gone:], first + gone


def resampled(sound: Sound, rate: int) -> Iterator[Samples]:
    """The blocks of a sound at `rate` Hz; the resampler's filter delays them by some milliseconds."""
    if sound.rate == rate:
        yield from sound.blocks
        return
    resampler = soxr.ResampleStream(sound.rate, rate, 1, dtype="float32")
    for block in sound.blocks:
        yield resampler.resample_chunk(block)
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def open_file(path: Path) -> Sound:
    """A recording that `audio.load` reads, from its start to its end.

    Raises:
        CatuvacError: it cannot be read, then or later.
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
    """A WAV file of 16-bit samples, or raw mono ones, from a pipe.

    Args:
        handle: file descriptor.
        timeout: s without a byte after which the pipe counts as stalled.
        rate: Hz; 0 takes what the header states. A WAV file at another rate is refused.
        raw: there is no header, and `rate` is the samples'.

    Raises:
        CatuvacError: no such header, another rate, or later a pipe that stalls or ends early.
    """
    pipe = _Pipe(handle, timeout)
    if raw:
        return Sound(rate, _pcm(pipe.read, rate=rate, channels=1, stated=None))
    try:
        wav = wave.Wave_read(pipe)  # type: ignore[arg-type]  # which needs no more than `read`
    except (wave.Error, EOFError) as error:
        reason = str(error) or "it ends in its header"
        raise CatuvacError(
            f"the pipe holds no WAV file of 16-bit samples ({reason}): give --raw --rate HZ for one without a header"
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
    return Sound(rate, _pcm(lambda count: wav.readframes(count // frame), rate=rate, channels=channels, stated=stated))


class _Read(Protocol):
    def __call__(self, count: int, /) -> bytes: ...


def _pcm(read: _Read, *, rate: int, channels: int, stated: int | None) -> Iterator[Samples]:
    """Blocks of mono samples from `read(bytes)`, which returns fewer at the end alone.

    Raises:
        CatuvacError: the end comes within a frame, or before the `stated` number of frames.
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
    """A file descriptor that is read with a limit on the wait; it cannot be rewound."""

    def __init__(self, handle: int, timeout: float) -> None:
        self.handle = handle
        self.timeout = timeout

    def read(self, count: int) -> bytes:
        """So many bytes, or fewer where the pipe ends."""
        parts: list[bytes] = []
        while count:
            ready, _, _ = select.select([self.handle], [], [], self.timeout)
            if not ready:
                raise CatuvacError(
                    f"the pipe stalled: no byte for {self.timeout:g} s; see to its writer, or raise --timeout"
                )
            data = os.read(self.handle, count)
            if not data:
                break
            parts.append(data)
            count -= len(data)
        return b"".join(parts)


def open_microphone(device: str, *, rate: int) -> Sound:
    """A live input of PortAudio, in mono at `rate` Hz, without an end.

    Args:
        device: its number, or a part of its name.
        rate: Hz.

    Raises:
        CatuvacError: no sounddevice, no PortAudio, or then or later no such input.
    """
    try:
        import sounddevice
    except ImportError as error:
        raise CatuvacError(f"no module {error.name}, which a live input needs: install catuvac[live]") from error
    except OSError as error:
        raise CatuvacError(f"a live input needs PortAudio ({error}): install it, such as libportaudio2") from error

    def read() -> Iterator[Samples]:
        chosen = int(device) if device.isdigit() else device
        try:
            with sounddevice.InputStream(rate, device=chosen, channels=1, dtype="float32") as stream:
                while True:
                    block, _ = stream.read(max(1, round(BLOCK * rate)))
                    yield block[:, 0]
        except (sounddevice.PortAudioError, ValueError) as error:
            raise CatuvacError(f"the input {device!r} cannot be read: {' '.join(str(error).split())}") from error

    return Sound(rate, read())
