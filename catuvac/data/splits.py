"""Assigns clips to the train, val and test splits: seeded, stratified, group-safe (scikit-learn's splitters)."""

from __future__ import annotations

from fractions import Fraction
from itertools import islice

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from catuvac.config import SplitConfig
from catuvac.errors import CatuvacError

FOLDS = 20  # of grouped splits: fractions are met to within about 1 / FOLDS

Rows = NDArray[np.int64]


def split(clips: pd.DataFrame, config: SplitConfig) -> dict[str, Rows]:
    """Returns the row numbers of `clips` under `train`, `val` and `test`: sorted, disjoint, and covering all rows.

    `random` preserves label proportions if there are labels and each is frequent enough. `grouped` keeps all clips
    with the same `config.group` in one split, and preserves label proportions as far as that allows. `official` uses
    the corpus's own splits; if it has no validation split, `random` draws one from the rest. The fractions refer to
    all clips.

    Windows of one clip stay together: their clips are split, and the fractions refer to these.

    Raises:
        CatuvacError: no such column, no official split, or too few clips or groups to fill all three splits.
    """
    if "clip" in clips:
        whole = clips.drop_duplicates("clip")
        parts = split(whole.drop(columns="clip").reset_index(drop=True), config)
        numbers = whole["clip"].to_numpy()
        return {name: np.flatnonzero(clips["clip"].isin(numbers[part])) for name, part in parts.items()}
    rows = np.arange(len(clips), dtype=np.int64)
    if config.split == "grouped":
        rest, test = _grouped(clips, rows, config.test_fraction, config)
        train, val = _grouped(clips, rest, config.val_fraction / (1 - config.test_fraction), config)
    elif config.split == "official":
        if "split" not in clips:
            raise CatuvacError("this corpus has no official split: set split to random or grouped")
        given = clips["split"].to_numpy()
        test = rows[given == "test"]
        if (given == "val").any():
            train, val = rows[given == "train"], rows[given == "val"]
        else:
            train, val = _random(clips, rows[given != "test"], config.val_fraction * len(clips), config)
    else:
        rest, test = _random(clips, rows, config.test_fraction * len(clips), config)
        train, val = _random(clips, rest, config.val_fraction * len(clips), config)
    parts = {"train": np.sort(train), "val": np.sort(val), "test": np.sort(test)}
    for name, part in parts.items():
        if len(part) == 0:
            raise CatuvacError(f"the {name} split of {len(clips)} clips is empty: add clips or choose another split")
    return parts


def _random(clips: pd.DataFrame, rows: Rows, count: float, config: SplitConfig) -> tuple[Rows, Rows]:
    """Splits `rows` into the rest and a part of about `count` rows."""
    size = max(1, round(count))
    if size >= len(rows):
        raise CatuvacError(f"{len(rows)} clips are too few to split {size} off and keep some: add clips")
    labels = _labels(clips, rows, 2)
    if labels is not None and len(np.unique(labels)) > min(size, len(rows) - size):
        labels = None  # a part with fewer clips than classes cannot preserve their proportions
    rest, part = train_test_split(rows, test_size=size, random_state=config.split_seed, stratify=labels)
    return rest, part


def _grouped(clips: pd.DataFrame, rows: Rows, fraction: float, config: SplitConfig) -> tuple[Rows, Rows]:
    """Splits `rows` into the rest and whole groups with about `fraction` of the clips."""
    if config.group not in clips:
        raise CatuvacError(f"no column {config.group!r} to group by; the clips have {', '.join(clips.columns)}")
    groups = clips[config.group].to_numpy()[rows]
    finest = min(FOLDS, len(np.unique(groups)))
    if finest < 2:
        raise CatuvacError(f"{clips[config.group].nunique()} value(s) of {config.group!r} cannot fill three splits")
    share = Fraction(fraction).limit_denominator(finest)
    share = min(max(share, Fraction(1, finest)), Fraction(finest - 1, finest))
    labels = _labels(clips, rows, share.denominator)
    splitter = StratifiedGroupKFold(share.denominator, shuffle=True, random_state=config.split_seed)
    folds = splitter.split(rows, np.zeros(len(rows)) if labels is None else labels, groups)
    part = np.concatenate([fold for _, fold in islice(folds, share.numerator)])
    return np.delete(rows, part), rows[part]


def _labels(clips: pd.DataFrame, rows: Rows, at_least: int) -> NDArray[np.object_] | None:
    """Returns the labels to stratify by; None without labels or if a class has fewer than `at_least` clips."""
    if "label" not in clips:
        return None
    labels = clips["label"].to_numpy()[rows]
    return labels if np.unique(labels, return_counts=True)[1].min() >= at_least else None
