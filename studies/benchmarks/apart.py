"""A piece of work that lives in a process of its own: what its memory is, and how that is managed, is its own."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

import torch

from benchmarks import machine

Work = Callable[[], object]

_works: list[Work] = []  # of this process, when it is such a one


@contextlib.contextmanager
def apart(make: Callable[[], Work], device: str) -> Iterator[tuple[Work, float]]:
    """Yields what calls the work that `make` makes there, and the MiB that making and calling it once took."""
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    with ProcessPoolExecutor(1, mp_context=context) as process:
        memory = process.submit(_begin, make, device, torch.get_num_threads()).result()
        yield lambda: process.submit(_again, device).result(), memory


def _begin(make: Callable[[], Work], device: str, threads: int) -> float:
    torch.set_num_threads(threads)

    def first() -> None:
        _works.append(make())
        _works[0]()

    return machine.peak_memory(first, device)


def _again(device: str) -> None:
    machine.seconds(_works[0], device)
