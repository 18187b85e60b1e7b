"""Runs a piece of work in its own process, with its own memory and allocator settings."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import torch

from benchmarks import machine
from catuvac.errors import CatuvacError

Work = Callable[[], object]

_works: list[Work] = []  # of this process, if it is the one that works


@contextlib.contextmanager
def apart(make: Callable[[], Work], device: str) -> Iterator[tuple[Work, float]]:
    """Yields a function that calls there the work made by `make`, and the MiB that making and one call took.

    Raises:
        CatuvacError: the process was ended from outside.
    """
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    silently = (signal.SIGINT, signal.SIG_DFL)  # it ends on Ctrl-C
    with ProcessPoolExecutor(1, mp_context=context, initializer=signal.signal, initargs=silently) as process:
        try:
            memory = process.submit(_begin, make, device, torch.get_num_threads()).result()
            yield lambda: process.submit(_again, device).result(), memory
        except BrokenProcessPool as error:
            raise CatuvacError("a process of the benchmark was ended: did it run out of memory?") from error


def _begin(make: Callable[[], Work], device: str, threads: int) -> float:
    torch.set_num_threads(threads)

    def first() -> None:
        _works.append(make())
        _works[0]()

    return machine.peak_memory(first, device)


def _again(device: str) -> None:
    machine.seconds(_works[0], device)
