"""Draws clips with their views."""

from __future__ import annotations

from matplotlib import rc_context
from matplotlib.figure import Figure

from analysis.figures.clusters import LETTERS, PICTURE
from analysis.figures.style import STYLE
from analysis.questions.views import Examples
from analysis.section import Drawing

CELL = (1.25, 1.0)  # inches, of one picture


def grid(found: Examples, *, name: str) -> Drawing:
    """Draws one column per clip, with the clip on top and its views below."""
    clips, rows = found.pictures.shape[:2]
    with rc_context(STYLE):
        figure = Figure(figsize=(CELL[0] * clips + 0.4, CELL[1] * rows + 0.4), layout="constrained")
        cells = figure.subplots(rows, clips, sharex=True, sharey=True, squeeze=False)
        for column, title in enumerate(found.titles):
            for row, axes in enumerate(cells[:, column]):
                picture = found.pictures[column, row]
                axes.imshow(picture.T, origin="lower", aspect="auto", cmap=PICTURE, vmin=0, vmax=1)
                axes.grid(False)
                axes.set_xticks([])
                axes.set_yticks([])
            cells[0, column].set_title(title[:LETTERS].replace("$", r"\$"), fontsize=10)
        cells[0, 0].set_ylabel("clip")
        for row in range(1, rows):
            cells[row, 0].set_ylabel(f"view {row}")
    alt = f"Spectrograms of {clips} clips ({', '.join(found.titles)}), each above {rows - 1} views of it."
    return Drawing(name, figure, alt)
