"""Generated acoustic scenes with an overlap knob: no files, every sample follows from the configuration.

A clip is `sqrt(1 - overlap) * scene + sqrt(overlap) * background`, both at unit RMS. The scene belongs to the class;
the background is drawn from one distribution for all classes, so that at overlap 1 nothing tells the classes apart.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from catuvac.config import CorpusConfig
from catuvac.data import audio
from catuvac.data.corpora.table import ClipTable, Corpus

SAMPLE_RATE = 16000  # Hz
SECONDS = 1.0
FLOOR = 0.01  # noise of the recorder against the clip: -40 dB
LEVELS = {"soft": 0.08, "loud": 0.1}  # RMS; a nuisance: even and odd clips, whatever the class

Samples = NDArray[np.float64]

_TIME: Samples = np.arange(round(SAMPLE_RATE * SECONDS)) / SAMPLE_RATE  # s
_FREQUENCY: Samples = np.arange(len(_TIME) // 2 + 1) / SECONDS  # Hz


def synthesise(*, seed: int, label: int, number: int, overlap: float) -> NDArray[np.float32]:
    """The samples `[16000]` (16 kHz, 1 s) of clip `number` of class `label`; they follow from the arguments alone."""
    scene = _scene(np.random.default_rng([seed, label, number, 0]), label)
    rng = np.random.default_rng([seed, label, number, 1])
    background = _background(rng)
    mixed = np.sqrt(1 - overlap) * _unit(scene) + np.sqrt(overlap) * _unit(background)
    recorded = _unit(mixed) + FLOOR * rng.normal(size=len(_TIME))
    return (LEVELS[_level(number)] * recorded).astype(np.float32)


def class_name(label: int) -> str:
    """`hum` for the family's first class, `hum-2` for its second."""
    variant = label // len(_FAMILIES)
    family = list(_FAMILIES)[label % len(_FAMILIES)]
    return family if variant == 0 else f"{family}-{variant + 1}"


def _scene(rng: Generator, label: int) -> Samples:
    variant = label // len(_FAMILIES)
    family = list(_FAMILIES.values())[label % len(_FAMILIES)]
    # Multiples of the golden ratio spread any number of variants evenly, and adding one moves none of the others.
    position = (0.25 + variant * 0.6180339887498949) % 1.0
    return family(rng, position)


def _level(number: int) -> str:
    return list(LEVELS)[number % 2]


def _unit(samples: Samples) -> Samples:
    return samples / float(np.sqrt(np.mean(samples**2)))


def _between(low: float, high: float, position: float) -> float:
    """The frequency or rate at `position` in [0, 1] on a logarithmic axis."""
    return float(low * (high / low) ** position)


def _jitter(rng: Generator, value: float, share: float) -> float:
    """`value` times a random factor of about 1 ± `share`."""
    return value * float(np.exp(share * rng.uniform(-1, 1)))


def _noise(rng: Generator, gain: Samples) -> Samples:
    """Gaussian noise with the magnitude response `gain` over `_FREQUENCY`."""
    spectrum = rng.normal(size=len(_FREQUENCY)) + 1j * rng.normal(size=len(_FREQUENCY))
    return np.fft.irfft(spectrum * gain, n=len(_TIME))


def _slope(decibels_per_octave: float) -> Samples:
    """Magnitude response of coloured noise: -3 is pink, -6 is brown; flat below 50 Hz."""
    return np.asarray((np.maximum(_FREQUENCY, 50.0) / 1000.0) ** (decibels_per_octave / 6.02))


def _around(centre: float, octaves: float) -> Samples:
    """Magnitude response of a band with Gaussian edges, `octaves` wide between the half-power points or so."""
    return np.asarray(np.exp(-0.5 * (np.log2(np.maximum(_FREQUENCY, 1.0) / centre) / (octaves / 2)) ** 2))


def _phase(frequency: Samples, rng: Generator) -> Samples:
    """Running phase in rad of a tone whose frequency in Hz varies over time, from a random start."""
    return 2 * np.pi * (np.cumsum(frequency) / SAMPLE_RATE + rng.uniform())


def _saw(rng: Generator, rate: float) -> Samples:
    """Position in [0, 1) within each repetition, `rate` of them a second, at a random onset."""
    return (_TIME * rate + rng.uniform()) % 1.0


def _wave(rng: Generator, rate: float) -> Samples:
    """A sine at `rate` Hz and a random phase."""
    return np.sin(2 * np.pi * (_TIME * rate + rng.uniform()))


def _coloured(rng: Generator, position: float) -> Samples:
    return _noise(rng, _slope(-9 + 12 * position + rng.uniform(-1, 1)))


def _hum(rng: Generator, position: float) -> Samples:
    f0 = _jitter(rng, _between(90, 500, position), 0.05)
    vibrato = 1 + 0.015 * _wave(rng, _jitter(rng, 5, 0.3))
    phase = _phase(f0 * vibrato, rng)
    return sum((np.sin(k * phase + rng.uniform(0, 6.3)) / k for k in range(1, 9)), np.zeros_like(_TIME))


def _chirps(rng: Generator, position: float) -> Samples:
    rate = _jitter(rng, _between(5, 12, position), 0.15)
    start, octaves = _jitter(rng, _between(1500, 600, position), 0.1), 2.0
    return np.sin(_phase(start * 2 ** (octaves * _saw(rng, rate)), rng))


def _impulses(rng: Generator, position: float) -> Samples:
    rate = _jitter(rng, _between(12, 30, position), 0.15)
    envelope = np.exp(-_saw(rng, rate) / rate / 0.015)
    return envelope * _noise(rng, _around(_jitter(rng, _between(5500, 1200, position), 0.1), 1.5))


def _band(rng: Generator, position: float) -> Samples:
    envelope = 1 + 0.9 * _wave(rng, _jitter(rng, _between(3, 12, position), 0.2))
    return envelope * _noise(rng, _around(_jitter(rng, _between(1200, 5000, position), 0.08), 0.5))


def _siren(rng: Generator, position: float) -> Samples:
    centre = _jitter(rng, _between(600, 2500, position), 0.08)
    return np.sin(_phase(centre * 2 ** (0.5 * _wave(rng, _jitter(rng, 2.5, 0.3))), rng))


def _beeps(rng: Generator, position: float) -> Samples:
    tone = _jitter(rng, _between(3800, 1000, position), 0.05)
    gate = _saw(rng, _jitter(rng, _between(4, 10, position), 0.15)) < 0.5
    return (0.1 + gate) * (
        np.sin(_phase(np.full_like(_TIME, tone), rng)) + 0.5 * np.sin(_phase(1.5 * np.full_like(_TIME, tone), rng))
    )


def _rumble(rng: Generator, position: float) -> Samples:
    envelope = 1 + 0.5 * _wave(rng, _jitter(rng, _between(1, 6, position), 0.3))
    return envelope * _noise(rng, _around(_jitter(rng, _between(120, 400, position), 0.1), 1.0))


def _engine(rng: Generator, position: float) -> Samples:
    return 0.8 * _unit(_hum(rng, position * 0.3)) + 0.6 * _unit(_band(rng, 1 - 0.4 * position))


def _rain(rng: Generator, position: float) -> Samples:
    drops = rng.random(len(_TIME)) < _between(60, 400, position) / SAMPLE_RATE
    ring = np.exp(-_TIME[:800] / 0.003) * np.sin(
        2 * np.pi * _jitter(rng, _between(6500, 4000, position), 0.05) * _TIME[:800]
    )
    return np.convolve(drops * rng.normal(size=len(_TIME)), ring)[: len(_TIME)] + 0.02 * rng.normal(size=len(_TIME))


def _background(rng: Generator) -> Samples:
    """Coloured noise of a random slope with slow random swells."""
    swell = 1 + 0.3 * _wave(rng, rng.uniform(0.5, 3))
    return swell * _noise(rng, _slope(rng.uniform(-4, -2)))


_FAMILIES = {
    "noise": _coloured,
    "hum": _hum,
    "chirps": _chirps,
    "impulses": _impulses,
    "band": _band,
    "siren": _siren,
    "beeps": _beeps,
    "rumble": _rumble,
    "engine": _engine,
    "rain": _rain,
}


def _index(config: CorpusConfig, data_root: Path | None) -> ClipTable:
    del data_root
    rows = [
        (class_name(label), number) for label in range(config.n_classes) for number in range(config.clips_per_class)
    ]
    clips = pd.DataFrame(
        {
            "path": [f"{name}/{number:04d}" for name, number in rows],
            "label": [name for name, _ in rows],
            "duration": SECONDS,
            "level": [_level(number) for _, number in rows],
        }
    )
    return ClipTable(clips, f"{len(clips)} generated clips of {config.n_classes} scenes, overlap {config.overlap:g}")


def _read(config: CorpusConfig, path: str, sample_rate: int) -> Tensor:
    name, number = path.split("/")
    label = [class_name(label) for label in range(config.n_classes)].index(name)
    samples = synthesise(seed=config.corpus_seed, label=label, number=int(number), overlap=config.overlap)
    return audio.resample(torch.from_numpy(samples), rate=SAMPLE_RATE, to=sample_rate)


CORPUS = Corpus(
    name="synthetic",
    description="generated acoustic scenes of 1 s at 16 kHz; `overlap` mixes one background into every class",
    licence="none: generated",
    nuisances=("level",),
    index=_index,
    needs_root=False,
    read=_read,
)
