"""What every corpus delivers: a table of clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from torch import Tensor

from catuvac.config import CorpusConfig
from catuvac.data import audio

COMMON = ("path", "label", "duration", "split")  # every other column of a clip table is a nuisance


@dataclass(frozen=True)
class ClipTable:
    """The clips of a corpus, in a fixed order.

    `clips` holds `path` (absolute, or a generated clip's name), `label` (a name; no such column where there are none),
    `duration` (s, without padding; NaN where the file is unreadable), `split` (only where the corpus has an official
    one: train or test) and the corpus's nuisance columns. `note` states how much of the corpus is there.
    """

    clips: pd.DataFrame
    note: str


def read_file(config: CorpusConfig, path: str, sample_rate: int) -> Tensor:
    """`Corpus.read` of every corpus that lies in files; raises `AudioError`."""
    del config
    return audio.load(path, sample_rate=sample_rate)


@dataclass(frozen=True)
class Corpus:
    """A corpus as `catuvac datasets` lists it and as the store reads it."""

    name: str
    description: str
    licence: str
    nuisances: tuple[str, ...]  # clip-table columns that clusters should not follow
    index: Callable[[CorpusConfig, Path | None], ClipTable]  # raises CatuvacError where the root is wrong
    needs_root: bool = True
    read: Callable[[CorpusConfig, str, int], Tensor] = read_file  # (config, path, Hz) -> float32 [samples]
