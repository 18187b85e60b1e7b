"""Frames of a pretrained audio embedding in place of a spectrogram: features of kind "embedding".

The default is Google's speech embedding (Lin et al. 2020, arXiv 2002.01322; Apache 2.0), whose weights the package
openwakeword 0.4 ships: 96 numbers for every 80 ms, each of a window of 775 ms. Any other model is an ONNX file that
maps samples `[1, n]` to `[1, frames, D]`, or to `[1, D]` for a whole clip.
"""

from __future__ import annotations

import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from catuvac.config import SPEECH_EMBEDDING
from catuvac.errors import CatuvacError, first_line

if TYPE_CHECKING:
    import onnxruntime

PACKAGE = "openwakeword"
BANDS = SPEECH_EMBEDDING[1]
MEL_WINDOW, MEL_HOP = 76, 8  # mel frames of 10 ms that a frame reads, and from one frame to the next
MEL_SAMPLES, MEL_MARGIN = 160, 3  # samples per mel frame, and the frames missing at the end
PCM = 32768.0  # the default was trained on 16-bit integers


class Embedder:
    """A pretrained model as a front end.

    Attributes:
        weights: the ONNX file; "" takes the default.
        checksum: of the content that was loaded.
    """

    def __init__(self, weights: str) -> None:
        """Loads the model.

        Raises:
            CatuvacError: onnxruntime, the package or the file is absent, or the file is not a readable model.
        """
        self.weights = weights
        if weights:
            paths = [Path(weights)]
        else:
            folder = _resources()
            paths = [folder / name for name in ("melspectrogram.onnx", "embedding_model.onnx")]
        contents = [_read(path) for path in paths]
        self.checksum = hashlib.sha256(b"".join(contents)).hexdigest()
        self.sessions = [_session(path, content) for path, content in zip(paths, contents, strict=True)]

    def frames(self, samples: Tensor) -> Tensor:
        """Returns the frames `[frames, D]` of a clip.

        Args:
            samples: `[n]` in [-1, 1], at the model's sample rate.

        Raises:
            CatuvacError: the model of a file does not accept samples `[1, n]`, or returns no frames.
        """
        if self.weights:
            return self._frames_of_file(samples)
        shortest = (MEL_WINDOW + MEL_MARGIN) * MEL_SAMPLES
        padded = F.pad(samples, (0, max(0, shortest - len(samples))))
        mel, embedding = self.sessions
        (level,) = mel.run(None, {"input": (padded[None] * PCM).numpy()})
        level = torch.from_numpy(level)[0, 0] / 10 + 2  # as the TensorFlow model has it
        windows = level.unfold(0, MEL_WINDOW, MEL_HOP).transpose(1, 2)  # [frames, 76, 32]
        (out,) = embedding.run(None, {"input_1": windows[..., None].contiguous().numpy()})
        return torch.from_numpy(out).reshape(len(out), BANDS)

    def hop(self, samples: int, count: int) -> float:
        """Returns the samples from one frame to the next of `count` frames of a clip with `samples` samples."""
        return samples / count if self.weights else MEL_HOP * MEL_SAMPLES

    def _frames_of_file(self, samples: Tensor) -> Tensor:
        (session,) = self.sessions
        try:
            out = session.run(None, {session.get_inputs()[0].name: samples[None].numpy()})[0]
        except Exception as error:  # whatever onnxruntime raises
            reason = first_line(error)
            raise CatuvacError(f"{self.weights} does not accept samples [1, n] in float32: {reason}") from error
        frames = torch.as_tensor(out, dtype=torch.float32)
        if frames.ndim not in (2, 3) or len(frames) != 1:
            raise CatuvacError(f"{self.weights} must give [1, frames, D] or [1, D], got {list(frames.shape)}")
        return frames.reshape(-1, frames.shape[-1])


@lru_cache(maxsize=4)
def embedder(weights: str) -> Embedder:
    """Returns the model of a file, or the default for "", loaded once."""
    return Embedder(weights)


@lru_cache(maxsize=32)
def shape(weights: str, samples: int) -> tuple[int, int]:
    """Returns the number of frames, and their size, of a clip with `samples` samples."""
    frames, bands = embedder(weights).frames(torch.zeros(samples)).shape
    return frames, bands


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CatuvacError(f"cannot read the weights {path}: {error.strerror or error}") from error


def _session(path: Path, content: bytes) -> onnxruntime.InferenceSession:
    try:
        import onnxruntime
    except ImportError as error:
        raise _absent("onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # clips are extracted in parallel
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # whatever onnxruntime raises
        raise CatuvacError(f"{path} is not a readable ONNX model: {first_line(error)}") from error


def _resources() -> Path:
    """Returns the folder of the package's weights, without importing the package."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise _absent(PACKAGE)
    return Path(spec.origin).parent / "resources" / "models"


def _absent(package: str) -> CatuvacError:
    return CatuvacError(f"features of kind 'embedding' need {package}: pip install 'catuvac[embeddings]'")
