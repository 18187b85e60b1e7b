"""The corpora: one module each, all returning a `ClipTable`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from catuvac.config import CorpusConfig, unknown
from catuvac.data.corpora import (
    arabic_digits,
    audiomnist,
    folder,
    fsdd,
    speech_commands,
    synthetic,
    tau2019,
    urbansound8k,
)
from catuvac.data.corpora.table import COMMON, ClipTable, Corpus, starts, windows
from catuvac.errors import CatuvacError

__all__ = ["COMMON", "CORPORA", "ClipTable", "Corpus", "index", "starts", "windows"]

_MODULES = (synthetic, fsdd, arabic_digits, speech_commands, audiomnist, tau2019, urbansound8k, folder)
CORPORA: dict[str, Corpus] = {module.CORPUS.name: module.CORPUS for module in _MODULES}


def index(config: CorpusConfig, data_root: Path | None) -> ClipTable:
    """Lists a corpus's clips below `data_root`, which generated corpora do not need, or draws `config.limit` of them.

    Raises:
        CatuvacError: an unknown corpus, no root, a root without this corpus, a malformed table, a limit that the clips
            or their labels cannot meet, or a folder or table that cannot be read.
    """
    if config.corpus not in CORPORA:
        raise CatuvacError(unknown("corpus", config.corpus, CORPORA))
    corpus = CORPORA[config.corpus]
    try:
        if not corpus.needs_root:
            table = corpus.index(config, None)
        elif data_root is None:
            raise CatuvacError(f"corpus {corpus.name!r} needs its recordings: give --data-root DIR")
        elif not data_root.is_dir():
            raise CatuvacError(f"--data-root {data_root} is not a folder: give the one with the recordings")
        else:
            table = corpus.index(config, data_root.resolve())
    except UnicodeEncodeError as error:
        raise CatuvacError(f"the name of --data-root {data_root} is not UTF-8: rename that folder") from error
    except OSError as error:
        raise CatuvacError(
            f"cannot read {error.filename or data_root}: {error.strerror or error}; fix that, or give another "
            "--data-root"
        ) from error
    return _draw(table, config) if config.limit else table


def _draw(table: ClipTable, config: CorpusConfig) -> ClipTable:
    """Draws `config.limit` of the clips, in the table's order; a remainder goes to the first labels."""
    clips, limit = table.clips, config.limit
    if limit > len(clips):
        raise CatuvacError(f"limit {limit} exceeds the {len(clips)} clips of {config.corpus}: lower it, or add clips")
    rng = np.random.default_rng(config.corpus_seed)
    drawn = f"{limit} of {len(clips)} clips, drawn with seed {config.corpus_seed}"
    if config.stratify:
        if "label" not in clips:
            raise CatuvacError(f"stratify needs labels, and these clips of {config.corpus} have none: switch it off")
        classes = clips.groupby("label").indices  # sorted
        per_label, rest = divmod(limit, len(classes))
        wanted = {label: per_label + (place < rest) for place, label in enumerate(classes)}
        short = [
            f"{label} {len(rows)} of {wanted[label]}" for label, rows in classes.items() if len(rows) < wanted[label]
        ]
        if short:
            raise CatuvacError(
                f"limit {limit} needs more clips than some labels have: {', '.join(short)}; lower it, or switch "
                "stratify off"
            )
        rows = np.concatenate([rng.choice(classes[label], count, replace=False) for label, count in wanted.items()])
        drawn += ", equally many per label" + (" to within one" if rest else "")
    else:
        rows = rng.choice(len(clips), limit, replace=False)
    return ClipTable(clips.iloc[np.sort(rows)].reset_index(drop=True), f"{drawn}; from {table.note}")
