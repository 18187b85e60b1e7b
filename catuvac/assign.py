"""A cluster for every recording, or for every window of long ones: as rows, for listening programs, as folders."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from itertools import groupby, islice
from pathlib import Path
from typing import IO, Literal

from rich.console import Console
from rich.progress import track
from torch import Tensor

from catuvac.data import audio
from catuvac.data.audio import AudioError
from catuvac.data.corpora.folder import READ, recordings
from catuvac.errors import CatuvacError
from catuvac.inference import FittedModel
from catuvac.io import replacing
from catuvac.training.run import EVAL_BATCH

Format = Literal["csv", "jsonl", "parquet", "audacity", "raven"]
UNDECIDED = "undecided"


@dataclass(frozen=True)
class Row:
    """What a model says of one clip; of one that cannot be read, `reason` says why, and the rest is None.

    Attributes:
        path: as it was given.
        start, end: s within the recording.
        cluster: 0 to K - 1, the most probable one.
        name: what somebody calls it; "" without a name.
        probability: of it.
        second, second_probability: the next most probable one.
        entropy: of q(y | x), in nats.
        undecided: whether the entropy is too high to rely on the cluster.
        reconstruction_error: in units of the features, which lie in [0, 1]; high for what is unlike the training data.
    """

    path: str
    start: float | None = None
    end: float | None = None
    cluster: int | None = None
    name: str = ""
    probability: float | None = None
    second: int | None = None
    second_probability: float | None = None
    entropy: float | None = None
    undecided: bool | None = None
    reconstruction_error: float | None = None
    reason: str = ""

    @property
    def label(self) -> str:
        """For a listening program or a folder."""
        if self.undecided:
            return UNDECIDED
        return self.name or f"cluster {self.cluster}"


def expand(paths: Iterable[str], *, stdin: IO[str]) -> list[Path]:
    """Files and folders to files; "-" reads paths from standard input, a line each, or ended by NUL where there is one.

    Raises:
        CatuvacError: a folder without a recording, or nothing at all.
    """
    found: list[Path] = []
    for path in paths:
        if path == "-":
            text = stdin.read()
            found += [Path(line) for line in text.split("\0" if "\0" in text else "\n") if line]
        elif Path(path).is_dir():
            inside = sorted(recordings(Path(path)))
            if not inside:
                raise CatuvacError(f"no {', '.join(READ)} file below {path}")
            found += inside
        else:
            found.append(Path(path))
    if not found:
        raise CatuvacError("no recording given; name files, folders, or - for paths on standard input")
    return found


def progress(paths: Sequence[Path]) -> Iterable[Path]:
    """The paths, with a bar on standard error while they are read."""
    return track(paths, "recordings", console=Console(stderr=True), transient=True)


def assign(
    model: FittedModel, paths: Iterable[Path], *, window: float = 0.0, hop: float = 0.0, undecided_above: float
) -> Iterator[Row]:
    """One row per recording, or per window.

    Args:
        model: of `catuvac.inference.load`.
        paths: recordings.
        window: s; 0 takes the first `clip_seconds` of each recording, as the training did.
        hop: s between windows; 0 puts them end to end.
        undecided_above: entropy in nats.
    """
    clips = _clips(model, paths, window=window, hop=hop or window)
    while chunk := list(islice(clips, EVAL_BATCH)):
        found = model.predict([samples for *_, samples in chunk if isinstance(samples, Tensor)])
        predictions = iter(zip(found.probabilities, found.entropy, found.error, strict=True))
        for path, start, end, samples in chunk:
            if isinstance(samples, str):
                yield Row(str(path), reason=samples)
                continue
            probabilities, entropy, error = next(predictions)
            second, first = (int(cluster) for cluster in probabilities.argsort(kind="stable")[-2:])
            yield Row(
                path=str(path),
                start=start,
                end=end,
                cluster=first,
                name=model.names[first],
                probability=float(probabilities[first]),
                second=second,
                second_probability=float(probabilities[second]),
                entropy=float(entropy),
                undecided=bool(entropy > undecided_above),
                reconstruction_error=float(error),
            )


def _clips(
    model: FittedModel, paths: Iterable[Path], *, window: float, hop: float
) -> Iterator[tuple[Path, float, float, Tensor | str]]:
    """Path, start and end in s, and the samples, or why there are none."""
    front_end = model.config.features
    rate = front_end.sample_rate
    for path in paths:
        try:
            if window:
                for start, end, samples in audio.windows(path, sample_rate=rate, seconds=window, hop=hop):
                    yield path, start, end, samples
            else:
                samples = audio.load(path, sample_rate=rate, seconds=front_end.clip_seconds)
                yield path, 0.0, len(samples) / rate, samples
        except AudioError as error:
            yield path, 0.0, 0.0, str(error)


def write(rows: Iterable[Row], *, out: Path | None, format: Format) -> list[Row]:
    """Writes rows, and returns them.

    A file appears whole or not at all; without `out`, CSV and JSON lines go to standard output as they come.

    Raises:
        CatuvacError: a format that needs a file, or a file that cannot be written.
    """
    if format in ("csv", "jsonl"):
        with _output(out) as file:
            return list(_csv(rows, file) if format == "csv" else _jsonl(rows, file))
    if out is None:
        raise CatuvacError(f"format {format} needs --out")
    written = list(rows)
    if format == "parquet":
        import pandas as pd

        with _replacing(out) as temporary:
            pd.DataFrame([asdict(row) for row in written]).to_parquet(temporary, index=False)
        return written
    lines = _audacity if format == "audacity" else _raven
    by_recording = {
        path: list(own) for path, own in groupby((row for row in written if not row.reason), key=lambda row: row.path)
    }
    taken: list[Path] = []
    for path, own in by_recording.items():
        # One recording has one file; several have a folder, which keeps their names.
        target = out if len(by_recording) == 1 and out.suffix else _free(out / f"{Path(path).stem}.txt", taken=taken)
        taken.append(target)
        with _output(target) as file:
            file.writelines(f"{line}\n" for line in lines(own))
    return written


def sort_into(rows: Sequence[Row], folder: Path, *, link: bool) -> Path:
    """Puts every recording into a sub-folder of its cluster, with a page to listen to them, and returns the page.

    All of it appears at the end, or nothing.

    Args:
        rows: of whole recordings.
        folder: must be empty, or not exist.
        link: symbolic links in place of copies.

    Raises:
        CatuvacError: the folder is not empty, or cannot be written.
    """
    unfinished = folder / UNFINISHED
    try:
        folder.mkdir(parents=True, exist_ok=True)
        empty = not any(folder.iterdir())
        if empty:
            unfinished.mkdir()
    except FileExistsError:  # another process was faster, or the folder is a file
        empty = False
    except OSError as error:
        raise CatuvacError(f"cannot write {folder}: {error.strerror}") from error
    if not empty:
        raise CatuvacError(f"{folder} is not empty; give another folder")
    try:
        _sort(rows, unfinished, link=link)
        for path in unfinished.iterdir():
            path.rename(folder / path.name)
    except OSError as error:
        raise CatuvacError(f"cannot write {folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder / "index.html"


def _sort(rows: Sequence[Row], folder: Path, *, link: bool) -> None:
    from jinja2 import Environment

    clusters: dict[str, list[tuple[Row, Path]]] = {}
    taken: list[Path] = []
    for row in rows:
        if row.reason:
            continue
        target = _free(folder / row.label.replace("/", "_") / Path(row.path).name, taken=taken)
        taken.append(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        if link:
            target.symlink_to(Path(row.path).resolve())
        else:
            shutil.copy2(row.path, target)
        clusters.setdefault(row.label, []).append((row, target.relative_to(folder)))
    for each in clusters.values():
        each.sort(key=lambda sorted_row: -(sorted_row[0].probability or 0.0))
    template = Environment(autoescape=True).from_string(PAGE)
    text = template.render(clusters=sorted(clusters.items()), shown=SHOWN, count=len(taken))
    (folder / "index.html").write_text(text, encoding="utf-8", errors="surrogateescape")


UNFINISHED = ".unfinished"  # in a folder that recordings are being sorted into
SHOWN = 8  # players per cluster, of its most certain clips
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{ count }} recordings in {{ clusters|length }} clusters</title>
<style>
:root { color-scheme: light dark } body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
padding: 0 1rem } figure { display: inline-block; margin: 0 1rem 1rem 0; max-width: 100% } audio { max-width: 100% }
figcaption { font-size: .85rem; overflow-wrap: anywhere; max-width: 19rem }
</style>
<h1>{{ count }} recordings in {{ clusters|length }} clusters</h1>
<p>The most certain recordings of each cluster come first; the folder beside this page has all of them.</p>
{% for name, rows in clusters %}
<h2>{{ name }}, {{ rows|length }} recording{{ "" if rows|length == 1 else "s" }}</h2>
{% for row, path in rows[:shown] %}
<figure><audio controls preload="none" src="{{ path.as_posix()|urlencode }}"></audio>
<figcaption>{{ path.name }}, probability {{ "%.2f"|format(row.probability) }}</figcaption></figure>
{% endfor %}{% endfor %}
</html>
"""


def _csv(rows: Iterable[Row], file: IO[str]) -> Iterator[Row]:
    writer = csv.DictWriter(file, [field.name for field in fields(Row)])
    writer.writeheader()
    for row in rows:
        writer.writerow(asdict(row))
        yield row


def _jsonl(rows: Iterable[Row], file: IO[str]) -> Iterator[Row]:
    for row in rows:
        file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
        yield row


def _audacity(rows: Iterable[Row]) -> Iterator[str]:
    """A label track: start, end, label (Audacity manual, "Importing and Exporting Labels")."""
    for row in rows:
        yield f"{row.start:.6f}\t{row.end:.6f}\t{' '.join(row.label.split())}"


def _raven(rows: Iterable[Row]) -> Iterator[str]:
    """A selection table of Raven Pro."""
    yield "\t".join(
        ("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Cluster", "Probability", "Entropy (nats)")
    )
    for number, row in enumerate(rows, start=1):
        numbers = (
            f"{row.start:.6f}\t{row.end:.6f}\t{' '.join(row.label.split())}\t{row.probability:.4f}\t{row.entropy:.4f}"
        )
        yield f"{number}\tSpectrogram 1\t1\t{numbers}"


@contextmanager
def _output(path: Path | None) -> Iterator[IO[str]]:
    """Standard output, or a file that appears once it is whole."""
    if path is None:
        yield sys.stdout
        return
    with (
        _replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        yield file


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """As `catuvac.io.replacing`, with the folder made and one line for what goes wrong."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise CatuvacError(f"cannot write {path}: {error.strerror}") from error


def _free(path: Path, *, taken: Sequence[Path]) -> Path:
    """The path, with a number before its suffix where another recording of that name has it."""
    number, free = 1, path
    while free in taken:
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free
