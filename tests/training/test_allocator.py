from __future__ import annotations

import platform
import resource

import pytest
import torch

from catuvac.training.allocator import disable_trimming

MIB = 64


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_what_was_freed_is_taken_again_without_the_kernel() -> None:
    disable_trimming()
    found = [_new_pages() for _ in range(20)]  # the first ones still fragment what they leave
    assert max(found[-5:]) < MIB * 2**20 / resource.getpagesize() / 10


def _new_pages() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(MIB, 2**20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
