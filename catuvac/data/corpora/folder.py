"""Any tree of audio files; the first sub-folder is the label where `folder_labels` asks for it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from catuvac.config import CorpusConfig
from catuvac.data import audio
from catuvac.data.corpora.table import ClipTable, Corpus
from catuvac.errors import CatuvacError

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


def _index(config: CorpusConfig, data_root: Path | None) -> ClipTable:
    assert data_root is not None
    paths = sorted(path for path in data_root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise CatuvacError(
            f"no {', '.join(SUFFIXES)} file below {data_root}: give --data-root a folder that holds some"
        )
    columns: dict[str, list[str] | list[float]] = {"path": [str(path) for path in paths]}
    if config.folder_labels:
        loose = [path for path in paths if path.parent == data_root]
        if loose:
            raise CatuvacError(
                f"{loose[0]} has no label: folder_labels takes the first sub-folder, so move {len(loose)} such "
                "file(s) into one, or switch folder_labels off"
            )
        columns["label"] = [path.relative_to(data_root).parts[0] for path in paths]
    columns["duration"] = [audio.duration(path) for path in paths]
    classes = f" in {len(set(columns['label']))} labelled sub-folders" if config.folder_labels else ""
    return ClipTable(pd.DataFrame(columns), f"{len(paths)} files{classes}")


CORPUS = Corpus(
    name="folder",
    description="any tree of wav, flac, ogg or mp3 files; the first sub-folder is the label when asked",
    licence="your own",
    nuisances=(),
    group="",
    full=0,
    index=_index,
)
