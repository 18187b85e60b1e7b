"""Archives studies in the repository: the inputs of their reports, without checkpoints and without local paths.

    python studies/record.py results/fsdd-main results/fsdd-main-confirm

It writes OUT/NAME/ with study.json, the tables and the partitions of branches, small enough to commit.
`make report` rebuilds every recorded page from them.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from catuvac import artifacts, results
from catuvac.errors import CatuvacError, guarded
from catuvac.experiments.base import DESIGN, PARTITIONS
from catuvac.io import expand_home

MOST_BYTES = 1 << 20  # of a study: larger ones do not belong in a repository
# Left out of study.json: paths of the features, the bucket, and the original's checksum.
LEFT_OUT = ("features", "features_by_hash", "split_features", "remote", "seal")
PLACES = ("--storage", "--cache-dir")  # flags that set only where a study and its features are


@dataclass(kw_only=True)
class Record:
    """Copy studies into a folder of the repository."""

    studies: tyro.conf.Positional[tuple[Path, ...]]
    """folders of finished studies, results/NAME"""
    out: Path = field(default_factory=lambda: Path(__file__).parent / "recorded")
    """folder to write one folder per study to"""

    def run(self) -> None:
        if not self.studies:
            raise CatuvacError("name at least one study, results/NAME")
        for study in self.studies:
            results.read_trials(study)  # raises an error if the table is damaged
            print(f"recorded   {record(study, self.out)}")


def record(study: Path, out: Path) -> Path:
    """Copies one study; an earlier record of it is replaced.

    Raises:
        CatuvacError: it has no study.json, or is too large to commit.
    """
    design = artifacts.read_json(study / DESIGN, {})
    files = [study / name for name in (results.TRIALS, results.HISTORY) if (study / name).exists()]
    files += sorted((study / PARTITIONS).glob("*.npz"))
    size = sum(path.stat().st_size for path in files)
    if size > MOST_BYTES:
        raise CatuvacError(
            f"{study} has {size / 1e6:.1f} MB, more than the {MOST_BYTES / 1e6:.1f} MB that can be recorded; "
            "evaluate less often (--eval-every)"
        )
    name = study.resolve().name  # of "." too, which has none of its own
    target, new = out / name, out / f".{name}"
    shutil.rmtree(new, ignore_errors=True)  # of a recording that was interrupted
    new.mkdir(parents=True)
    artifacts.write_json(new / DESIGN, without_paths(design))
    for path in files:
        copy = new / path.relative_to(study)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copy)
    shutil.rmtree(target, ignore_errors=True)
    return new.rename(target)


def without_paths(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns study.json, or one of its stages, without the paths of the machine that it ran on."""
    kept = {name: value for name, value in record.items() if name not in LEFT_OUT}
    if "command" in kept:
        kept["command"] = _command(kept["command"])
    if "warm_start" in kept.get("design", {}):
        kept["design"] = kept["design"] | {"warm_start": Path(kept["design"]["warm_start"]).name}
    if "stages" in kept:
        kept["stages"] = [without_paths(stage) for stage in kept["stages"]]
    return kept


def _command(text: str) -> str:
    words = [part for word in shlex.split(text) for part in (word.split("=", 1) if word.startswith("--") else [word])]
    kept = [word for before, word in zip(["", *words], words, strict=False) if not {before, word} & set(PLACES)]
    return shlex.join(Path(word).name if word.startswith("/") else word for word in kept)


if __name__ == "__main__":
    sys.exit(guarded(lambda: tyro.cli(Record, args=expand_home(sys.argv[1:]), description=__doc__).run()))
