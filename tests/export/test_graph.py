"""The exported graphs compute what PyTorch does, for every front end and on clips of any kind."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("onnxruntime")

from catuvac.config import FeatureConfig
from catuvac.data import features
from catuvac.export import graph
from catuvac.export.consumer import session
from catuvac.models.fast_conv import split_pixels
from catuvac.models.networks import ConvRecurrentEncoder

RATE = 8000
FRONT_ENDS: dict[str, dict[str, Any]] = {
    "log-mel": {"corpus_norm": "mean_var"},
    "log-mel with empty filters": {"n_bands": 64, "window": 256, "hop": 80},  # the transform is padded
    "stretched": {"time_fit": "stretch", "stretch_frames": 20, "clip_norm": "mean_var"},
    "stretched to one frame": {"time_fit": "stretch", "stretch_frames": 1},
    "centred": {"clip_norm": "mean", "hop": 250},
    "scaled": {"clip_norm": "mean_var", "top_db": 30.0},
    "cepstrum": {"kind": "mel_cepstrum", "n_bands": 13},
    "magnitude": {"kind": "spectrogram", "decibels": False, "low_bin": 3, "n_bands": 40},
    "level": {"kind": "spectrogram", "n_bands": 129, "hop": 256},
}


def odd_clips() -> list[Tensor]:
    """A whole clip, a longer and a shorter one, speech-like bursts, silence, one sample, a tone and a faint click."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(2 * RATE, generator=generator) * 0.1
    times = torch.arange(RATE) / RATE
    click = torch.zeros(RATE)
    click[4321] = 1e-4
    burst = torch.sin(2 * torch.pi * 440 * times) * (torch.sin(2 * torch.pi * 2 * times) > 0.3)
    tone = torch.sin(2 * torch.pi * 1000 * times)
    return [noise[:RATE], noise, noise[:3001], burst, torch.zeros(RATE), torch.full((1,), 0.5), tone, click]


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_the_front_end_makes_the_features_of_the_training(name: str) -> None:
    config = FeatureConfig(**{"sample_rate": RATE, "window": 256, "hop": 128, "n_bands": 20, **FRONT_ENDS[name]})
    clips = odd_clips()
    durations = [math.nan, 0.7, *[math.nan] * (len(clips) - 2)]
    x, mask = features.extract(clips, durations=durations, config=config)
    normaliser = features.Normaliser.fit(x.numpy(), mask.numpy(), config)
    expected = normaliser.apply(x.numpy(), mask.numpy())

    lengths = np.array([features.own_samples(len(c), d, config) for c, d in zip(clips, durations, strict=True)])
    samples = np.full((len(clips), RATE), 0.3, np.float32)  # what lies after a clip's end must not be heard
    for row, (clip, length) in enumerate(zip(clips, lengths, strict=True)):
        samples[row, :length] = clip[:length]
    run = session(graph.build_front_end(config, normaliser).SerializeToString())
    (found,) = run.run(None, {graph.SAMPLES: samples, graph.LENGTHS: lengths})
    assert found.shape == (len(clips), 1, *features.frames(config))
    np.testing.assert_allclose(found[:, 0], expected, rtol=0, atol=5e-5)
    assert 0 < expected.mean() < 1


@pytest.mark.parametrize(("n_frames", "n_bands"), [(16, 16), (48, 32)])
def test_the_network_is_the_encoder_for_any_batch(n_frames: int, n_bands: int) -> None:
    torch.manual_seed(0)
    encoder = ConvRecurrentEncoder(n_frames=n_frames, n_bands=n_bands, out_features=5)
    for _ in range(3):  # batch norm's statistics are no longer those of the start
        encoder(split_pixels(torch.rand(8, 1, n_frames, n_bands)))
    encoder.eval()
    run = session(graph.build_network(encoder, n_frames=n_frames, n_bands=n_bands).SerializeToString())
    for batch in (1, 3):
        x = torch.rand(batch, 1, n_frames, n_bands)
        with torch.no_grad():
            expected = encoder(split_pixels(x))
        logits, probabilities = run.run([graph.LOGITS, graph.PROBABILITIES], {graph.FEATURES: x.numpy()})
        np.testing.assert_allclose(logits, expected.numpy(), rtol=0, atol=1e-5)
        np.testing.assert_allclose(probabilities, torch.softmax(expected, dim=-1).numpy(), rtol=0, atol=1e-5)


def test_a_merged_graph_carries_its_metadata() -> None:
    config = FeatureConfig(sample_rate=RATE, window=256, hop=256, n_bands=16)
    frames, bands = features.frames(config)
    encoder = ConvRecurrentEncoder(n_frames=frames, n_bands=bands, out_features=2).eval()
    front = graph.build_front_end(config, features.Normaliser(np.zeros(16), np.ones(16), -80.0, 20.0))
    model = graph.merge(
        front,
        graph.build_network(encoder, n_frames=frames, n_bands=bands),
        {"clusters": json.dumps(["Straße", ""], ensure_ascii=False)},
    )
    run = session(model.SerializeToString())
    assert json.loads(run.get_modelmeta().custom_metadata_map["clusters"]) == ["Straße", ""]
    assert [each.name for each in run.get_inputs()] == [graph.SAMPLES, graph.LENGTHS]
    assert [each.name for each in run.get_outputs()] == [graph.LOGITS, graph.PROBABILITIES]
