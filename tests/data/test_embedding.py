"""A pretrained embedding as a front end, against the package that ships its weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor

from catuvac.config import Config, ConfigError, FeatureConfig, preset
from catuvac.data import embedding, features, store
from catuvac.errors import CatuvacError
from catuvac.experiments.comparison import EMBEDDING

SPEECH = FeatureConfig(**EMBEDDING)


def noise(samples: int) -> Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(0))


def blocks_model(path: Path, *, block: int) -> Path:
    """Writes a model whose frames are the samples themselves, `block` at a time."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [3], [1, -1, block])
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["audio", "shape"], ["frames"])],
        "blocks",
        [helper.make_tensor_value_info("audio", TensorProto.FLOAT, [1, None])],
        [helper.make_tensor_value_info("frames", TensorProto.FLOAT, [1, None, block])],
        [shape],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), path)
    return path


@pytest.mark.filterwarnings("ignore")  # of what the package imports
def test_frames_are_those_of_the_package() -> None:
    utils = pytest.importorskip("openwakeword.utils")
    clip = (noise(32000) * 32768).to(torch.int16)
    theirs = utils.AudioFeatures(ncpu=1).embed_clips(clip.numpy()[None])[0]
    ours = embedding.embedder("").frames(clip / 32768)
    assert ours.shape == theirs.shape == (16, 96)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-3)


def test_a_clip_that_is_shorter_than_a_window_has_one_frame() -> None:
    assert embedding.shape("", 1600) == (1, 96)
    assert features.frames(SPEECH) == (16, 96)


def test_frames_that_start_after_the_clip_are_inactive() -> None:
    x, mask = features.extract([noise(16000)], durations=[0.1], config=SPEECH)
    assert x.shape == (1, 16, 96)
    assert mask.tolist() == [[True, True, *[False] * 14]]  # 0 and 80 ms


def test_the_model_of_a_file(tmp_path: Path) -> None:
    path = blocks_model(tmp_path / "blocks.onnx", block=32)
    config = FeatureConfig(kind="embedding", weights=str(path), sample_rate=640, n_bands=32)
    x, mask = features.extract([samples := noise(640)], durations=[0.5], config=config)
    torch.testing.assert_close(x[0, :10], samples[:320].reshape(10, 32))
    assert mask.sum() == 10
    narrow = FeatureConfig(kind="embedding", weights=str(path), n_bands=16)
    with pytest.raises(CatuvacError, match="gives 32 numbers per frame: set n_bands 32"):
        features.extract([samples], durations=[0.5], config=narrow)


@pytest.mark.parametrize("content", [None, b"", b"no model"])
def test_a_file_that_is_no_model_is_one_line(content: bytes | None, tmp_path: Path, tiny_config: Config) -> None:
    path = tmp_path / "weights.onnx"
    if content is not None:
        path.write_bytes(content)
    config = tiny_config.updated({"features": {"kind": "embedding", "weights": str(path)}})
    with pytest.raises(CatuvacError, match=r"weights\.onnx"):
        store.prepare(config, data_root=None, cache_dir=tmp_path / "cache", workers=1, progress=False)


def test_other_weights_of_the_same_name_are_other_features(tmp_path: Path, tiny_config: Config) -> None:
    path = blocks_model(tmp_path / "weights.onnx", block=32)
    config = tiny_config.updated({"features": {"kind": "embedding", "weights": str(path), "n_bands": 32}})
    entries = []
    for scale in (1.0, 2.0):
        model = onnx.load(path)
        model.doc_string = f"the same frames, version {scale}"
        onnx.save(model, path)
        embedding.embedder.cache_clear()  # another process
        made = store.prepare(config, data_root=None, cache_dir=tmp_path / "cache", workers=1, progress=False)
        entries.append(made.path)
    assert entries[0] != entries[1]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "embedding"}, "sample_rate 16000 and n_bands 96, got 16000 and 32"),
        ({"weights": "a.onnx"}, "kind 'log_mel' reads no weights"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        preset("synthetic").updated({"features": settings})


def test_an_embedding_has_no_transforms_to_export() -> None:
    with pytest.raises(CatuvacError, match="no transforms to export"):
        features.spectral(SPEECH)
