"""The training step against the plain loop: the same network and batch, in turns; a matrix product beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from rich.progress import track

from benchmarks import machine, plain_loop
from benchmarks.machine import peak_memory
from catuvac.cost import training_flops
from catuvac.data.store import FeatureSet
from catuvac.training import TrainingRun

CLIPS = {"cpu": 256, "cuda": 6400}  # trained on at a time


def measure(
    *, repeats: int, shapes: Sequence[str] = tuple(machine.SHAPES), batches: Sequence[int] = (64, 256)
) -> list[dict[str, Any]]:
    """A row for each device, shape and batch size."""
    cells = [(device, shape, batch) for device in machine.devices() for shape in shapes for batch in batches]
    return [_cell(*cell, repeats=repeats) for cell in track(cells, "step")]


def _cell(device: str, name: str, batch: int, *, repeats: int) -> dict[str, Any]:
    shape, steps = machine.SHAPES[name], CLIPS[device] // batch
    config = machine.settings(shape, batch_size=batch)
    features = machine.generated(batch * steps, shape)
    made: dict[str, Callable[[], object]] = {}

    def plain() -> None:
        made["plain loop"] = _plain(features, device, batch, steps)
        made["plain loop"]()

    def ours() -> None:
        made["catuvac"] = TrainingRun(config, features, device=device)._train_epoch
        made["catuvac"]()

    memory = {"plain loop": peak_memory(plain, device), "catuvac": peak_memory(ours, device)}
    product, product_flops = machine.product(device)
    took = machine.alternating({**made, "product": product}, device=device, repeats=repeats)
    plain_ms, ms = (1000 * took[which] / steps for which in ("plain loop", "catuvac"))
    flops, ceiling = training_flops(config) * batch / ms * 1000, product_flops / took["product"]
    return {
        "device": device,
        "shape": f"{name} {shape[0]}×{shape[1]}",
        "batch": batch,
        "plain loop, ms/step": round(plain_ms, 2),
        "ms/step": round(ms, 2),
        "ratio": round(plain_ms / ms, 2),
        "clips/s": round(1000 * batch / ms),
        "plain loop, peak MiB": round(memory["plain loop"]),
        "peak MiB": round(memory["catuvac"]),
        "TFLOP/s": round(flops / 1e12, 3),
        "product, TFLOP/s": round(ceiling / 1e12, 3),
        "of the product, %": round(100 * flops / ceiling, 1),
    }


def _plain(features: FeatureSet, device: str, batch: int, steps: int) -> Callable[[], object]:
    shape = features.x.shape[1:]
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
    return lambda: [next(losses) for _ in range(steps)]
