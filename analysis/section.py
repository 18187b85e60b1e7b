"""The building blocks of a section, for page, paper and `answer.json`: statements, drawings, tables and clips."""

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
    """A sentence that is formatted from its values, so that each number in it is also in `answer.json`.

    Attributes:
        name: unique in a report, such as "temperature/fsdd-k10/tau_end/acc".
        text: a format string over `values`; everything that varies is a field, and any other braces are plain text.
        values: finite numbers and strings. Where a value does not exist, the sentence states the reason instead.

    Raises:
        ValueError: a value is not finite.
    """

    name: str
    text: str
    values: Mapping[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, value in self.values.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"statement {self.name!r}: {key} is {value}; state in words why it does not exist")

    def __str__(self) -> str:
        return _FIELD.sub(self._filled, self.text)

    def _filled(self, match: re.Match[str]) -> str:
        """Formats one field; braces around anything but the name of a value are text, as in the name of a column."""
        if match[0] in ("{{", "}}"):
            return match[0][0]
        return format(self.values[match[1]], match[2] or "") if match[1] in self.values else match[0]


@dataclass(frozen=True)
class Drawing:
    """One figure.

    Attributes:
        name: stem of its files in figures/, unique in a report: "temperature-fsdd-k10-tau_end-acc".
        figure: drawn in the style of `analysis.figures.style`.
        alt: text alternative that describes what it shows.
        title: a short title above it in a row of small multiples; "" for a figure on its own.
        narrow: a version for phone screens, if the figure is wide; None: the figure is scaled down.
    """

    name: str
    figure: Figure
    alt: str
    title: str = ""
    narrow: Figure | None = None


@dataclass(frozen=True)
class Group:
    """Drawings under one caption, which states how they were computed and on how many trials.

    Without drawings, the caption states what could not be drawn, and why.
    """

    caption: str
    drawings: tuple[Drawing, ...] = ()
    wide: bool = False  # each drawing spans the page, not one column


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
        statements: the answer, shown first.
        parts: figures, tables and clips in page order; consecutive clips share a row.
        headline: names of the statements that also open the report.
    """

    title: str
    statements: tuple[Statement, ...]
    parts: tuple[Group | Table | Clip, ...] = ()
    headline: tuple[str, ...] = ()


def slug(*words: object) -> str:
    """Joins words into part of a file or statement name: "FSDD, K = 10" becomes "fsdd-k-10"."""
    return re.sub(r"[^a-z0-9_]+", "-", "-".join(map(str, words)).lower()).strip("-")
