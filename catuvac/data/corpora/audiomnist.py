"""AudioMNIST: `data/{speaker}/{digit}_{speaker}_{repetition}.wav`, 48 kHz, and `data/audioMNIST_meta.txt`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd

from catuvac.config import CorpusConfig
from catuvac.data import audio
from catuvac.data.corpora.table import ClipTable, Corpus
from catuvac.errors import CatuvacError

META = "audioMNIST_meta.txt"
UNKNOWN = "unknown"

_CLIP = re.compile(r"(?P<speaker>0[1-9]|[1-5]\d|60)/(?P<digit>\d)_(?P=speaker)_[1-4]?\d\.wav")
_FIELDS = {  # column: name of the field in the file
    "accent": "accent",
    "age": "age",
    "gender": "gender",
    "native_speaker": "native speaker",
    "origin": "origin",
    "recording_room": "recordingroom",
}
# Errors in the official file: room "vr-romm" of speaker 52, age "1234" of speaker 45.
_SLIPS = {"vr-romm": "vr-room", "1234": UNKNOWN, "": UNKNOWN}


def _index(config: CorpusConfig, data_root: Path | None) -> ClipTable:
    del config
    assert data_root is not None
    folders = (data_root / "data", data_root, data_root / "AudioMNIST" / "data", data_root / "audiomnist" / "data")
    for folder in folders:
        names = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.wav"))
        matches = [match for name in names if (match := _CLIP.fullmatch(name))]
        if matches:
            break
    else:
        raise CatuvacError(
            f"no AudioMNIST recordings (data/{{speaker}}/{{digit}}_{{speaker}}_{{repetition}}.wav) in {data_root} or "
            "its AudioMNIST/: give --data-root the folder that contains them"
        )
    clips = pd.DataFrame(
        {
            "path": [str(folder / match.string) for match in matches],
            "label": [match["digit"] for match in matches],
            "duration": [audio.duration(folder / match.string) for match in matches],
            "speaker": [match["speaker"] for match in matches],
        }
    )
    if (folder / META).is_file():
        speakers = _speakers(folder / META)
        for column in _FIELDS:
            clips[column] = [speakers.get(speaker, {}).get(column, UNKNOWN) for speaker in clips["speaker"]]
    return ClipTable(clips, f"{len(clips)} of {CORPUS.full} clips ({clips['speaker'].nunique()} of 60 speakers)")


def _speakers(path: Path) -> dict[str, dict[str, str]]:
    """Returns the columns of every speaker in the file, in consistent spelling."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        return {
            speaker: {column: _corrected(entry.get(field, UNKNOWN)) for column, field in _FIELDS.items()}
            for speaker, entry in listed.items()
        }
    except (ValueError, AttributeError) as error:  # not JSON, not UTF-8, or not an object of objects
        raise CatuvacError(
            f"{path} is not the corpus's JSON of speakers ({error}): restore the official file, or remove it to do "
            "without it"
        ) from error


def _corrected(value: object) -> str:
    text = str(value).strip().casefold()
    return _SLIPS.get(text, text)


CORPUS = Corpus(
    name="audiomnist",
    description="AudioMNIST: 30 000 English digits, 60 speakers, 48 kHz",
    licence="MIT",
    nuisances=("speaker", *_FIELDS),
    group="speaker",
    full=30000,  # 10 digits x 60 speakers x 50
    index=_index,
)
