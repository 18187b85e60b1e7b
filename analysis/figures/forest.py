"""Draws the answer in one figure: every corpus, both temperatures, four outcomes, the margin shaded."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from analysis.columns import title
from analysis.figures.style import BLUE, GREEN, GREY, INK, ORANGE, STYLE
from analysis.questions.effects import Effect, Panel, by_short_name
from analysis.section import Drawing

COLOURS = {"matters": ORANGE, "negligible": GREEN, "not decided": GREY}
MARKERS = {"matters": "D", "negligible": "o", "not decided": "s"}  # so that colour alone does not show the verdict
COLUMN, ROW = 2.3, 0.34  # inches
PHONE = 4.6  # inches, width of the upright version


def forest(panels: Sequence[Panel], *, name: str) -> Drawing:
    """Draws one row per corpus and temperature and one column per outcome, with intervals and shaded margins."""
    return Drawing(name, _figure(panels, upright=False), _alt(panels), narrow=_figure(panels, upright=True))


def _figure(panels: Sequence[Panel], *, upright: bool) -> Figure:
    """Draws the outcomes side by side or, if upright, one below the other."""
    # Outcomes without any estimate, such as clusters used if all trials use all clusters, have no column.
    outcomes = list(dict.fromkeys(effect.outcome for panel in panels for effect in panel.effects if effect.found))
    rows = [(panel, factor) for panel in panels for factor in dict.fromkeys(e.factor for e in panel.effects)]
    corpora = {panel.name: corpus for corpus, panel in by_short_name(panels).items()} if len(panels) > 1 else {}
    with rc_context(STYLE):
        wide, high = (1, len(outcomes)) if upright else (len(outcomes), 1)
        size = (PHONE if upright else 1.6 + COLUMN * wide, 0.5 + (0.7 + ROW * len(rows)) * high)
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1))  # separates tick labels of neighbours
        cells = figure.subplots(high, wide, sharey=True, squeeze=False).ravel()
        for axes, outcome in zip(cells, outcomes, strict=True):
            for place, (panel, factor) in enumerate(rows):
                effect = next((e for e in panel.effects if (e.factor, e.outcome) == (factor, outcome)), None)
                if effect is None or effect.found is None:  # corpora without labels have another primary outcome
                    continue
                contrast = effect.found.contrast
                axes.barh(place, 2 * contrast.margin, left=-contrast.margin, height=0.9, color=BLUE, alpha=0.15, lw=0)
                axes.errorbar(
                    contrast.value,
                    place,
                    xerr=[[contrast.value - contrast.low], [contrast.high - contrast.value]],
                    fmt=MARKERS[contrast.verdict],
                    color=COLOURS[contrast.verdict],
                    capsize=3,
                    markersize=7 if effect.primary else 5,
                )
            axes.use_sticky_edges = False  # the axis extends beyond the shade
            axes.axvline(0, color=INK, linewidth=0.8)
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.set_xlabel(title(outcome))
        cells[0].set_yticks(range(len(rows)), [_label(factor, corpora.get(panel.name, "")) for panel, factor in rows])
        cells[0].set_ylim(len(rows) - 0.4, -0.6)
        for verdict, marker in MARKERS.items():
            cells[0].plot([], [], linestyle="", marker=marker, color=COLOURS[verdict], label=verdict)
        figure.legend(loc="outside upper left", ncols=3, handletextpad=0.2, columnspacing=1.0)
    return figure


def _label(factor: str, corpus: str) -> str:
    temperature = "τ_start" if factor == "tau_start" else "τ_end / τ_start"
    return f"{corpus}: {temperature}" if corpus else temperature


def _alt(panels: Sequence[Panel]) -> str:
    return "Effects with their intervals: " + "; ".join(_described(e) for p in panels for e in p.effects) + "."


def _described(effect: Effect) -> str:
    where = f"{effect.panel}, {effect.factor} on {title(effect.outcome)}"
    if effect.found is None:
        return f"{where}: no estimate"
    contrast = effect.found.contrast
    return f"{where}: {contrast.value:+.3f} ({contrast.low:+.3f} to {contrast.high:+.3f}), {contrast.verdict}"
