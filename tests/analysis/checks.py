"""What every section must keep, whatever its question: no text that holds a NaN, and drawings that can be drawn."""

from __future__ import annotations

import re

from analysis.figures.style import svg
from analysis.section import Drawing, Group, Section, Table


def texts(found: Section) -> dict[str, str]:
    """Every statement, and every text of the section free of NaN."""
    said = {statement.name: str(statement) for statement in found.statements}
    captions = [part.caption for part in found.parts if isinstance(part, Group | Table)]
    cells = [cell for part in found.parts if isinstance(part, Table) for row in part.rows for cell in row]
    drawn = [d for part in found.parts if isinstance(part, Group) for d in part.drawings]
    everything = [*said.values(), *captions, *cells, *(drawing.alt for drawing in drawn)]
    assert not [text for text in everything if any(word in text.split() for word in ("nan", "None", "inf"))]
    assert len(said) == len(found.statements)
    assert set(found.headline) <= set(said)
    return said


def rendered(found: Section) -> int:
    """How many drawings there are, each of which becomes an SVG."""
    drawn = [d for part in found.parts if isinstance(part, Group) for d in part.drawings]
    assert all("<svg" in svg(drawing.figure, drawing.alt) for drawing in drawn)
    return len(drawn)


def told(section: Section) -> list[Drawing]:
    """The drawings, once every text is known to hold nothing that is no number."""
    words = [str(each) for each in section.statements]
    groups = [part for part in section.parts if isinstance(part, Group)]
    words += [group.caption for group in groups] + [one.alt for group in groups for one in group.drawings]
    assert not [text for text in words if re.search(r"\b(nan|NaN|None|inf)\b", text)]
    return [one for group in groups for one in group.drawings]


def drawn(section: Section) -> list[str]:
    return [svg(one.figure, one.alt) for one in told(section)]
