"""The cost of an ONNX graph per clip on a device: arithmetic, weights, and memory for activations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx
from onnx import helper, numpy_helper

IN_PLACE = ("Reshape", "Squeeze", "Unsqueeze", "Relu")  # the output reuses the input's memory, if nothing else reads it


@dataclass(frozen=True)
class Cost:
    """The cost of one clip.

    Attributes:
        macs: multiply-accumulates, in convolutions and matrix products; element-wise operations are not counted.
        weight_bytes: of all constants.
        peak_bytes: of the activations that are alive together at the worst node, in the order of the graph. Operations
            work in place where they can, and int8 kernels read and write int8. The memory that a runtime needs to
            unpack the GRU's int8 weights is not counted.
    """

    macs: int
    weight_bytes: int
    peak_bytes: int


def cost(model: onnx.ModelProto) -> Cost:
    """Counts the cost of a graph of `catuvac.export.graph` for a batch of one."""
    graph = _one_clip(model).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    known = [*graph.input, *graph.value_info, *graph.output]
    shapes = {info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim] for info in known}
    bytes_ = {
        info.name: math.prod(shapes[info.name])
        * helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type).itemsize
        for info in known
    }
    shapes |= {name: list(tensor.dims) for name, tensor in weights.items()}
    macs = sum(_macs(node, shapes) for node in graph.node)
    stored = sum(numpy_helper.to_array(tensor).nbytes for tensor in weights.values())
    return Cost(macs, stored, _peak(graph, set(weights), bytes_))


def _one_clip(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model with all shapes, for a batch of one."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for info in (*fixed.graph.input, *fixed.graph.output):
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = 1
    del fixed.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(fixed, strict_mode=True, data_prop=True)


def _macs(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> int:
    if node.op_type == "Conv":
        return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
    if node.op_type in ("MatMul", "Gemm"):
        return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    if node.op_type == "GRU":
        return shapes[node.input[0]][0] * (math.prod(shapes[node.input[1]]) + math.prod(shapes[node.input[2]]))
    return 0


def _peak(graph: onnx.GraphProto, constants: set[str], bytes_: dict[str, int]) -> int:
    readers: dict[str, list[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    place: dict[str, str] = {info.name: info.name for info in graph.input}  # tensor → the one whose memory it shares
    size = {info.name: bytes_[info.name] for info in graph.input}
    last = {place[info.name]: 0 for info in graph.input}
    events: list[list[str]] = []  # memory that each node writes to
    for step, node in enumerate(graph.node):
        if all(name in constants for name in node.input if name):
            constants |= set(node.output)  # unpacked weights
            events.append([])
            continue
        for name in node.input:
            if name and name not in constants:
                last[place[name]] = step
        written = [name for name in node.output if name]
        first = node.input[0]
        shares = node.op_type in IN_PLACE or node.op_type == "DequantizeLinear"
        # An int8 kernel has no float32 output: the node after it quantises each result at once.
        fused = node.op_type == "QuantizeLinear" and first not in {i.name for i in graph.input}
        if shares or fused:
            place[node.output[0]] = place[first]
            if fused and set(readers[first]) == {"QuantizeLinear"}:
                size[place[first]] = bytes_[node.output[0]]
            written = []
        for name in written:
            place[name], size[name], last[name] = name, bytes_[name], step
        events.append(written)
    for info in graph.output:
        last[place[info.name]] = len(graph.node)
    alive = {info.name for info in graph.input}
    peak = 0
    for step, written in enumerate(events):
        alive |= set(written)
        peak = max(peak, sum(size[name] for name in alive))
        alive = {name for name in alive if last[name] > step}
    return peak
