"""q(y | x) and its front end as ONNX graphs of operators that every runtime supports.

The graphs are written node by node rather than traced: PyTorch's exporter turns the network into sixty nodes, of shape
arithmetic and weight slicing, which a small runtime executes on every call. Here there are sixteen.

Shape legend: B clips, N samples, T frames, F bands, K clusters.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from catuvac.config import FeatureConfig
from catuvac.data import features
from catuvac.inference import FittedModel
from catuvac.models.networks import ConvRecurrentEncoder

OPSET = 17  # of January 2023; nothing here needs a later one
IR_VERSION = 8
FRONT, NETWORK = "front/", "network/"  # prefixes of the names of the two parts' nodes and weights
SAMPLES, LENGTHS, FEATURES, LOGITS, PROBABILITIES = "samples", "lengths", "features", "logits", "probabilities"
LEAST_POWER = 1e-10  # before conversion to dB, as in torchaudio's AmplitudeToDB


class Graph:
    """An ONNX graph under construction: each call adds a node and returns the name of its output."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def __call__(self, operator: str, *inputs: str, out: str = "", skip: int = 0, **attributes: Any) -> str:
        """Adds a node.

        Args:
            operator: name of an ONNX operator.
            inputs: names; "" leaves an optional one out.
            out: the name of the output; a new one by default.
            skip: number of unused outputs before it.
            attributes: of the operator.
        """
        name = f"{self.prefix}{operator}_{len(self.nodes)}"
        out = out or name
        outputs = [*[""] * skip, out]
        self.nodes.append(helper.make_node(operator, list(inputs), outputs, name=name, **attributes))
        return out

    def constant(self, values: Any, dtype: type[np.generic] = np.float32) -> str:
        """Adds an array and returns its name."""
        name = f"{self.prefix}weight_{len(self.weights)}"
        array = np.ascontiguousarray(values, dtype=dtype)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def model(self, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]) -> onnx.ModelProto:
        """Returns the graph as a checked model."""
        graph = helper.make_graph(self.nodes, self.prefix.rstrip("/"), inputs, outputs, initializer=self.weights)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="catuvac")
        onnx.checker.check_model(model, full_check=True)
        return model


def merge(front: onnx.ModelProto, network: onnx.ModelProto, metadata: dict[str, str]) -> onnx.ModelProto:
    """Returns one model from samples to clusters, with the metadata that its consumer needs."""
    model = compose.merge_models(front, network, io_map=[(FEATURES, FEATURES)], name="catuvac")
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    return model


def metadata(model: FittedModel, revision: str | None) -> dict[str, str]:
    """Returns what a consumer needs besides the graph: the input's rate and length, and the clusters' names."""
    front_end = model.config.features
    return {
        "sample_rate": str(front_end.sample_rate),
        "samples": str(features.clip_samples(front_end)),
        "clusters": json.dumps(model.names, ensure_ascii=False),
        "undecided_above_nats": f"{model.undecided_above:.6g}",
        "config_hash": model.config.hash(),
        "revision": revision or "unknown",
    }


def inputs(clips: Sequence[torch.Tensor], *, window: int) -> dict[str, NDArray[Any]]:
    """Returns the merged graph's inputs for clips `[s]` of at most `window` samples: padded, with their lengths."""
    samples = np.zeros((len(clips), window), np.float32)
    for row, clip in zip(samples, clips, strict=True):
        row[: len(clip)] = clip
    return {SAMPLES: samples, LENGTHS: np.array([len(clip) for clip in clips], np.int64)}


def build_front_end(config: FeatureConfig, normaliser: features.Normaliser) -> onnx.ModelProto:
    """Builds the graph from samples to features, as `features.extract` and `Normaliser.apply` compute them.

    Inputs: `samples` float32 `[B, N]`, N being a whole clip's, and `lengths` int64 `[B]`, after which samples are
    padding and ignored. Output: `features` float32 `[B, 1, T, F]` in [0, 1].
    """
    add, n = Graph(FRONT), features.clip_samples(config)
    count = n // config.hop + 1  # frames
    lengths = add("Unsqueeze", LENGTHS, add.constant([1], np.int64))
    power = _power(add, config, lengths, n)

    starts = add.constant(np.arange(count)[None] * config.hop, np.int64)
    within = add("Less", starts, lengths)  # [B, frames]
    energy = add("ReduceSum", power, add.constant([2], np.int64), keepdims=0)
    loudness = add("Where", within, energy, add.constant(0))
    loudest = add("ReduceMax", loudness, axes=[1], keepdims=1)
    threshold = add("Mul", loudest, add.constant(10 ** (-config.activity_db / 10)))
    loud = add("And", within, add("GreaterOrEqual", loudness, threshold))
    active = add("Cast", loud, to=TensorProto.FLOAT)  # [B, frames]

    x = _level(add, config, power)
    if config.time_fit == "stretch":
        x, count = _stretch(add, x, active, config.stretch_frames), config.stretch_frames
        active = ""  # all frames are
    x = _normalise_clip(add, config, x, active)

    # (x - mean) / std, and from [low, high] to [0, 1]: one product and one sum.
    scale = 1 / (normaliser.std * (normaliser.high - normaliser.low or 1.0))
    offset = -(normaliser.mean + normaliser.low * normaliser.std) * scale
    x = add("Add", add("Mul", x, add.constant(scale)), add.constant(offset))
    x = add("Clip", x, add.constant(0), add.constant(1))
    if active:
        x = add("Mul", x, add("Unsqueeze", active, add.constant([2], np.int64)))
    time, bands = features.frames(config)
    x = add("Pad", x, add.constant([0, 0, 0, 0, time - count, bands - config.n_bands], np.int64))
    add("Unsqueeze", x, add.constant([1], np.int64), out=FEATURES)
    return add.model(
        [
            helper.make_tensor_value_info(SAMPLES, TensorProto.FLOAT, ["batch", n]),
            helper.make_tensor_value_info(LENGTHS, TensorProto.INT64, ["batch"]),
        ],
        [helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["batch", 1, time, bands])],
    )


def _power(add: Graph, config: FeatureConfig, lengths: str, n: int) -> str:
    """Adds `FrontEnd.power`: `[B, frames, bands]`, with the discrete Fourier transform as a convolution."""
    front = features.spectral(config)
    within = add("Less", add.constant(np.arange(n)[None], np.int64), lengths)
    samples = add("Where", within, SAMPLES, add.constant(0))
    if front.mel is None:
        bins = np.arange(config.low_bin, config.low_bin + config.n_bands)
    else:
        bins = np.flatnonzero(front.mel.numpy().any(axis=1))  # the others reach no filter
    angles = 2 * np.pi / front.n_fft * bins[:, None] * np.arange(config.window)
    window = front.window.double().numpy()
    bases = np.concatenate([np.cos(angles), np.sin(angles)]) * window  # [2 bins, window]
    # A transform begins half its size before a frame's centre, and its window is centred in it.
    before = front.n_fft // 2 - (front.n_fft - config.window) // 2
    after = max(0, n // config.hop * config.hop + config.window - before - n)
    signal = add("Unsqueeze", samples, add.constant([1], np.int64))
    spectrum = add("Conv", signal, add.constant(bases[:, None]), strides=[config.hop], pads=[before, after])
    squares = add("Mul", spectrum, spectrum)
    parts = add("Reshape", squares, add.constant([0, 2, len(bins), -1], np.int64))
    power = add("ReduceSum", parts, add.constant([1], np.int64), keepdims=0)  # [B, bins, frames]
    power = add("Transpose", power, perm=[0, 2, 1])
    return power if front.mel is None else add("MatMul", power, add.constant(front.mel.numpy()[bins]))


def _level(add: Graph, config: FeatureConfig, power: str) -> str:
    """Adds `FrontEnd.level`: `[B, frames, bands]`."""
    if not config.decibels:
        return add("Sqrt", power)
    logarithm = add("Log", add("Max", power, add.constant(LEAST_POWER)))
    level = add("Mul", logarithm, add.constant(10 / np.log(10)))
    peak = add("ReduceMax", level, axes=[1, 2], keepdims=1)
    level = add("Max", level, add("Sub", peak, add.constant(config.top_db)))
    dct = features.spectral(config).dct
    return level if dct is None else add("MatMul", level, add.constant(dct.numpy()))


def _stretch(add: Graph, x: str, active: str, count: int) -> str:
    """Interpolates `[B, frames, bands]` from the first to the last active frame to `[B, count, bands]`."""
    first = add("ArgMax", active, axis=1, keepdims=1)
    last = add("ArgMax", active, axis=1, keepdims=1, select_last_index=1)
    span = add("Sub", last, first)  # [B, 1]
    width = add("Cast", span, to=TensorProto.FLOAT)
    step = add("Div", width, add.constant(max(1, count - 1)))
    place = add("Mul", step, add.constant(np.arange(count)[None]))  # [B, count], in frames after the first one
    below = add("Min", add("Floor", place), width)
    share = add("Unsqueeze", add("Sub", place, below), add.constant([2], np.int64))
    share = add("Clip", share, add.constant(0), add.constant(1))
    low = add("Cast", below, to=TensorProto.INT64)
    high = add("Min", add("Add", low, add.constant([1], np.int64)), span)
    ends = []
    for frame in (low, high):
        index = add("Unsqueeze", add("Add", frame, first), add.constant([2], np.int64))
        ends.append(add("GatherND", x, index, batch_dims=1))
    rest = add("Sub", add.constant(1), share)
    return add("Add", add("Mul", ends[0], rest), add("Mul", ends[1], share))


def _normalise_clip(add: Graph, config: FeatureConfig, x: str, active: str) -> str:
    """Normalises each band by its mean and deviation over a clip's active frames; over all if `active` is ""."""
    if config.clip_norm == "none":
        return x
    frames = add.constant([1], np.int64)
    if active:
        share = add("Div", active, add("ReduceSum", active, frames, keepdims=1))
        weight = add("Unsqueeze", share, add.constant([2], np.int64))
    else:
        weight = add.constant(1 / config.stretch_frames)
    centred = add("Sub", x, add("ReduceSum", add("Mul", x, weight), frames, keepdims=1))
    if config.clip_norm == "mean":
        return centred
    variance = add("ReduceSum", add("Mul", add("Mul", centred, centred), weight), frames, keepdims=1)
    deviation = add("Sqrt", variance)
    largest = add("ReduceMax", add("Abs", x), axes=[1, 2], keepdims=1)
    steady = add("LessOrEqual", deviation, add("Mul", largest, add.constant(1e-4)))
    return add("Div", centred, add("Where", steady, add.constant(1), deviation))


def build_network(encoder: ConvRecurrentEncoder, *, n_frames: int, n_bands: int) -> onnx.ModelProto:
    """Builds q(y | x), with each batch norm folded into the convolution before it.

    Input: `features` float32 `[B, 1, T, F]`. Outputs: `logits` and their softmax, `probabilities`, `[B, K]`.
    """
    add, h = Graph(NETWORK), FEATURES
    layers = list(encoder.convolutions)
    for convolution, norm in zip(layers[0::3], layers[1::3], strict=True):
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        fused = fuse_conv_bn_eval(convolution, norm)
        assert fused.bias is not None
        weight, bias = add.constant(_array(fused.weight)), add.constant(_array(fused.bias))
        padding = [int(p) for p in fused.padding]
        h = add("Conv", h, weight, bias, strides=list(fused.stride), pads=[*padding, *padding])
        h = add("Relu", h)
        channels = fused.out_channels
        n_frames, n_bands = n_frames // fused.stride[0], n_bands // fused.stride[1]
    steps = add("Transpose", h, perm=[2, 0, 1, 3])  # [T, B, C, F]
    steps = add("Reshape", steps, add.constant([0, 0, channels * n_bands], np.int64))
    gru = encoder.recurrent
    for layer in range(gru.num_layers):
        ih, hh = (_gates(getattr(gru, f"weight_{part}_l{layer}"))[None] for part in ("ih", "hh"))
        biases = [_gates(getattr(gru, f"bias_{part}_l{layer}")) for part in ("ih", "hh")]
        weights = [add.constant(values) for values in (ih, hh, np.concatenate(biases)[None])]
        last = layer == gru.num_layers - 1  # only its last step is used
        steps = add("GRU", steps, *weights, skip=int(last), hidden_size=gru.hidden_size, linear_before_reset=1)
        steps = add("Squeeze", steps, add.constant([0 if last else 1], np.int64))
    head = encoder.head
    add("Gemm", steps, add.constant(_array(head.weight)), add.constant(_array(head.bias)), transB=1, out=LOGITS)
    add("Softmax", LOGITS, axis=-1, out=PROBABILITIES)
    k = head.out_features
    shape = ["batch", 1, n_frames * 2 ** (len(layers) // 3), n_bands * 2 ** (len(layers) // 3)]
    return add.model(
        [helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", k]) for name in (LOGITS, PROBABILITIES)],
    )


def _gates(values: torch.Tensor) -> NDArray[np.float32]:
    """Reorders a GRU's gates from PyTorch's reset, update, new to ONNX's update, reset, new."""
    reset, update, new = _array(values).reshape(3, -1, *values.shape[1:])
    return np.concatenate([update, reset, new])


def _array(values: torch.Tensor) -> NDArray[np.float32]:
    return np.asarray(values.detach().numpy(), dtype=np.float32)
