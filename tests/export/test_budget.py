"""Costs counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("onnx")

import onnxruntime
from onnx import TensorProto, helper

from catuvac.export import graph
from catuvac.export.budget import Cost, cost
from catuvac.models.fast_conv import split_pixels
from catuvac.models.networks import ConvRecurrentEncoder


def test_a_small_graph() -> None:
    add = graph.Graph("toy/")
    h = add("Conv", "x", add.constant(np.ones((3, 1, 2, 2))), strides=[2, 2])  # [1, 3, 2, 4]: 24 cells
    h = add("Relu", h)
    branch = add("Sigmoid", h)
    h = add("Mul", h, branch)
    h = add("Reshape", h, add.constant([1, 24], np.int64))
    add("MatMul", h, add.constant(np.ones((24, 5))), out="y")
    model = add.model(
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 4, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])],
    )
    macs = 24 * 4 + 24 * 5
    weights = 4 * 12 + 8 * 2 + 4 * 120
    peak = 4 * 3 * 24  # the product, and both of what it multiplies; x, 32 cells, is gone by then
    assert cost(model) == Cost(macs, weights, peak)


def test_the_papers_network() -> None:
    encoder = ConvRecurrentEncoder(n_frames=16, n_bands=16, out_features=3).eval()
    found = cost(graph.build_network(encoder, n_frames=16, n_bands=16))
    convolutions = 64 * (8 * 8 * 16 * 1 + 4 * 4 * 32 * 16 + 2 * 2 * 64 * 32 + 1 * 1 * 128 * 64)
    recurrent = 2 * 3 * 128 * (128 + 128)  # one step of two layers
    assert found.macs == convolutions + recurrent + 128 * 3 == encoder.macs
    # Batch norm leaves a bias; what else is not learned is a few axes and shapes.
    learned = sum(p.numel() for p in encoder.parameters()) - sum((16, 32, 64, 128))
    assert 4 * learned <= found.weight_bytes <= 4 * learned + 100
    assert found.peak_bytes == 4 * (16 * 8 * 8 + 32 * 4 * 4)  # the first convolution's output and the second's


@pytest.mark.parametrize(("channels", "gru_size"), [(16, 128), (4, 32), (6, 128)])
def test_a_network_of_another_size_is_exported_and_counts_its_own_products(channels: int, gru_size: int) -> None:
    encoder = ConvRecurrentEncoder(n_frames=48, n_bands=32, out_features=5, channels=channels, gru_size=gru_size).eval()
    made = graph.build_network(encoder, n_frames=48, n_bands=32)
    assert cost(made).macs == encoder.macs
    x = torch.rand(2, 1, 48, 32)
    with torch.no_grad():
        expected = encoder(split_pixels(x))
    run = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    (logits,) = run.run([graph.LOGITS], {graph.FEATURES: x.numpy()})
    np.testing.assert_allclose(logits, expected.numpy(), rtol=0, atol=1e-5)
