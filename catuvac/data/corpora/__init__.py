"""The corpora: one file each, all delivering a `ClipTable`."""

from __future__ import annotations

from pathlib import Path

from catuvac.config import CorpusConfig
from catuvac.data.corpora import folder, fsdd, synthetic, urbansound8k
from catuvac.data.corpora.table import COMMON, ClipTable, Corpus
from catuvac.errors import CatuvacError

__all__ = ["COMMON", "CORPORA", "ClipTable", "Corpus", "index"]

CORPORA: dict[str, Corpus] = {module.CORPUS.name: module.CORPUS for module in (synthetic, fsdd, urbansound8k, folder)}


def index(config: CorpusConfig, data_root: Path | None) -> ClipTable:
    """Lists a corpus's clips below `data_root`, which generated corpora do not need.

    Raises:
        CatuvacError: an unknown corpus, no root, a root that holds no such corpus, or a malformed table.
    """
    if config.corpus not in CORPORA:
        raise CatuvacError(f"unknown corpus {config.corpus!r}; known: {', '.join(CORPORA)}")
    corpus = CORPORA[config.corpus]
    if not corpus.needs_root:
        return corpus.index(config, None)
    if data_root is None:
        raise CatuvacError(f"corpus {corpus.name!r} needs its recordings: give --data-root DIR")
    if not data_root.is_dir():
        raise CatuvacError(f"--data-root {data_root} is not a folder: give the one that holds {corpus.name}")
    return corpus.index(config, data_root.resolve())
