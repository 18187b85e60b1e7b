"""UrbanSound8K: `metadata/UrbanSound8K.csv` and `audio/fold1` to `audio/fold10`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from catuvac.config import CorpusConfig
from catuvac.data.corpora.table import ClipTable, Corpus
from catuvac.errors import CatuvacError

COLUMNS = ("slice_file_name", "fsID", "start", "end", "salience", "fold", "class")
FOLDS = 10


def _index(config: CorpusConfig, data_root: Path | None) -> ClipTable:
    del config
    assert data_root is not None
    table = Path("metadata") / "UrbanSound8K.csv"
    roots = [root for root in (data_root, data_root / "UrbanSound8K") if (root / table).is_file()]
    if not roots:
        raise CatuvacError(f"no {table} in {data_root} or its UrbanSound8K/: give --data-root the corpus's own folder")
    root = roots[0]
    try:
        rows = pd.read_csv(root / table)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise CatuvacError(f"{root / table} is not the corpus's CSV: {' '.join(str(error).split())}") from error
    missing = [column for column in COLUMNS if column not in rows.columns]
    if missing:
        raise CatuvacError(
            f"{root / table} lacks the column {', '.join(missing)}; it has {', '.join(rows.columns)}: "
            "restore the official CSV"
        )
    paths = [
        root / "audio" / f"fold{fold}" / name for fold, name in zip(rows["fold"], rows["slice_file_name"], strict=True)
    ]
    here = [path.is_file() for path in paths]
    if not any(here):
        raise CatuvacError(f"no clip of {table} in {root / 'audio'}/fold1 to fold{FOLDS}: put the folds there")
    kept = rows[here]
    clips = pd.DataFrame(
        {
            "path": [str(path) for path, present in zip(paths, here, strict=True) if present],
            "label": kept["class"].astype(str),
            # The header's length may be that of a padded copy: the CSV has the slice's own.
            "duration": kept["end"] - kept["start"],
            "fold": kept["fold"],
            "fs_id": kept["fsID"],
            "salience": kept["salience"],
        }
    ).reset_index(drop=True)
    folds = sorted(int(fold) for fold in clips["fold"].unique())
    which = f"fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))} of {FOLDS}"
    return ClipTable(clips, f"{len(clips)} of {len(rows)} clips ({which})")


CORPUS = Corpus(
    name="urbansound8k",
    description="UrbanSound8K: 8 732 slices of up to 4 s in 10 urban sound classes and 10 folds",
    licence="CC BY-NC 3.0",
    nuisances=("fold", "fs_id", "salience"),
    index=_index,
)
