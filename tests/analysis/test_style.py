"""A figure becomes a small SVG whose points lead to trials."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from analysis.figures.style import MANY, canvas, link, svg

A = "{http://www.w3.org/2000/svg}a"
TITLE = "{http://www.w3.org/2000/svg}title"


def linked(n: int, **style: object) -> str:
    """A scatter of n trials, of which the page's table holds all but the last."""
    with canvas() as (figure, axes):
        at = np.linspace(0.1234, 0.9876, n)
        link(axes.scatter(at, at, rasterized=n > MANY, **style), range(n))
        axes.set_xticks([0.125], ["0.125"])
    return svg(figure, "a < b", "f1", {row: f"t{row}: β < {row}" for row in range(n - 1)})


@pytest.mark.parametrize("n", [2, 3, 40])
def test_every_point_leads_to_its_trial_and_names_it(n: int) -> None:
    drawing = ElementTree.fromstring(linked(n))
    points = [(point.get("href"), point.findtext(TITLE)) for point in drawing.iter(A)]
    assert points == [*((f"#trial-{row}", f"t{row}: β < {row}") for row in range(n - 1)), (None, None)]
    assert all(len(point) >= 1 for point in drawing.iter(A))  # each holds its mark
    assert drawing.get("role") == "group"


def test_points_lie_where_they_are_drawn_to_a_hundredth_and_labels_keep_their_digits() -> None:
    drawing = linked(40)
    xs = np.array([float(x) for x in re.findall(r'</title><use [^>]*\bx="([\d.]+)"', drawing)])
    assert len(xs) == 39
    assert np.allclose(np.diff(xs), np.diff(xs).mean(), atol=0.011)
    assert "0.125<" in drawing


def test_more_points_than_many_are_a_picture() -> None:
    drawing = linked(MANY + 1)
    assert "<a" not in drawing
    assert "data:image/png" in drawing
    assert 'role="img"' in drawing


def test_a_point_takes_few_bytes() -> None:
    assert (len(linked(440)) - len(linked(40))) / 400 < 130


def test_ids_begin_with_the_name_and_references_find_them() -> None:
    drawing = linked(5)
    ids = re.findall(r'\bid="(.*?)"', drawing)
    assert len(ids) == len(set(ids))
    assert all(each.startswith("f1-") for each in ids)
    references = re.findall(r'(?:url\(#|use href="#)([^")]+)', drawing)
    assert set(references) <= set(ids)
