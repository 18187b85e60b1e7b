from __future__ import annotations

import itertools
from typing import get_args

import pytest

from catuvac.config import Shape
from catuvac.training.schedules import anneal


@pytest.mark.parametrize("shape", get_args(Shape))
def test_ends_are_exact_and_the_way_is_monotone(shape: Shape) -> None:
    values = [anneal(1.0, 0.3, progress=i / 100, shape=shape) for i in range(101)]
    assert values[0] == 1.0
    assert values[-1] == (1.0 if shape == "constant" else 0.3)
    assert all(later <= earlier for earlier, later in itertools.pairwise(values))


def test_midpoints_by_hand() -> None:
    assert anneal(1.0, 0.25, progress=0.5, shape="exponential") == pytest.approx(0.5)
    assert anneal(1.0, 0.5, progress=0.5, shape="linear") == pytest.approx(0.75)
    assert anneal(1.0, 0.5, progress=0.5, shape="cosine") == pytest.approx(0.75)
    assert anneal(1.0, 0.0, progress=0.25, shape="cosine") == pytest.approx(0.8535534)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"got 1\.1"):
        anneal(1.0, 0.5, progress=1.1, shape="linear")
    with pytest.raises(ValueError, match="positive ends"):
        anneal(1.0, 0.0, progress=0.5, shape="exponential")
