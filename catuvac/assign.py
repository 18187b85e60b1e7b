"""Clusters of recordings or their windows: as table rows, as labels for audio software, or as sorted folders."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from pathlib import Path
from typing import IO, Literal
from urllib.parse import quote

from rich.console import Console
from rich.progress import track
from torch import Tensor

from catuvac.data import audio
from catuvac.data.audio import AudioError
from catuvac.data.corpora.folder import READ, recordings
from catuvac.errors import CatuvacError, storable
from catuvac.inference import FittedModel
from catuvac.io import replacing
from catuvac.training.run import EVAL_BATCH

Format = Literal["csv", "jsonl", "parquet", "audacity", "raven"]
Clip = tuple[Path, float | None, float | None, Tensor | str]  # path, start and end in s, samples or why there are none
UNDECIDED = "undecided"


@dataclass(frozen=True)
class Row:
    """A model's output for one clip; if it cannot be used, `reason` states why, and all but its place is None.

    Attributes:
        path: as given.
        start, end: s within the recording; None if that cannot be read.
        cluster: the most probable cluster, 0 to K - 1.
        name: the cluster's name; "" without a name.
        probability: the cluster's probability.
        second, second_probability: the second most probable cluster.
        entropy: of q(y | x), in nats.
        undecided: whether the entropy is too high to rely on the cluster.
        reconstruction_error: in units of the features, which are in [0, 1]; high for clips unlike the training data.
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
        """The label in audio software, or the name of a folder."""
        if self.undecided:
            return UNDECIDED
        return self.name or f"cluster {self.cluster}"

    @property
    def problem(self) -> str:
        """The recording, the part of it if that is known, and the reason why it cannot be used."""
        part = "" if self.start is None else f", {self.start:g} to {self.end:g} s"
        return f"{self.path}{part}: {self.reason}"


def expand(paths: Iterable[str], *, stdin: IO[bytes]) -> list[Path]:
    """Expands folders to files; "-" reads paths from standard input, one per line or NUL-terminated.

    Raises:
        CatuvacError: a folder contains no recording, or no path is given.
    """
    files: list[Path] = []
    for path in paths:
        if path == "-":
            data = stdin.read()  # names may consist of any bytes, not only UTF-8
            lines = data.split(b"\0") if b"\0" in data else data.splitlines()
            files += [Path(os.fsdecode(line)) for line in lines if line]
        elif Path(path).is_dir():
            inside = sorted(recordings(Path(path)))
            if not inside:
                raise CatuvacError(f"no {', '.join(READ)} file below {path}")
            files += inside
        else:
            files.append(Path(path))
    if not files:
        raise CatuvacError("no recording given; name files, folders, or - for paths on standard input")
    return files


def progress(paths: Sequence[Path]) -> Iterable[Path]:
    """Returns the paths, with a progress bar on standard error while they are read."""
    return track(paths, "recordings", console=Console(stderr=True), transient=True)


def assign(
    model: FittedModel, paths: Iterable[Path], *, window: float = 0.0, hop: float = 0.0, undecided_above: float
) -> Iterator[Row]:
    """Yields one row per recording or per window.

    Args:
        model: of `catuvac.inference.load`.
        paths: recordings.
        window: s; 0 uses the first `clip_seconds` of each recording, as in training.
        hop: s between the starts of windows; 0 places them end to end.
        undecided_above: entropy in nats above which a clip counts as undecided.

    Raises:
        CatuvacError: the window is longer than a clip of the training, of which the networks see no more.
    """
    front_end = model.config.features
    if window > front_end.clip_seconds and not front_end.context:
        raise CatuvacError(
            f"the model was trained on clips of {front_end.clip_seconds:g} s and reads no more of a window: "
            f"give --window {front_end.clip_seconds:g} or less"
        )
    for chunk in _chunks(_clips(model, paths, window=window, hop=hop or window), most=EVAL_BATCH * model.window):
        prediction = model.predict([samples for *_, samples in chunk if isinstance(samples, Tensor)])
        predictions = iter(
            zip(prediction.probabilities, prediction.entropy, prediction.error, prediction.reasons, strict=True)
        )
        for path, start, end, samples in chunk:
            if isinstance(samples, str):
                yield Row(str(path), start, end, reason=samples)
                continue
            probabilities, entropy, error, reason = next(predictions)
            if reason:
                yield Row(str(path), start, end, reason=reason)
                continue
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


def _chunks(clips: Iterable[Clip], *, most: int) -> Iterator[list[Clip]]:
    """Yields lists of `EVAL_BATCH` clips, or of fewer that have `most` samples together: a clip may be long."""
    chunk: list[Clip] = []
    for clip in clips:
        chunk.append(clip)
        if len(chunk) == EVAL_BATCH or sum(len(samples) for *_, samples in chunk) >= most:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _clips(model: FittedModel, paths: Iterable[Path], *, window: float, hop: float) -> Iterator[Clip]:
    """Yields the clips of recordings, or their windows."""
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
            yield path, None, None, str(error)


def write(rows: Iterable[Row], *, out: Path | None, format: Format) -> list[Row]:
    """Writes rows, and returns them.

    A file is written completely or not at all; without `out`, CSV and JSON lines are printed as they are computed.

    Raises:
        CatuvacError: the format needs a file.
        OSError: the file cannot be written.
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
            table = [asdict(row) | {"path": storable(row.path)} for row in written]
            pd.DataFrame(table).to_parquet(temporary, index=False)
        return written
    lines = _audacity if format == "audacity" else _raven
    readable = (row for row in written if not row.reason)
    by_recording = {path: list(group) for path, group in groupby(readable, key=lambda row: row.path)}
    taken: dict[Path, int] = {}
    for path, recording_rows in by_recording.items():
        # One recording is written to one file, several to a folder, under their own names.
        target = out if len(by_recording) == 1 and out.suffix else _free(out / f"{Path(path).stem}.txt", taken=taken)
        with _output(target) as file:
            file.writelines(f"{line}\n" for line in lines(recording_rows))
    return written


def sort_into(rows: Sequence[Row], folder: Path, *, link: bool) -> Path:
    """Sorts recordings into one sub-folder per cluster, with a page to listen to them, and returns the page's path.

    Either everything appears at the end, or nothing.

    Args:
        rows: of whole recordings.
        folder: must be empty or not exist.
        link: create symbolic links instead of copies.

    Raises:
        CatuvacError: the folder is not empty, or cannot be written.
        OSError: the folder cannot be created.
    """
    check_empty(folder)
    unfinished = folder / UNFINISHED
    unfinished.mkdir(parents=True)  # fails if another process was faster
    try:
        _sort(rows, unfinished, link=link)
        for path in unfinished.iterdir():
            path.rename(folder / path.name)
    except OSError as error:
        raise CatuvacError(f"cannot write {folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder / "index.html"


def check_empty(folder: Path) -> None:
    """Raises `CatuvacError` if a folder exists and is not empty, or is a file."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise CatuvacError(f"{folder} is not empty; give another folder")


def _sort(rows: Sequence[Row], folder: Path, *, link: bool) -> None:
    from jinja2 import Environment

    clusters: dict[str, list[tuple[Row, Path]]] = {}
    taken: dict[Path, int] = {}
    for row in rows:
        if row.reason:
            continue
        target = _free(folder / row.label.replace("/", "_") / Path(row.path).name, taken=taken)
        target.parent.mkdir(parents=True, exist_ok=True)
        if link:
            target.symlink_to(Path(row.path).resolve())
        else:
            shutil.copy2(row.path, target)
        clusters.setdefault(row.label, []).append((row, target.relative_to(folder)))
    for members in clusters.values():
        members.sort(key=lambda sorted_row: -(sorted_row[0].probability or 0.0))
    template = Environment(autoescape=True).from_string(PAGE)
    text = template.render(
        clusters=sorted(clusters.items()),
        shown=SHOWN,
        count=len(taken),
        address=lambda path: quote(os.fsencode(path)),  # jinja's own filter refuses names that are not UTF-8
    )
    (folder / "index.html").write_text(text, encoding="utf-8", errors="surrogateescape")


UNFINISHED = ".unfinished"  # sub-folder of the target while recordings are being sorted
SHOWN = 8  # audio players per cluster, for its most certain clips
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{ count }} recordings in {{ clusters|length }} clusters</title>
<style>
:root { color-scheme: light dark } body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
padding: 0 1rem } figure { display: inline-block; margin: 0 1rem 1rem 0; max-width: 100% } audio { max-width: 100% }
figcaption { font-size: .85rem; overflow-wrap: anywhere; max-width: 19rem }
</style>
<h1>{{ count }} recordings in {{ clusters|length }} clusters</h1>
<p>The most certain recordings of each cluster come first; all of them are in the folders next to this page.</p>
{% for name, rows in clusters %}
<h2>{{ name }}, {{ rows|length }} recording{{ "" if rows|length == 1 else "s" }}</h2>
{% for row, path in rows[:shown] %}
<figure><audio controls preload="none" src="{{ address(path) }}"></audio>
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
    """Yields a label track: start, end, label (Audacity manual, "Importing and Exporting Labels")."""
    for row in rows:
        yield f"{row.start:.6f}\t{row.end:.6f}\t{' '.join(row.label.split())}"


def _raven(rows: Iterable[Row]) -> Iterator[str]:
    """Yields the lines of a selection table of Raven Pro."""
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
    """Yields standard output, or a file that appears once it is complete."""
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
    """Does the same as `catuvac.io.replacing`, but creates the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        yield temporary


def _free(path: Path, *, taken: dict[Path, int]) -> Path:
    """Returns the path, with a number before its suffix if another recording has taken it, and takes it.

    Args:
        path: as the recording's name has it.
        taken: the number that each taken path has reached.
    """
    free = path
    while free in taken:
        taken[path] += 1
        free = path.with_stem(f"{path.stem}-{taken[path]}")
    taken[free] = 1
    return free
