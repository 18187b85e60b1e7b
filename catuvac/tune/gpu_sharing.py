"""How much of a GPU a trial gets: chosen from its memory before a study, and doubled where it ran out of it."""

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

SHARES = (1, 2, 3, 4, 6, 8)  # trials on a card
MOST = SHARES[-1]  # more trials on a card wait for each other and bring nothing: assumed, not measured on any GPU
# Of a process, before its first tensor: CUDA's context, cuBLAS's and cuDNN's workspaces. Assumed, not measured.
CONTEXT = 1_000_000_000  # bytes
USABLE = 0.9  # of a card's memory: what is freed lies in pieces


def trials_on_a_card(*, need: int, memory: int, wanted: int) -> int:
    """How many trials share a card, one of `SHARES`.

    Args:
        need: bytes of a trial.
        memory: bytes of the card.
        wanted: trials that each card would get if they were spread evenly; more places would leave other cards idle.

    Returns:
        1 where not even one fits: the estimate may be wrong, and Ray can give no more than a card.
    """
    most = max(n for n in SHARES if n == 1 or n * need <= USABLE * memory)
    return min(n for n in SHARES if n >= min(most, wanted))


def choose(study: Search, features: Prepared) -> tuple[float, str]:
    """The share of a GPU for a trial on the cluster that Ray is connected to, the same on every card.

    Args:
        study: what is about to start; its own share is not looked at.
        features: every trial holds them on its device.

    Returns:
        The share, 0 where the cluster has no GPU, and a line that says why.
    """
    carriers = [node for node in alive() if node.resources.get("GPU", 0) >= 1]
    if not carriers:
        return 0.0, "packing    no GPU in the cluster: trials train on the CPU"
    cards = [memory for found in ask(gpus, carriers) for _, memory in found]
    if not cards or min(cards) == 0:
        return 1.0, "packing    a GPU a trial: nvidia-smi does not tell the memory of every card"
    own, resident = training_bytes(study.largest()), features.open().x.nbytes
    need, memory = CONTEXT + own + resident, min(cards)
    room = carried(replace(study, gpus_per_trial=0.0), carriers)
    wanted = math.ceil(min(room, study.trials, study.max_concurrent or room) / len(cards))
    count = trials_on_a_card(need=need, memory=memory, wanted=wanted)
    return share_of(count), (
        f"packing    {count} a GPU: {need / 1e9:.2g} GB a trial ({CONTEXT / 1e9:.2g} GB for CUDA, assumed, "
        f"{own / 1e9:.2g} GB training, {resident / 1e9:.2g} GB features), {memory / 1e9:.0f} GB a GPU; "
        f"{wanted} wanted, {MOST} at most"
    )


def share_of(count: int) -> float:
    """1 / count, rounded down to Ray's resolution, 0.0001, so that as many fit."""
    return math.floor(10_000 / count) / 10_000


class Roomier:
    """A scheduler that gives a trial twice its share of a GPU, at most one, when it ran out of the GPU's memory.

    Here, because Ray has just stopped the trial and has not queued it again: later, it would look for it under the old
    share.
    """

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Changes the trial's resources, if it is to be tried again."""
        super().on_trial_error(tune_controller, trial)  # type: ignore[misc]
        share = gpu_share(trial)
        if trial.status == Trial.ERROR and 0 < share < 1 and out_of_gpu_memory(last_words(trial)):
            resources: Mapping[str, float] = trial.placement_group_factory.required_resources
            trial.update_resources({"cpu": resources.get("CPU", 0.0), "gpu": min(1.0, 2 * share)})
            trial.max_failures += 1  # what it lacked was not its fault


def gpu_share(trial: Trial) -> float:
    """What the trial asks for."""
    return float(trial.placement_group_factory.required_resources.get("GPU", 0.0))


class Fifo(Roomier, FIFOScheduler):  # type: ignore[misc]
    """Trials in their order."""


class Asha(Roomier, ASHAScheduler):  # type: ignore[misc]
    """Successive halving."""


class Median(Roomier, MedianStoppingRule):  # type: ignore[misc]
    """Stops what is below the median."""
