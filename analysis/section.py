"""What every question hands to the report: statements, drawings, tables, clips; for page, paper and `answer.json`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from matplotlib.figure import Figure

Value = float | int | str

_FIELD = re.compile(r"\{\{|\}\}|\{(\w+)(?::([^{}]*))?\}")


@dataclass(frozen=True)
class Statement:
    """A sentence whose every number is also a value of `answer.json`: it is written from them.

    Attributes:
        name: unique in a report, such as "temperature/fsdd-k10/tau_end/acc".
        text: a format string over `values`, and over nothing else that varies; other braces in it are text.
        values: finite numbers and words; a value that does not exist has no statement, but a sentence that says why.

    Raises:
        ValueError: a value that is not finite.
    """

    name: str
    text: str
    values: Mapping[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, value in self.values.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"statement {self.name!r}: {key} is {value}; say in words why it does not exist")

    def __str__(self) -> str:
        return _FIELD.sub(self._filled, self.text)

    def _filled(self, found: re.Match[str]) -> str:
        """A value in its format; what stands in braces and is no value is text, such as a column's own name."""
        if found[0] in ("{{", "}}"):
            return found[0][0]
        return format(self.values[found[1]], found[2] or "") if found[1] in self.values else found[0]


@dataclass(frozen=True)
class Drawing:
    """One picture.

    Attributes:
        name: of its files in figures/, unique in a report: "temperature-fsdd-k10-tau_end-acc".
        figure: drawn in `analysis.figures.style`.
        alt: what it shows, for those who cannot see it.
        title: a few words above it in a row of small multiples; "" for one that stands alone.
        narrow: the same for a phone, where the figure is wide; None: the figure shrinks.
    """

    name: str
    figure: Figure
    alt: str
    title: str = ""
    narrow: Figure | None = None


@dataclass(frozen=True)
class Group:
    """Drawings under one caption, which says how they were computed and on how many trials.

    Without drawings the caption says what could not be drawn, and why.
    """

    caption: str
    drawings: tuple[Drawing, ...] = ()
    wide: bool = False  # a drawing takes the page's width, not a column of it


@dataclass(frozen=True)
class Table:
    """A small table; the first column names the row."""

    caption: str
    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Clip:
    """A recording to play in the page.

    Attributes:
        title: such as "cluster 3, medoid".
        detail: such as "label seven, speaker theo".
        wav: a complete WAV file.
    """

    title: str
    detail: str
    wav: bytes


@dataclass(frozen=True)
class Section:
    """One question and its answer.

    Attributes:
        title: the question.
        statements: the answer, first.
        parts: figures, tables and clips in the order of the page; clips that follow each other share a row.
        headline: names of the statements that also open the report.
    """

    title: str
    statements: tuple[Statement, ...]
    parts: tuple[Group | Table | Clip, ...] = ()
    headline: tuple[str, ...] = ()


def slug(*words: object) -> str:
    """Words as part of a file or statement name: "FSDD, K = 10" is "fsdd-k-10"."""
    return re.sub(r"[^a-z0-9_]+", "-", "-".join(map(str, words)).lower()).strip("-")
