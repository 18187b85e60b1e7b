"""The ten digits of the Arabic Speech Commands Dataset: `{word}/{speaker}_NO_{take}.flac` and three CSVs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from catuvac.config import CorpusConfig
from catuvac.data import audio
from catuvac.data.corpora.table import ClipTable, Corpus, keep_present, read_table
from catuvac.errors import CatuvacError

SPLITS = ("train", "val", "test")  # no speaker is in two of them
COLUMNS = ("file", "class")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NAME = r"(?P<speaker>\d+)_NO_\d+\.\w+"  # of a file in its word's folder


def _index(config: CorpusConfig, data_root: Path | None) -> ClipTable:
    assert data_root is not None
    for root in (data_root / "arabic_digits", data_root):
        if all((root / f"{split}.csv").is_file() for split in SPLITS):
            break
    else:
        raise CatuvacError(
            f"no train.csv, val.csv and test.csv in {data_root} or its arabic_digits/: give --data-root the folder "
            "that contains the corpus"
        )
    parts = []
    for split in SPLITS:
        rows = read_table(root / f"{split}.csv", COLUMNS)
        parts.append(rows[rows["class"].isin(DIGITS)].assign(split=split))  # the complete dataset has 40 words
    rows = pd.concat(parts, ignore_index=True)
    if rows.empty:
        raise CatuvacError(f"the tables in {root} list no digit: restore the official ones")
    kept, absent = keep_present(rows, f"{root}/" + rows["file"], partial=config.partial)
    clips = pd.DataFrame(
        {
            "path": kept["path"],
            "label": kept["class"],
            "duration": [audio.duration(path) for path in kept["path"]],
            "split": kept["split"],
            "speaker": kept["file"].str.extract(NAME)["speaker"],
        }
    )
    note = f"{len(clips)} of {CORPUS.full} clips ({clips['speaker'].nunique()} of 30 speakers){absent}"
    return ClipTable(clips, note)


CORPUS = Corpus(
    name="arabic_digits",
    description="Arabic Speech Commands: 3 000 spoken digits, 30 speakers, 16 kHz",
    licence="CC BY 4.0",
    nuisances=("speaker",),
    group="speaker",
    full=3000,  # 10 digits x 30 speakers x 10
    index=_index,
)
