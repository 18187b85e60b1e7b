"""Eight-bit weights and activations for q(y | x), calibrated on features of training clips.

What is quantised follows from measurements on FSDD: the convolutions, which have most of the arithmetic, compute in
int8; the GRU, for which ONNX has no int8 form, keeps its weights in int8 and computes in float32; the head, a thousand
weights whose rounding moves the logits most, stays in float32, and so does the front end.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from catuvac.export.graph import FEATURES

CALIBRATION = 200  # clips
BATCH = 20  # clips at a time
INT8 = 127  # the largest weight; symmetric, so that zero stays zero


def quantise(network: onnx.ModelProto, x: NDArray[np.float32]) -> onnx.ModelProto:
    """Quantises the network to int8, as far as the module's docstring states.

    Args:
        network: from `graph.build_network`.
        x: features `[n, T, F]` of training clips, which determine the ranges of the activations.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, target = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        onnx.save(network, source)
        quantize_static(
            source,
            target,
            _Features(x),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Relu"],
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        model = onnx.load(target)
    _store_recurrent_weights(model.graph)
    onnx.checker.check_model(model, full_check=True)
    return model


def spread(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Returns at most `most` of a split's rows, evenly spread: the same ones every time."""
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64)]


class _Features(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, x: NDArray[np.float32]) -> None:
        self.batches = iter([x[start : start + BATCH, None] for start in range(0, len(x), BATCH)])

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self.batches, None)
        return None if batch is None else {FEATURES: batch}


def _store_recurrent_weights(graph: onnx.GraphProto) -> None:
    """Stores the GRUs' matrices `[1, 3 h, inputs]` as int8 with one scale per row, to be dequantised by the graph."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    before: list[onnx.NodeProto] = []
    for node in [node for node in graph.node if node.op_type == "GRU"]:
        for place in (1, 2):
            name = node.input[place]
            values = numpy_helper.to_array(weights[name])
            scale = np.abs(values).max(axis=(0, 2)) / INT8
            scale = np.where(scale > 0, scale, 1).astype(np.float32)
            rounded = np.rint(values / scale[None, :, None]).astype(np.int8)
            graph.initializer.remove(weights[name])
            graph.initializer.extend(
                [
                    numpy_helper.from_array(rounded, f"{name}_int8"),
                    numpy_helper.from_array(scale, f"{name}_scale"),
                    numpy_helper.from_array(np.zeros(len(scale), np.int8), f"{name}_zero"),
                ]
            )
            parts = [f"{name}_int8", f"{name}_scale", f"{name}_zero"]
            before.append(helper.make_node("DequantizeLinear", parts, [name], name=f"{name}_dequantise", axis=1))
    nodes = [*before, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the advice to preprocess, which is unnecessary: the graph has no batch norm and all shapes."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
