"""An exported file as `catuvac stream` uses it: a classifier that needs nothing but the file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from torch import Tensor

from catuvac.errors import CatuvacError, first_line
from catuvac.export import graph


def session(source: str | bytes, *, threads: int = 1) -> onnxruntime.InferenceSession:
    """Opens a file, or its content, in onnxruntime on `threads` threads of the processor."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


class ExportedModel:
    """A file that `catuvac export` wrote, in onnxruntime."""

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        """Opens the file.

        Raises:
            CatuvacError: there is none, or `catuvac export` did not write it.
        """
        if not path.is_file():
            raise CatuvacError(f"there is no file {path}")
        try:
            self.session = session(str(path), threads=threads)
            facts = self.session.get_modelmeta().custom_metadata_map
            self.sample_rate, self.window = int(facts["sample_rate"]), int(facts["samples"])
            self.names: tuple[str, ...] = tuple(json.loads(facts["clusters"]))
            self.undecided_above = float(facts["undecided_above_nats"])
        except KeyError as error:
            raise CatuvacError(f"{path} lacks the metadata {error}: give a file of `catuvac export`") from error
        except Exception as error:  # onnxruntime's error classes have no common base
            reason = first_line(error)
            raise CatuvacError(f"{path} is not a file of `catuvac export`: {reason}") from error

    def logits(self, clips: Sequence[Tensor]) -> NDArray[np.float32]:
        """Returns the logits of q(y | x), `[n, K]`, for clips of at most `window` samples."""
        logits: NDArray[np.float32]
        (logits,) = self.session.run([graph.LOGITS], graph.inputs(clips, window=self.window))
        return logits
