"""UrbanSound8K: `metadata/UrbanSound8K.csv` and `audio/fold1` to `audio/fold10`."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from catuvac.config import CorpusConfig
from catuvac.data.corpora.table import ClipTable, Corpus, check, check_values, keep_present, read_table
from catuvac.errors import CatuvacError

COLUMNS = ("slice_file_name", "fsID", "start", "end", "salience", "fold", "class")
FOLDS = 10
CLASSES = (
    "air_conditioner",
    "car_horn",
    "children_playing",
    "dog_bark",
    "drilling",
    "engine_idling",
    "gun_shot",
    "jackhammer",
    "siren",
    "street_music",
)
SALIENCES = (1, 2)  # foreground, background


def _index(config: CorpusConfig, data_root: Path | None) -> ClipTable:
    assert data_root is not None
    table = Path("metadata") / "UrbanSound8K.csv"
    roots = [root for root in (data_root, data_root / "UrbanSound8K") if (root / table).is_file()]
    if not roots:
        raise CatuvacError(f"no {table} in {data_root} or its UrbanSound8K/: give --data-root the corpus's own folder")
    root = roots[0]
    rows = read_table(root / table, COLUMNS)
    check_values(rows, "class", CLASSES, root / table)
    check_values(rows, "salience", SALIENCES, root / table)
    check_values(rows, "fold", range(1, FOLDS + 1), root / table)
    seconds = rows[["start", "end"]].apply(pd.to_numeric, errors="coerce")
    # An infinite end is not valid, but passes the other comparisons.
    good = (seconds["start"] >= 0) & (seconds["start"] < seconds["end"]) & (seconds["end"] < math.inf)
    check(good, root / table, "not 0 <= start < end, in s")
    paths = f"{root}/audio/fold" + rows["fold"].astype(str) + "/" + rows["slice_file_name"]
    kept, absent = keep_present(rows, paths, partial=config.partial)
    clips = pd.DataFrame(
        {
            "path": kept["path"],
            "label": kept["class"],
            # The header's length may be that of a padded copy: the CSV states the slice's own.
            "duration": kept["end"].astype(float) - kept["start"].astype(float),
            "fold": kept["fold"],
            "fs_id": kept["fsID"],
            "salience": kept["salience"],
        }
    )
    folds = sorted(int(fold) for fold in clips["fold"].unique())
    which = f"fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))} of {FOLDS}"
    return ClipTable(clips, f"{len(clips)} of {CORPUS.full} clips ({which}){absent}")


CORPUS = Corpus(
    name="urbansound8k",
    description="UrbanSound8K: 8 732 slices of up to 4 s in 10 urban sound classes and 10 folds",
    licence="CC BY-NC 3.0 (its Zenodo record says 4.0)",
    nuisances=("fold", "fs_id", "salience"),
    group="fs_id",
    full=8732,
    index=_index,
)
