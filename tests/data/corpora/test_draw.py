from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from catuvac.config import CorpusConfig
from catuvac.data.corpora import index
from catuvac.errors import CatuvacError


def synthetic(**settings: int | bool) -> CorpusConfig:
    return CorpusConfig(**{"n_classes": 3, "clips_per_class": 20} | settings)  # type: ignore[arg-type]


def test_a_limit_draws_by_seed_in_the_tables_order() -> None:
    whole = index(synthetic(), None).clips
    table = index(synthetic(limit=25), None)
    assert table.note == "25 of 60 clips, drawn with seed 0; from 60 generated clips of 3 scenes, overlap 0"
    places = [whole["path"].tolist().index(path) for path in table.clips["path"]]
    assert places == sorted(set(places))
    assert len(places) == 25
    pd.testing.assert_frame_equal(table.clips, whole.iloc[places].reset_index(drop=True))
    pd.testing.assert_frame_equal(index(synthetic(limit=25), None).clips, table.clips)
    assert index(synthetic(limit=25, corpus_seed=1), None).clips["path"].tolist() != table.clips["path"].tolist()
    pd.testing.assert_frame_equal(index(synthetic(limit=60), None).clips, whole)


def test_stratify_takes_as_many_of_every_label() -> None:
    table = index(synthetic(limit=24, stratify=True), None)
    assert table.note.startswith("24 of 60 clips, drawn with seed 0, equally many per label; from")
    assert table.clips["label"].value_counts().to_dict() == {"rumble": 8, "hum": 8, "siren": 8}
    assert table.clips["label"].tolist() == ["rumble"] * 8 + ["hum"] * 8 + ["siren"] * 8  # the table's order
    uneven = index(synthetic(limit=25, stratify=True), None)  # the odd one goes to the first in sorted order
    assert uneven.clips["label"].value_counts().to_dict() == {"hum": 9, "rumble": 8, "siren": 8}
    assert "equally many per label to within one; from" in uneven.note


def test_a_corpus_in_files_is_drawn_too(tau2019: Path) -> None:
    table = index(CorpusConfig(corpus="tau2019", limit=12, stratify=True), tau2019)
    assert table.note == (
        "12 of 32 clips, drawn with seed 0, equally many per label; from 32 of 14400 clips (16 locations in 4 cities)"
    )
    assert table.clips["label"].value_counts().to_dict() == {"airport": 6, "street_traffic": 6}
    assert all(Path(path).is_file() for path in table.clips["path"])


def test_limits_that_cannot_be_met(urbansound8k: Path) -> None:
    with pytest.raises(CatuvacError, match="limit 61 exceeds the 60 clips of synthetic"):
        index(synthetic(limit=61), None)
    # Sixteen dog barks and eight sirens.
    with pytest.raises(CatuvacError, match="limit 20 needs more clips than some labels have: siren 8 of 10; lower it"):
        index(CorpusConfig(corpus="urbansound8k", limit=20, stratify=True), urbansound8k)
