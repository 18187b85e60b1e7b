from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from catuvac.config import SplitConfig
from catuvac.data.splits import split
from catuvac.errors import CatuvacError


def check(parts: dict[str, np.ndarray], count: int) -> None:
    assert list(parts) == ["train", "val", "test"]
    together = np.concatenate(list(parts.values()))
    assert sorted(together) == list(range(count))
    for rows in parts.values():
        assert rows.dtype == np.int64
        assert (np.diff(rows) > 0).all()


def test_random_keeps_the_shares_of_the_labels_and_follows_the_seed() -> None:
    clips = pd.DataFrame({"label": ["a"] * 100 + ["b"] * 300})
    parts = split(clips, SplitConfig(val_fraction=0.1, test_fraction=0.2))
    check(parts, 400)
    assert {name: (clips["label"][rows] == "a").sum() for name, rows in parts.items()} == {
        "train": 70,
        "val": 10,
        "test": 20,
    }
    again = split(clips, SplitConfig(val_fraction=0.1, test_fraction=0.2))
    other = split(clips, SplitConfig(val_fraction=0.1, test_fraction=0.2, split_seed=1))
    assert all(np.array_equal(parts[name], again[name]) for name in parts)
    assert not np.array_equal(parts["test"], other["test"])


def test_random_without_labels_or_with_rare_ones() -> None:
    check(split(pd.DataFrame({"path": list("abcdefghij")}), SplitConfig()), 10)
    check(split(pd.DataFrame({"label": ["a"] * 9 + ["b"]}), SplitConfig()), 10)  # one clip of b
    check(split(pd.DataFrame({"label": list("abcde") * 4}), SplitConfig()), 20)  # five classes, two test clips


def test_grouped_keeps_every_group_whole() -> None:
    rng = np.random.default_rng(0)
    group = rng.integers(0, 60, size=900)
    clips = pd.DataFrame({"group": group, "label": np.where(group % 3 == 0, "a", "b")})
    parts = split(clips, SplitConfig(split="grouped", group="group", val_fraction=0.1, test_fraction=0.3))
    check(parts, 900)
    sides = [set(group[rows]) for rows in parts.values()]
    assert sum(len(side) for side in sides) == len(set(group))
    assert len(parts["val"]) == pytest.approx(90, abs=25)
    assert len(parts["test"]) == pytest.approx(270, abs=25)
    assert all(set(clips["label"][rows]) == {"a", "b"} for rows in parts.values())


def test_grouped_with_six_speakers_and_no_labels() -> None:
    clips = pd.DataFrame({"speaker": list("uvwxyz") * 10})
    parts = split(clips, SplitConfig(split="grouped", group="speaker"))
    check(parts, 60)
    assert [clips["speaker"][rows].nunique() for rows in parts.values()] == [4, 1, 1]


def test_official_takes_the_corpus_own_test_split() -> None:
    clips = pd.DataFrame({"split": ["test", "train", "train", "train"] * 25, "label": list("ab") * 50})
    parts = split(clips, SplitConfig(split="official"))
    check(parts, 100)
    assert parts["test"].tolist() == list(range(0, 100, 4))
    assert len(parts["val"]) == 10


@pytest.mark.parametrize(
    ("clips", "config", "message"),
    [
        ({"path": list("abcdef")}, SplitConfig(split="official"), "no official split"),
        ({"path": list("abcdef")}, SplitConfig(split="grouped", group="city"), "no column 'city'.*have path"),
        ({"city": ["x"] * 6}, SplitConfig(split="grouped", group="city"), "1 value.*'city'"),
        ({"city": list("xyxyxy")}, SplitConfig(split="grouped", group="city"), "2 value.*'city'"),
        ({"path": list("ab")}, SplitConfig(), "add clips"),
        ({"split": ["train"] * 9}, SplitConfig(split="official"), "the test split of 9 clips is empty"),
    ],
)
def test_splits_that_cannot_be_filled(clips: dict[str, list[str]], config: SplitConfig, message: str) -> None:
    with pytest.raises(CatuvacError, match=message):
        split(pd.DataFrame(clips), config)
