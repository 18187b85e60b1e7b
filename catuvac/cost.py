"""What a training costs, in floating-point operations: counted on one real step, not timed."""

from __future__ import annotations

import itertools
from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from catuvac.config import Config
from catuvac.data import features
from catuvac.training import MODELS

BATCH = 2  # clips of the counted step: batch norm needs two
PEER_LAYERS = (500, 500, 2000, 10)  # ClustPy's encoder after the T·F inputs; its decoder mirrors it


def training_flops(config: Config) -> int:
    """Floating-point operations of one training step per clip: forward and backward, matrix products alone."""
    time, bands = features.frames(config.features)
    settings = replace(config.model, likelihood="bernoulli")  # costs no product, and needs no sigma from the features
    model = MODELS[settings.method](settings, n_frames=time, n_bands=bands)
    x = torch.rand(BATCH, 1, time, bands)
    with FlopCounterMode(display=False) as counter:
        inference = model.infer(x, generator=torch.Generator().manual_seed(0))
        recon_logits = model.generate(inference.y, inference.z)
        model.loss(x, torch.ones_like(x), inference, recon_logits).total.backward()  # type: ignore[no-untyped-call]
    return int(counter.get_total_flops()) // BATCH


def peer_flops(config: Config) -> int:
    """The same for ClustPy's fully connected autoencoder: two operations a weight forward, four backward."""
    time, bands = features.frames(config.features)
    sizes = (time * bands, *PEER_LAYERS)
    weights = 2 * sum(a * b for a, b in itertools.pairwise(sizes))
    return 6 * weights
