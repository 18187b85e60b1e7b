"""The share of a GPU per trial: chosen from the memory need before a study, and doubled after running out of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule

from catuvac.data.store import Prepared
from catuvac.experiments.search import Search
from catuvac.training.cost import training_bytes
from catuvac.tune.failures import last_words, out_of_gpu_memory
from catuvac.tune.preflight import alive, ask, carried, gpus

SHARES = (1, 2, 3, 4, 6, 8)  # possible numbers of trials per card
MOST = SHARES[-1]  # more trials per card would only wait for each other: assumed, not measured on any GPU
# Of a process before its first tensor: CUDA context, cuBLAS and cuDNN workspaces. Assumed, not measured.
CONTEXT = 1_000_000_000  # bytes
USABLE = 0.9  # share of a card's memory: freed memory is fragmented


def trials_on_a_card(*, need: int, memory: int, wanted: int) -> int:
    """Returns how many trials share a card, one of `SHARES`.

    Args:
        need: bytes per trial.
        memory: bytes of the card.
        wanted: trials per card if they are spread evenly; with more per card, other cards would be idle.

    Returns:
        1 if not even one fits: the estimate may be wrong, and Ray cannot give more than a card.
    """
    most = max(n for n in SHARES if n == 1 or n * need <= USABLE * memory)
    return min(n for n in SHARES if n >= min(most, wanted))


def choose(study: Search, features: Prepared) -> tuple[float, str]:
    """Chooses the share of a GPU per trial, equal on all cards of the cluster that Ray is connected to.

    Args:
        study: the study that is about to start; its own share is ignored.
        features: every trial keeps them on its device.

    Returns:
        The share, 0 if the cluster has no GPU, and a line that states the reason.
    """
    carriers = [node for node in alive() if node.resources.get("GPU", 0) >= 1]
    if not carriers:
        return 0.0, "packing    no GPU in the cluster: trials train on the CPU"
    cards = [memory for found in ask(gpus, carriers) for _, memory in found]
    if not cards or min(cards) == 0:
        return 1.0, "packing    one GPU per trial: nvidia-smi does not report the memory of every card"
    training, resident = training_bytes(study.largest()), features.open().x.nbytes
    need, memory = CONTEXT + training + resident, min(cards)
    room = carried(replace(study, gpus_per_trial=0.0), carriers)
    wanted = math.ceil(min(room, study.trials, study.max_concurrent or room) / len(cards))
    count = trials_on_a_card(need=need, memory=memory, wanted=wanted)
    return share_of(count), (
        f"packing    {count} per GPU: {need / 1e9:.2g} GB per trial ({CONTEXT / 1e9:.2g} GB for CUDA, assumed, "
        f"{training / 1e9:.2g} GB training, {resident / 1e9:.2g} GB features), {memory / 1e9:.0f} GB per GPU; "
        f"{wanted} wanted, {MOST} at most"
    )


def share_of(count: int) -> float:
    """Returns 1 / count, rounded down to Ray's resolution, 0.0001, so that `count` trials fit."""
    return math.floor(10_000 / count) / 10_000


class Roomier:
    """A scheduler that doubles a trial's share of a GPU, up to one GPU, after it ran out of GPU memory.

    It does so here because Ray has stopped the trial and not queued it again yet: later, Ray would look for it under
    the old share.
    """

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Changes the trial's resources if it is to be retried."""
        super().on_trial_error(tune_controller, trial)  # type: ignore[misc]
        share = gpu_share(trial)
        if trial.status == Trial.ERROR and 0 < share < 1 and out_of_gpu_memory(last_words(trial)):
            resources: Mapping[str, float] = trial.placement_group_factory.required_resources
            trial.update_resources({"cpu": resources.get("CPU", 0.0), "gpu": min(1.0, 2 * share)})
            trial.max_failures += 1  # this failure does not count


def gpu_share(trial: Trial) -> float:
    """Returns the share of a GPU that the trial requests."""
    return float(trial.placement_group_factory.required_resources.get("GPU", 0.0))


class Fifo(Roomier, FIFOScheduler):  # type: ignore[misc]
    """First in, first out."""


class Asha(Roomier, ASHAScheduler):  # type: ignore[misc]
    """Successive halving."""


class Median(Roomier, MedianStoppingRule):  # type: ignore[misc]
    """Stops trials below the median."""
