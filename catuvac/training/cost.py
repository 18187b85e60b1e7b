"""The cost of a training in floating-point operations and in memory: counted on one real step, not timed."""

from __future__ import annotations

import itertools
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from catuvac.config import Config
from catuvac.data import features
from catuvac.models.variational import VariationalModel
from catuvac.training.invariance import swap_loss
from catuvac.training.run import MODELS

COPIES = 4  # of a parameter: its value, its gradient and Adam's two moments
CLIPS = (2, 4)  # of the counted steps: two sizes separate costs per clip and per step; batch norm needs two clips
PEER_LAYERS = (500, 500, 2000, 10)  # ClustPy's encoder after the T·F inputs; its decoder mirrors it


def training_flops(config: Config) -> int:
    """Returns the floating-point operations of one training step per clip: forward and backward, only matrix products.

    Costs per step that do not depend on the batch (the maps of y's channels) are left out.
    """
    few, more = (_flops(config, clips) for clips in CLIPS)
    return (more - few) // (CLIPS[1] - CLIPS[0])


def training_bytes(config: Config) -> int:
    """Returns the peak size in bytes of a training's own tensors: parameters, their gradients and moments, one batch.

    For the batch, what the backward pass needs is counted, in float32. The features are not, nor what a device needs
    before the first tensor.
    """
    few, more = (_saved(config, clips) for clips in CLIPS)
    batch = few + (config.training.batch_size - CLIPS[0]) * (more - few) // (CLIPS[1] - CLIPS[0])
    model, _ = _model(config, clips=CLIPS[0])
    weights = sum(parameter.numel() for parameter in model.parameters()) * torch.float32.itemsize
    return COPIES * weights + batch


def _flops(config: Config, clips: int) -> int:
    model, x = _model(config, clips=clips)
    with FlopCounterMode(display=False) as counter:
        _loss(config, model, x).backward()  # type: ignore[no-untyped-call]
    return int(counter.get_total_flops())


def _saved(config: Config, clips: int) -> int:
    """Returns the bytes that the forward pass keeps for the backward pass."""
    model, x = _model(config, clips=clips)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved: dict[int, int] = {}  # bytes of each storage: operations share them

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        total = _loss(config, model, x)
    del total  # the graph has kept all saved tensors alive until here, so that their addresses are unique
    return sum(saved.values())


def _model(config: Config, *, clips: int) -> tuple[VariationalModel, Tensor]:
    """Returns a model and x `[clips, 1, T, F]`."""
    time, bands = features.frames(config.features)
    settings = replace(config.model, likelihood="bernoulli")  # adds no matrix product, and needs no sigma from features
    model = MODELS[settings.method](settings, n_frames=time, n_bands=bands)
    return model, torch.rand(clips, 1, time, bands)


def _loss(config: Config, model: VariationalModel, x: Tensor) -> Tensor:
    """Returns the loss of a step after the warm-up; the view in the invariance term costs as much as a clip."""
    noise = torch.Generator().manual_seed(0)
    terms, logits = model.negative_elbo(x, torch.ones_like(x), tau=1.0, generator=noise)
    if not config.training.invariance:
        return terms.total
    return terms.total + swap_loss(logits, model.cluster_logits(x))


def peer_flops(config: Config) -> int:
    """Returns the same for ClustPy's fully connected autoencoder: two operations per weight forward, four backward."""
    time, bands = features.frames(config.features)
    sizes = (time * bands, *PEER_LAYERS)
    weights = 2 * sum(a * b for a, b in itertools.pairwise(sizes))
    return 6 * weights
