"""The training step against the plain loop, with the same network and batch, in turns with a matrix product."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from rich.progress import track

from benchmarks import machine, plain_loop
from benchmarks.apart import apart
from catuvac.training.cost import training_flops
from catuvac.training.run import TrainingRun

CLIPS = {"cpu": 256, "cuda": 6400}  # per timed run


def measure(
    *, repeats: int, shapes: Sequence[str] = tuple(machine.SHAPES), batches: Sequence[int] = (64, 256)
) -> list[dict[str, Any]]:
    """Returns one row per device, shape and batch size."""
    cells = [(device, shape, batch) for device in machine.devices() for shape in shapes for batch in batches]
    return [_cell(*cell, repeats=repeats) for cell in track(cells, "step")]


def _cell(device: str, name: str, batch: int, *, repeats: int) -> dict[str, Any]:
    shape, steps = machine.SHAPES[name], CLIPS[device] // batch
    plain, ours, term = (partial(make, device, shape, batch) for make in (_plain, _ours, _with_invariance))
    product, product_flops = machine.product(device)
    with (
        apart(plain, device) as (plain_steps, plain_memory),
        apart(ours, device) as (our_steps, memory),
        apart(term, device) as (term_steps, _),
    ):
        works = {"plain loop": plain_steps, "catuvac": our_steps, "with invariance": term_steps, "product": product}
        took = machine.alternating(works, device=device, repeats=repeats)
    plain_ms, ms, term_ms = (1000 * took[which] / steps for which in ("plain loop", "catuvac", "with invariance"))
    config = machine.settings(shape, batch_size=batch)
    flops, ceiling = training_flops(config) * batch / ms * 1000, product_flops / took["product"]
    return {
        "device": device,
        "shape": f"{name} {shape[0]}×{shape[1]}",
        "batch": batch,
        "plain loop, ms/step": round(plain_ms, 2),
        "ms/step": round(ms, 2),
        "ratio": round(plain_ms / ms, 2),
        "clips/s": round(1000 * batch / ms),
        "plain loop, peak MiB": round(plain_memory),
        "peak MiB": round(memory),
        "TFLOP/s": round(flops / 1e12, 3),
        "product, TFLOP/s": round(ceiling / 1e12, 3),
        "of the product, %": round(100 * flops / ceiling, 1),
        "with invariance, ms/step": round(term_ms, 2),
        "invariance, % of it": round(100 * (term_ms - ms) / term_ms, 1),
    }


def _ours(device: str, shape: tuple[int, int], batch: int, *, invariance: float = 0.0) -> Callable[[], object]:
    features = machine.generated(CLIPS[device], shape)
    config = machine.settings(shape, batch_size=batch).with_settings({"invariance": invariance})
    return TrainingRun(config, features, device=device)._train_epoch


def _with_invariance(device: str, shape: tuple[int, int], batch: int) -> Callable[[], object]:
    return _ours(device, shape, batch, invariance=1.0)


def _plain(device: str, shape: tuple[int, int], batch: int) -> Callable[[], object]:
    features = machine.generated(CLIPS[device], shape)
    model = plain_loop.PlainCatUVAC(machine.CLUSTERS, machine.LATENT, *shape).to(device)
    losses = plain_loop.train(
        model,
        torch.from_numpy(features.x),
        torch.from_numpy(features.mask).float(),
        batch_size=batch,
        tau=1.0,
        beta=1.0,
        sigma=0.1,
        lr=1e-3,
        grad_clip=10.0,
        noise=torch.Generator(device).manual_seed(1),
        order=torch.Generator().manual_seed(0),
    )
    return lambda: [next(losses) for _ in range(CLIPS[device] // batch)]
