"""Feature extraction of UrbanSound8K: catuvac's against a plain loop over files with librosa.

    python -m benchmarks.extraction DIR     # in studies/; DIR contains UrbanSound8K, whole or in part

Both start from the recordings and end with normalised features in a file. The loop's time is also given without its
last step, with its levels in dB as an array in memory. Its matrix products run on one thread: more threads do not make
it faster, and if other work shares the cores, they wait ten times as long for each other.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from catuvac.config import preset
from catuvac.data import features, store
from catuvac.errors import CatuvacError

try:
    import librosa
except ImportError as missing:
    raise CatuvacError("this benchmark needs librosa: pip install 'catuvac[benchmark]'") from missing

PRESET = "urbansound8k_k10"
CONFIG = preset(PRESET).with_settings({"partial": True})

Array = NDArray[np.float32]


def measure(data_root: Path, *, repeats: int) -> list[dict[str, Any]]:
    """Returns one row: medians of `repeats` alternating runs over all files of `data_root`, and the largest difference.

    Raises:
        CatuvacError: `data_root` does not contain UrbanSound8K.
    """
    with tempfile.TemporaryDirectory() as folder:
        clips = _catuvac(data_root, Path(folder)).clips  # reads every file once, so that both sides find it cached
        _loop(clips["path"][:10], clips["duration"][:10])  # librosa compiles and imports parts of itself on first use
    in_memory, to_file, ours = [], [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            with threadpool_limits(1):
                levels = _loop(clips["path"], clips["duration"])
            in_memory.append(time.perf_counter() - start)
            np.save(Path(folder) / "x.npy", _normalised(levels))
            to_file.append(time.perf_counter() - start)

            start = time.perf_counter()
            prepared = _catuvac(data_root, Path(folder))
            ours.append(time.perf_counter() - start)
            in_decibels, normalised = _differences(levels, prepared)
    files = len(clips)
    return [
        {
            "preset": PRESET,
            "files": files,
            "catuvac (s)": median(ours),
            "librosa loop (s)": median(to_file),
            "librosa loop, in memory (s)": median(in_memory),
            "catuvac (files/s)": files / median(ours),
            "librosa loop (files/s)": files / median(to_file),
            "ratio to librosa": median(np.divide(to_file, ours)),
            "ratio to librosa, in memory": median(np.divide(in_memory, ours)),
            "largest difference (dB)": in_decibels,
            "largest difference of features in [0, 1]": normalised,
        }
    ]


def _catuvac(data_root: Path, cache_dir: Path) -> store.FeatureSet:
    return store.prepare(CONFIG, data_root=data_root, cache_dir=cache_dir, progress=False)


def _loop(paths: Any, durations: Any) -> Array:
    """Returns levels in dB `[N, frames, bands]`."""
    settings = CONFIG.features
    length = round(settings.clip_seconds * settings.sample_rate)
    clips = []
    for path, duration in zip(paths, durations, strict=True):
        # The table's end - start is 3.9999999999999996 s instead of 4 s, and librosa would drop a sample.
        seconds = min(round(duration, 6), settings.clip_seconds)
        samples, _ = librosa.load(path, sr=settings.sample_rate, duration=seconds)
        power = librosa.feature.melspectrogram(
            y=librosa.util.fix_length(samples, size=length),
            sr=settings.sample_rate,
            n_fft=settings.window,
            hop_length=settings.hop,
            pad_mode="constant",
            power=2.0,
            n_mels=settings.n_bands,
            htk=True,
            norm=None,
        )
        clips.append(librosa.power_to_db(power, top_db=settings.top_db).T)
    return np.stack(clips)


def _normalised(levels: Array) -> Array:
    """Standardises each band, then scales all cells to [0, 1]; over all frames, since there is no mask."""
    scaled = (levels - levels.mean(axis=(0, 1))) / levels.std(axis=(0, 1))
    normalised: Array = (scaled - scaled.min()) / (scaled.max() - scaled.min())
    return normalised


def _differences(levels: Array, prepared: store.FeatureSet) -> tuple[float, float]:
    """Returns the largest difference in dB before normalisation, and in [0, 1] after the same normalisation of both."""
    (raw,) = (path.parent for path in prepared.path.parent.glob("*/x.npy") if path.parent != prepared.path)
    x = np.load(raw / "x.npy")
    theirs = np.zeros_like(x)
    theirs[:, : levels.shape[1], : levels.shape[2]] = levels
    train = np.zeros(len(x), dtype=np.bool_)
    train[prepared.splits["train"]] = True
    normaliser = features.Normaliser.fit(x, prepared.mask & train[:, None], CONFIG.features)
    return (
        float(np.abs(x - theirs).max()),
        float(np.abs(normaliser.apply(theirs, prepared.mask) - prepared.x).max()),
    )


if __name__ == "__main__":
    try:
        for row in measure(Path(sys.argv[1]), repeats=5):
            for name, value in row.items():
                print(f"{name:45}{value:.4g}" if isinstance(value, float) else f"{name:45}{value}")
    except CatuvacError as error:
        sys.exit(str(error))
