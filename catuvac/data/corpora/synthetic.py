"""Generated acoustic scenes with adjustable overlap: no files; the configuration determines every sample.

A clip is `sqrt(1 - overlap) * scene + sqrt(overlap) * background`, both at unit RMS. The scene belongs to the class;
the background is drawn from one distribution for all classes, so that at overlap 1 the classes are indistinguishable.
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
FLOOR = 0.03  # recorder noise relative to the clip: -30 dB
LEVELS = {"soft": 0.08, "loud": 0.1}  # RMS; a nuisance: alternates from clip to clip, whatever the class

Samples = NDArray[np.float64]

_TIME: Samples = np.arange(round(SAMPLE_RATE * SECONDS)) / SAMPLE_RATE  # s
_FREQUENCY: Samples = np.arange(len(_TIME) // 2 + 1) / SECONDS  # Hz


def synthesise(*, seed: int, label: int, number: int, overlap: float) -> NDArray[np.float32]:
    """Generates clip `number` of class `label`, `[16000]` samples (16 kHz, 1 s), from its arguments alone."""
    scene = _scene(np.random.default_rng([seed, label, number, 0]), label)
    rng = np.random.default_rng([seed, label, number, 1])
    background = _background(rng)
    mixed = np.sqrt(1 - overlap) * _unit(scene) + np.sqrt(overlap) * _unit(background)
    recorded = _unit(mixed) + FLOOR * rng.normal(size=len(_TIME))
    return (LEVELS[_level(number)] * recorded).astype(np.float32)


def class_name(label: int) -> str:
    """Returns `hum` for the family's first class, `hum-2` for its second, elsewhere on the frequency axis."""
    variant, place = divmod(label, len(_FAMILIES))
    family = list(_FAMILIES)[(place + variant) % len(_FAMILIES)]
    return family if variant == 0 else f"{family}-{variant + 1}"


def _scene(rng: Generator, label: int) -> Samples:
    variant, place = divmod(label, len(_FAMILIES))
    family = list(_FAMILIES.values())[(place + variant) % len(_FAMILIES)]
    return family(rng, _centre(place, variant))


def _centre(place: int, variant: int) -> float:
    """Returns a frequency in Hz; scenes have separate zones on the mel axis, all about equally far apart."""
    half = len(_FAMILIES) // 2
    zone = 2 * place if place < half else 2 * (place - half) + 1
    # Multiples of the golden ratio spread the variants evenly over the zone, whatever their number.
    mel = 2840.0 * (zone + (0.5 + variant * 0.6180339887498949) % 1.0) / len(_FAMILIES)  # 2840 mel are 8 kHz
    return float(700.0 * (10 ** (mel / 2595.0) - 1.0))


def _level(number: int) -> str:
    return list(LEVELS)[number % 2]


def _unit(samples: Samples) -> Samples:
    return samples / float(np.sqrt(np.mean(samples**2)))


def _jitter(rng: Generator, value: float, share: float) -> float:
    """Returns `value` times a random factor of about 1 ± `share`."""
    return value * float(np.exp(share * rng.uniform(-1, 1)))


def _noise(rng: Generator, gain: Samples) -> Samples:
    """Returns Gaussian noise with the magnitude response `gain` over `_FREQUENCY`."""
    spectrum = rng.normal(size=len(_FREQUENCY)) + 1j * rng.normal(size=len(_FREQUENCY))
    return np.fft.irfft(spectrum * gain, n=len(_TIME))


def _slope(decibels_per_octave: float) -> Samples:
    """Returns the magnitude response of coloured noise: -3 is pink, -6 is brown; flat below 50 Hz."""
    return np.asarray((np.maximum(_FREQUENCY, 50.0) / 1000.0) ** (decibels_per_octave / 6.02))


def _around(centre: float, octaves: float) -> Samples:
    """Returns the magnitude response of a band with Gaussian edges, about `octaves` wide at half power."""
    return np.asarray(np.exp(-0.5 * (np.log2(np.maximum(_FREQUENCY, 1.0) / centre) / (octaves / 2)) ** 2))


def _phase(frequency: Samples, rng: Generator) -> Samples:
    """Returns the running phase in rad of a tone whose frequency in Hz varies over time, from a random start."""
    return 2 * np.pi * (np.cumsum(frequency) / SAMPLE_RATE + rng.uniform())


def _saw(rng: Generator, rate: float) -> Samples:
    """Returns the position in [0, 1) within each of `rate` repetitions per second; clips start near an onset."""
    return (_TIME * _jitter(rng, rate, 0.02) + rng.uniform(0, 0.2)) % 1.0


def _wave(rng: Generator, rate: float) -> Samples:
    """Returns a sine of about `rate` Hz that starts near phase 0."""
    return np.sin(2 * np.pi * (_TIME * _jitter(rng, rate, 0.02) + rng.uniform(0, 0.2)))


def _breath(rng: Generator, centre: float) -> Samples:
    return _noise(rng, _around(_jitter(rng, centre, 0.04), 0.35))


def _hum(rng: Generator, centre: float) -> Samples:
    vibrato = 1 + 0.01 * np.sin(2 * np.pi * (_TIME * _jitter(rng, 5, 0.3) + rng.uniform()))
    phase = _phase(_jitter(rng, centre, 0.04) / 4 * vibrato, rng)  # harmonics 3 to 5 of an unheard fundamental
    return sum((np.sin(k * phase + rng.uniform(0, 6.3)) for k in (3, 4, 5)), np.zeros_like(_TIME))


def _chirps(rng: Generator, centre: float) -> Samples:
    octaves = 0.6 * (_saw(rng, 3.0) - 0.5)
    return np.sin(_phase(_jitter(rng, centre, 0.04) * 2**octaves, rng))


def _impulses(rng: Generator, centre: float) -> Samples:
    envelope = np.exp(-_saw(rng, 5.0) / 5.0 / 0.04)
    return envelope * _noise(rng, _around(_jitter(rng, centre, 0.04), 0.4))


def _band(rng: Generator, centre: float) -> Samples:
    envelope = 1 + 0.9 * _wave(rng, 3.0)
    return envelope * _noise(rng, _around(_jitter(rng, centre, 0.04), 0.4))


def _siren(rng: Generator, centre: float) -> Samples:
    return np.sin(_phase(_jitter(rng, centre, 0.04) * 2 ** (0.3 * _wave(rng, 2.0)), rng))


def _beeps(rng: Generator, centre: float) -> Samples:
    tone = _jitter(rng, centre, 0.04)
    chord = (np.sin(_phase(np.full_like(_TIME, tone * ratio), rng)) for ratio in (0.85, 1.0, 1.2))
    return (_saw(rng, 2.0) < 0.6) * sum(chord, np.zeros_like(_TIME))


def _rumble(rng: Generator, centre: float) -> Samples:
    envelope = 1 + 0.7 * _wave(rng, 1.0)
    return envelope * _noise(rng, _around(_jitter(rng, centre, 0.04), 1.0))


def _engine(rng: Generator, centre: float) -> Samples:
    return _unit(_hum(rng, centre)) + _unit(_impulses(rng, centre))


def _rain(rng: Generator, centre: float) -> Samples:
    return (0.1 + _saw(rng, 1.0)) * _noise(rng, _around(_jitter(rng, centre, 0.04), 0.5))


def _background(rng: Generator) -> Samples:
    """Returns coloured noise with a random slope and slow random swells."""
    swell = 1 + 0.3 * _wave(rng, rng.uniform(0.5, 3))
    return swell * _noise(rng, _slope(rng.uniform(-4, -2)))


# The first five lie two zones apart, the next five between them.
_FAMILIES = {
    "rumble": _rumble,
    "hum": _hum,
    "siren": _siren,
    "band": _band,
    "rain": _rain,
    "engine": _engine,
    "beeps": _beeps,
    "chirps": _chirps,
    "impulses": _impulses,
    "breath": _breath,
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


def _read(config: CorpusConfig, path: str, sample_rate: int, *, start: float = 0.0, seconds: float = SECONDS) -> Tensor:
    del seconds
    name, number = path.split("/")
    label = [class_name(label) for label in range(config.n_classes)].index(name)
    samples = synthesise(seed=config.corpus_seed, label=label, number=int(number), overlap=config.overlap)
    return audio.resample(torch.from_numpy(samples[round(start * SAMPLE_RATE) :]), rate=SAMPLE_RATE, to=sample_rate)


CORPUS = Corpus(
    name="synthetic",
    description="generated acoustic scenes of 1 s at 16 kHz; `overlap` mixes one background into every class",
    licence="none: generated",
    nuisances=("level",),
    group="",
    full=0,
    index=_index,
    needs_root=False,
    read=_read,
)
