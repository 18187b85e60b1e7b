"""`catuvac export`: the ONNX files of a trained model, checked on real clips, their cost, and a model card.

model.onnx       samples to clusters in float32
model-int8.onnx  the same with an int8 network, with --int8
export.json      costs and checks, for programs
model_card.md    the same for people, with the model's training data and its limits
"""

from __future__ import annotations

import json
import math
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from jinja2 import Environment
from numpy.typing import NDArray
from torch import Tensor

from catuvac import inference, io
from catuvac.data import features, store
from catuvac.data.audio import AudioError
from catuvac.data.corpora import CORPORA, starts
from catuvac.data.store import FeatureSet
from catuvac.errors import CatuvacError
from catuvac.export import graph, quantise
from catuvac.export.budget import Cost, cost
from catuvac.export.consumer import session
from catuvac.inference import FittedModel
from catuvac.training import run_dir

FLOAT32, INT8 = "model.onnx", "model-int8.onnx"
TOLERANCE = 1e-4  # largest accepted difference of a logit between onnxruntime in float32 and PyTorch
WANTED = 0.99  # share of clips that should keep their cluster in int8
MOST_CLIPS = 500  # for the check, at most
CHUNK = 25  # clips at a time
NOISE_CLIPS = 50  # without recordings
TIMED = 0.5  # s of processor time for measuring a speed

Clips = tuple[list[Tensor], list[float]]  # samples [s] each, and true lengths in s


@dataclass(frozen=True)
class Check:
    """The check of one file in onnxruntime.

    Attributes:
        file: its name.
        bytes: its size.
        network: cost of q(y | x) in it; the front end is the same in all files.
        logit_difference: the largest, compared with PyTorch in float32.
        agreement: share of clips with the same cluster as in PyTorch.
        clip_seconds: s of processor time per clip, on one thread.
        speed: seconds of audio per such second of processor time, with adjacent windows.
    """

    file: str
    bytes: int
    network: Cost
    logit_difference: float
    agreement: float
    clip_seconds: float
    speed: float


@dataclass(frozen=True)
class Export:
    """What was written, its cost and its checks."""

    trained_on: str
    front_end: Cost
    fft_macs: int  # of the front end with a fast Fourier transform in place of the convolution; an estimate
    parameters: int
    checked_on: str
    clips: int
    checks: tuple[Check, ...]


def export(model: FittedModel, *, out: Path, int8: bool) -> Export:
    """Writes the files of a model to a folder, each completely or not at all.

    Raises:
        CatuvacError: a model without q(y | x), logits that differ from PyTorch's, no training features for int8, or a
            folder that cannot be written to.
    """
    encoder = model.model.cluster_encoder
    if encoder is None:
        raise CatuvacError(f"{model.folder} contains a UVAC, which has no q(y|x) to export: give a Cat. UVAC")
    front_end, corpus = model.config.features, inference.training_features(model)
    if int8 and corpus is None:
        raise CatuvacError("--int8 needs the training features, which the cache no longer has: run `catuvac prepare`")
    front = graph.build_front_end(front_end, model.normaliser)
    frames, bands = features.frames(front_end)
    networks: dict[str, onnx.ModelProto] = {FLOAT32: graph.build_network(encoder, n_frames=frames, n_bands=bands)}
    if int8 and corpus is not None:
        x = corpus.x[quantise.spread(corpus.splits["train"], quantise.CALIBRATION)]
        networks[INT8] = quantise.quantise(networks[FLOAT32], np.asarray(x))
    metadata = graph.metadata(model, run_dir.revision())
    files = {name: graph.merge(front, network, metadata) for name, network in networks.items()}

    clips = [] if corpus is None else list(_validation_clips(model, corpus))
    count = sum(len(samples) for samples, _ in clips)
    where = f"{count} clips of the validation split"
    if not clips:
        clips, count, where = [_noise(model)], NOISE_CLIPS, f"{NOISE_CLIPS} clips of noise: the recordings are gone"
    # In float32, like the exported graph: with bfloat16 a processor would differ by its rounding.
    reference = replace(model, config=model.config.with_settings({"precision": "float32"}))
    checks = tuple(_check(reference, name, file, cost(networks[name]), clips) for name, file in files.items())
    if not checks[0].logit_difference <= TOLERANCE:
        raise CatuvacError(
            f"a logit in onnxruntime differs by {checks[0].logit_difference:.2g} from PyTorch's, more than "
            f"{TOLERANCE:.0e}: nothing was written; use another onnxruntime"
        )
    front_cost = cost(front)
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    trained_on = model.config.corpus.corpus if corpus is None else corpus.note
    result = Export(trained_on, front_cost, _fft_macs(model, front, front_cost), parameters, where, count, checks)
    _write(model, out, files, result)
    return result


def inputs(samples: Sequence[Tensor], durations: Sequence[float], model: FittedModel) -> dict[str, NDArray[Any]]:
    """Returns the exported graph's inputs for clips `[s]`: padded, with their true lengths."""
    config = model.config.features
    pairs = zip(samples, durations, strict=True)
    trimmed = [clip[: features.own_samples(len(clip), seconds, config)] for clip, seconds in pairs]
    return graph.inputs(trimmed, window=features.clip_samples(config))


def _validation_clips(model: FittedModel, corpus: FeatureSet) -> Iterator[Clips]:
    """Yields clips of the validation split, as the training read them, if the recordings still exist."""
    config, table = model.config, corpus.clips.iloc[quantise.spread(corpus.splits["val"], MOST_CLIPS)]
    for first in range(0, len(table), CHUNK):
        samples, durations = [], []
        chunk = table.iloc[first : first + CHUNK]
        for path, start, duration in zip(chunk["path"], starts(chunk), chunk["duration"], strict=True):
            try:
                samples.append(store.read_clip(config.corpus, config.features, path, start=start, duration=duration))
            except AudioError:
                continue
            durations.append(float(duration))
        if samples:
            yield samples, durations


def _noise(model: FittedModel) -> Clips:
    """Returns white noise, at levels from full scale down to -60 dB, and of lengths up to a whole clip's."""
    generator, n = torch.Generator().manual_seed(0), features.clip_samples(model.config.features)
    gains = torch.logspace(0, -3, NOISE_CLIPS)
    lengths = torch.linspace(1, n, NOISE_CLIPS).long().tolist()
    clips = [gain * torch.randn(length, generator=generator) for gain, length in zip(gains, lengths, strict=True)]
    return clips, [math.nan] * NOISE_CLIPS


def _check(model: FittedModel, name: str, file: onnx.ModelProto, network: Cost, clips: Sequence[Clips]) -> Check:
    run = session(file.SerializeToString())
    differences, same_cluster = [], []
    for samples, durations in clips:
        expected = model.logits(samples, durations)
        (logits,) = run.run([graph.LOGITS], inputs(samples, durations, model))
        differences.append(np.abs(logits - expected).max())
        same_cluster.append(logits.argmax(axis=1) == expected.argmax(axis=1))
    first = inputs(clips[0][0][:1], clips[0][1][:1], model)
    times: list[float] = []
    while sum(times) < TIMED:
        began = time.process_time()
        run.run([graph.PROBABILITIES], first)
        times.append(time.process_time() - began)
    seconds = float(np.median(times))
    return Check(
        file=name,
        bytes=file.ByteSize(),
        network=network,
        logit_difference=float(max(differences)),
        agreement=float(np.concatenate(same_cluster).mean()),
        clip_seconds=seconds,
        speed=model.config.features.seconds / seconds,
    )


def _fft_macs(model: FittedModel, front: onnx.ModelProto, counted: Cost) -> int:
    """Returns the front end's MACs if the transform takes n log2 n per frame."""
    config = model.config.features
    n_fft, count = features.spectral(config).n_fft, features.clip_samples(config) // config.hop + 1
    (convolution,) = (node for node in front.graph.node if node.op_type == "Conv")
    (bases,) = (tensor for tensor in front.graph.initializer if tensor.name == convolution.input[1])
    weights = int(math.prod(bases.dims))
    return counted.macs - count * weights + round(count * n_fft * math.log2(n_fft))


def _write(model: FittedModel, out: Path, files: dict[str, onnx.ModelProto], result: Export) -> None:
    record = {
        "model": str(model.folder),
        "config_hash": model.config.hash(),
        "revision": run_dir.revision(),
        "command": _command(),
        "sample_rate": model.config.features.sample_rate,
        "samples": features.clip_samples(model.config.features),
        "clusters": model.names,
        **asdict(result),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        if INT8 not in files:
            (out / INT8).unlink(missing_ok=True)  # of an earlier export, which the record would not describe
        for name, file in files.items():
            io.write(out / name, file.SerializeToString())
        io.write_text(out / "export.json", json.dumps(record, ensure_ascii=False, indent=2) + "\n")
        io.write_text(out / "model_card.md", _card(model, result))
    except OSError as error:
        raise CatuvacError(f"cannot write to {out}: {error.strerror}; give another --out") from error


def _command() -> str:
    """Returns the command line, without the command's folder."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def budget_rows(model: FittedModel, result: Export) -> list[tuple[str, str]]:
    """Returns the costs as rows of a table, for the terminal and the card."""
    seconds, front = model.config.features.seconds, result.front_end
    rows = [
        ("window", f"{seconds:g} s, {features.clip_samples(model.config.features)} samples"),
        ("parameters of q(y|x)", f"{result.parameters:,}"),
        ("front end, MACs per window", f"{front.macs:,} (about {result.fft_macs:,} with an FFT)"),
        ("front end, constants", f"{front.weight_bytes:,} bytes"),
        ("front end, peak activations", f"{front.peak_bytes:,} bytes"),
    ]
    for check in result.checks:
        net, name = check.network, check.file
        rows += [
            (f"{name}, size", f"{check.bytes:,} bytes"),
            (f"{name}, network, MACs per window", f"{net.macs:,}"),
            (f"{name}, network, weights", f"{net.weight_bytes:,} bytes"),
            (f"{name}, network, peak activations", f"{net.peak_bytes:,} bytes"),
            (f"{name}, operations per second of audio", f"{2 * (front.macs + net.macs) / seconds:,.0f}"),
            (f"{name}, largest difference of a logit", f"{check.logit_difference:.2g}"),
            (f"{name}, same cluster as PyTorch", f"{check.agreement:.2%}"),
            (f"{name}, speed on one thread", f"{check.speed:,.0f} × real time, {1e3 * check.clip_seconds:.2f} ms"),
        ]
    return rows


def warning(result: Export) -> str:
    """Returns what a user should know before using the int8 file; "" if all is well."""
    bad = [check for check in result.checks if check.agreement < WANTED]
    return "".join(
        f"{check.file} keeps the cluster of {check.agreement:.1%} of the clips, below {WANTED:.0%}: use {FLOAT32}"
        for check in bad
    )


def _card(model: FittedModel, result: Export) -> str:
    config = model.config
    corpus, names = CORPORA[config.corpus.corpus], enumerate(model.names)
    scores = {name[4:]: value for name, value in model.report.items() if name.startswith("val/")}
    card = Environment(trim_blocks=True, keep_trailing_newline=True).from_string(CARD)
    return card.render(
        config=config,
        corpus=corpus,
        clusters=[(number, name or "–") for number, name in names],
        scores={name: f"{value:.4g}" for name, value in scores.items() if isinstance(value, float | int)},
        epoch=model.report.get("epoch"),
        budget=[(what.replace("|", "\\|"), value) for what, value in budget_rows(model, result)],
        result=result,
        warning=warning(result),
        above=f"{model.undecided_above:.3f}",
        n=features.clip_samples(config.features),
        settings=config.to_yaml(),
        command=_command(),
        revision=run_dir.revision() or "unknown",
    )


CARD = """# Model card: {{ config.model.n_clusters }} clusters of {{ corpus.name }}

A categorical variational clustering (Cat. UVAC, arXiv 2504.07652) of {{ corpus.name }} ({{ corpus.description }}),
trained without labels for {{ epoch }} epochs. Recordings: {{ result.trained_on }}; their licence:
{{ corpus.licence }}.

## Input and output

- `samples`: float32 `[B, {{ n }}]`, mono at {{ config.features.sample_rate }} Hz, full scale 1; shorter clips are
  padded at their end.
- `lengths`: int64 `[B]`, the number of samples of each clip before padding; {{ n }} for a whole window.
- `logits` and `probabilities`: float32 `[B, {{ config.model.n_clusters }}]`, of the clusters below.

The file's metadata contains the rate, the length and the clusters' names.

| cluster | name |
|--:|---|
{% for number, name in clusters %}
| {{ number }} | {{ name }} |
{% endfor %}

## Quality on the validation split, during training

| score | value |
|---|--:|
{% for name, value in scores.items() %}
| {{ name }} | {{ value }} |
{% endfor %}

## Budget and checks

Checked in onnxruntime against PyTorch in float32, on {{ result.checked_on }}.

| what | value |
|---|--:|
{% for what, value in budget %}
| {{ what }} | {{ value }} |
{% endfor %}

An operation is a multiplication or an addition of a convolution or a matrix product, with adjacent windows;
element-wise operations are not counted. Activations are those of one window.
{% if warning %}

{{ warning }}.
{% endif %}

## Limits

- A clip whose q(y|x) has an entropy above {{ above }} nats, half of log K, is undecided: its cluster means nothing.
- Clusters reflect how the training recordings differ. They are not labels, people gave them their names, and audio
  unlike those recordings is assigned to some cluster all the same.
- The model was trained on {{ corpus.name }} alone: other microphones, rooms and levels need a separate check.
- It is not for decisions about people, nor for anything that depends on a single window.

## Settings

Exported by `{{ command }}` at revision {{ revision }}.

```yaml
{{ settings }}```
"""
