"""Any tree of audio files; the first sub-folder is the label where `folder_labels` asks for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from catuvac.config import CorpusConfig
from catuvac.data import audio
from catuvac.data.corpora.table import ClipTable, Corpus, path_column
from catuvac.errors import CatuvacError, printable

READ = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".aifc", ".opus", ".oga", ".caf", ".au", ".w64", ".rf64")
# libsndfile reads none of these so far: they are listed, so that each is reported as skipped and not passed over.
UNREAD = (".m4a", ".mp4", ".aac", ".wma", ".webm", ".amr", ".ape", ".wv", ".mka", ".ac3", ".dsf", ".3gp")
RESOURCE = "._"  # how the names begin under which macOS keeps what other file systems have no room for


def _index(config: CorpusConfig, data_root: Path | None) -> ClipTable:
    assert data_root is not None
    paths = sorted(recordings(data_root))
    if not paths:
        raise CatuvacError(f"no {', '.join(READ)} file below {data_root}: give --data-root a folder that holds some")
    columns: dict[str, pd.Series | list[str] | list[float]] = {"path": path_column(paths)}
    if config.folder_labels:
        loose = [path for path in paths if path.parent == data_root]
        if loose:
            raise CatuvacError(
                f"{loose[0]} has no label: folder_labels takes the first sub-folder, so move {len(loose)} such "
                "file(s) into one, or switch folder_labels off"
            )
        columns["label"] = [printable(path.relative_to(data_root).parts[0]) for path in paths]
    columns["duration"] = [audio.duration(path) for path in paths]
    classes = f" in {len(set(columns['label']))} labelled sub-folders" if config.folder_labels else ""
    return ClipTable(pd.DataFrame(columns), f"{len(paths)} files{classes}")


def recordings(root: Path) -> Iterator[Path]:
    """The audio files below `root`, broken links to some among them; raises `OSError` for a folder it cannot list."""

    def refuse(error: OSError) -> None:
        raise error

    for folder, _, names in os.walk(root, onerror=refuse):
        for path in (Path(folder, name) for name in names if not name.startswith(RESOURCE)):
            # A named pipe would wait for ever.
            if path.suffix.lower() in READ + UNREAD and (path.is_file() or not path.exists()):
                yield path


CORPUS = Corpus(
    name="folder",
    description="any tree of wav, flac, ogg, opus, mp3, aiff or caf files; labelled by first sub-folder when asked",
    licence="your own",
    nuisances=(),
    group="",
    full=0,
    index=_index,
)
