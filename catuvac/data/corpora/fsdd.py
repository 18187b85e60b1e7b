"""The Free Spoken Digit Dataset: `recordings/{digit}_{speaker}_{index}.wav`, 8 kHz."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from catuvac.config import CorpusConfig
from catuvac.data import audio
from catuvac.data.corpora.table import ClipTable, Corpus, path_column
from catuvac.errors import CatuvacError, printable

TEST_BELOW = 5  # indices 0-4 of every digit and speaker are the official test split

_NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[^_]+)_(?P<index>\d+)\.wav")


def _index(config: CorpusConfig, data_root: Path | None) -> ClipTable:
    del config
    assert data_root is not None
    for folder in (data_root / "fsdd" / "recordings", data_root / "recordings", data_root):
        matches = [match for path in sorted(folder.glob("*.wav")) if (match := _NAME.fullmatch(path.name))]
        if matches:
            break
    else:
        raise CatuvacError(
            f"no FSDD recordings ({{digit}}_{{speaker}}_{{index}}.wav) in {data_root}, its recordings/ or its "
            "fsdd/recordings/: give --data-root the folder that contains them"
        )
    clips = pd.DataFrame(
        {
            "path": path_column(folder / match.string for match in matches),
            "label": [match["digit"] for match in matches],
            "duration": [audio.duration(folder / match.string) for match in matches],
            "split": ["test" if int(match["index"]) < TEST_BELOW else "train" for match in matches],
            "speaker": [printable(match["speaker"]) for match in matches],
        }
    )
    return ClipTable(clips, f"{len(clips)} of {CORPUS.full} clips ({clips['speaker'].nunique()} of 6 speakers)")


CORPUS = Corpus(
    name="fsdd",
    description="Free Spoken Digit Dataset: 3 000 English digits, 6 speakers, 8 kHz",
    licence="CC BY-SA 4.0",
    nuisances=("speaker",),
    group="speaker",
    full=3000,  # 10 digits x 6 speakers x 50
    index=_index,
)
