"""Which changes to a clip should not change its cluster? Clips with the augmented views that share their cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from catuvac.trained import Trained

CLIPS = 8
VIEWS = 3  # of each clip


@dataclass(frozen=True)
class Examples:
    """Clips and their views.

    Attributes:
        titles: of each clip, such as "label seven"; its number in the split if it has no label.
        pictures: `[clips, 1 + views, T, F]` in [0, 1], the clip first.
    """

    titles: tuple[str, ...]
    pictures: NDArray[np.float32]


def examples(model: Trained) -> Examples:
    """Returns `CLIPS` clips spread evenly over the split, each with `VIEWS` views drawn as in training."""
    clips = model.clips
    chosen = np.unique(np.linspace(0, len(clips) - 1, min(CLIPS, len(clips))).round().astype(np.int64))
    labels = [str(clips["label"][clip]) if "label" in clips else f"clip {clip}" for clip in chosen]
    return Examples(tuple(labels), model.views(chosen, VIEWS))
