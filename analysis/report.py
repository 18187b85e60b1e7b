"""A study's report: one self-contained page, the numbers it quotes as JSON, and the figures for a paper.

Run: python -m analysis.report results/NAME [results/OTHER …]   (or: catuvac report)
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from rich.console import Console
from rich.progress import track

from analysis.figures.style import MANY, TRIAL, save, svg
from analysis.glossary import explained, meaning, used
from analysis.page import render
from analysis.questions.branches import Partitions, read_partitions
from analysis.questions.branches import panels as branch_panels
from analysis.questions.effects import Plan, read_plan, varies_temperature
from analysis.questions.selection import select
from analysis.questions.trap import of_trained
from analysis.section import Clip, Drawing, Group, Section, Statement
from analysis.sections import (
    branches,
    clusters,
    collapse,
    confirm,
    dynamics,
    effects,
    importance,
    overview,
    selection,
    simplex,
    sizes,
    temperature,
    tradeoff,
    trap,
    views,
)
from analysis.table import TrialTable, constant_settings, number, settings_in_words, trial_table
from analysis.trials import Study, load_all, study_name
from catuvac import artifacts, io
from catuvac.errors import CatuvacError, guarded, printable
from catuvac.experiments.base import CHECKPOINTS, DESIGN
from catuvac.results import TRIALS

if TYPE_CHECKING:
    from catuvac.trained import Trained

Format = Literal["pdf", "png", "none"]

REPORT = "report.html"
ANSWER = "answer.json"
FIGURES = "figures"
WAIT = 120.0  # s to wait for another process that writes a report into the same folder
SHOWN = 200  # table rows that are HTML in the page; a script renders further rows from JSON
MOST = 3000  # most rows in the page; a larger study shows the trials with the highest objective
SHARPENED = 3  # trained models whose probabilities are sharpened: the null of the Silhouette trap
PACKAGES = ("catuvac", "numpy", "scipy", "scikit-learn", "optuna", "matplotlib", "torch", "ray")


@dataclass(frozen=True)
class ReportInputs:
    """The inputs of all sections.

    Attributes:
        study: the tables of all folders.
        plans: what each study fixed beforehand, by study name.
        partitions: the stored clusters of branches, by study and trial.
        models: trained models to show, the best first, at most `SHARPENED`.
        no_models: why there are no models; "" if there are any.
    """

    study: Study
    plans: Mapping[str, Plan]
    partitions: Partitions
    models: Sequence[Trained]
    no_models: str


def _opening(inputs: ReportInputs) -> Section | None:
    """Answers what the study is about: confirm runs without a study, sizes if they alone vary, else the temperature.

    Returns None for a study that has only branches, whose own section then opens the page.
    """
    if _confirms_alone(inputs):
        return confirm.section(inputs.study, inputs.plans)
    if not inputs.study.panels() and branch_panels(inputs.study, inputs.plans, inputs.partitions):
        return None
    of_sizes = None if varies_temperature(inputs.study) else sizes.section(inputs.study, inputs.plans)
    return of_sizes or effects.section(inputs.study, inputs.plans)


def _confirms_alone(inputs: ReportInputs) -> bool:
    return set(inputs.study.trials["arm"]) == {"confirm"}


def _sizes(inputs: ReportInputs) -> Section | None:
    """Returns None if the sizes have opened the page."""
    return sizes.section(inputs.study, inputs.plans) if varies_temperature(inputs.study) else None


# Sections in page order. Those that are None are left out, and the first of the others opens the page.
SECTIONS: tuple[Callable[[ReportInputs], Section | None], ...] = (
    _opening,
    lambda inputs: branches.section(inputs.study, inputs.plans, inputs.partitions),
    lambda inputs: overview.section(inputs.study),
    lambda inputs: temperature.section(inputs.study),
    lambda inputs: importance.section(inputs.study),
    lambda inputs: tradeoff.section(inputs.study),
    _sizes,
    lambda inputs: trap.section(inputs.study, [of_trained(model) for model in inputs.models]),
    lambda inputs: dynamics.section(inputs.study),
    lambda inputs: collapse.section(inputs.study),
    lambda inputs: None if _confirms_alone(inputs) else confirm.section(inputs.study, inputs.plans),
    lambda inputs: selection.section(inputs.study),
    lambda inputs: clusters.section(inputs.models[0]) if inputs.models else clusters.absent(inputs.no_models),
    lambda inputs: views.section(inputs.models[0]) if inputs.models else None,
    lambda _: simplex.section(),
)


@dataclass(frozen=True)
class Provenance:
    """How the studies were run, and where the page was written."""

    commands: dict[str, str]  # by study; "not recorded" if unknown
    machines: dict[str, str]  # of the drivers, by study; likewise
    revisions: str
    environment: str
    settings: dict[str, Any]  # those that all trials share


def build(
    *folders: Path, out: Path | None = None, run: Path | None = None, command: str = "", figures: Format = "pdf"
) -> Path:
    """Writes report.html, answer.json and figures/*.pdf or *.png.

    Args:
        folders: study folders, each with `trials.parquet` and, if any trial was evaluated, `history.parquet`.
        out: the folder to write to; None: the folder of the first study.
        run: the folder of a `catuvac train` run whose clusters are shown; None: the best trial with a checkpoint.
        command: the command line that ran the first study; "": as recorded in `study.json`.
        figures: format of separate figures for papers and slides, "pdf" or "png"; "none" leaves them out.

    Returns:
        The path of the page.

    Raises:
        CatuvacError: a folder does not exist, a study is given twice, or a run cannot be opened.
    """
    study = load_all(folders)
    for problem in study.problems:
        print(printable(f"warning: {problem}"), file=sys.stderr)
    named = {study_name(folder): folder for folder in folders}
    inputs = _inputs(study, named, run)
    made = (part(inputs) for part in track(SECTIONS, "report", console=Console(stderr=True), transient=True))
    sections = [section for section in made if section is not None]
    out = out or folders[0]
    provenance = _provenance(study, named, command)
    quoted = answer(sections, provenance)
    numbers = json.dumps(quoted, indent=2, ensure_ascii=False, default=lambda number: number.item()) + "\n"
    tables = [os.path.relpath(folder / TRIALS, out) for folder in folders if (folder / TRIALS).exists()]
    page = _page(study, sections, provenance, tables)
    out.mkdir(parents=True, exist_ok=True)
    busy = f"another process has been writing to {out} for over {WAIT:.0f} s; wait for it, or give another --out"
    with io.exclusive(out / ".report.lock", busy=busy, wait=WAIT):  # keeps page, numbers and figures consistent
        artifacts.remove_leftovers(out / FIGURES)
        io.write_text(out / ANSWER, numbers)
        io.write_text(out / REPORT, page)
        if figures != "none":
            _save_figures(sections, out / FIGURES, figures)
    return out / REPORT


def _inputs(study: Study, folders: Mapping[str, Path], run: Path | None) -> ReportInputs:
    models, why = _models(list(folders.values()), run)
    partitions = {key: clusters for folder in folders.values() for key, clusters in read_partitions(folder).items()}
    plans = {name: read_plan(folder) for name, folder in folders.items()}
    return ReportInputs(study, plans, partitions, models, why)


def _models(folders: Sequence[Path], run: Path | None) -> tuple[list[Trained], str]:
    """Opens the trained models of one study to show, the best first; if there are none, states why."""
    if run is None and not any((folder / CHECKPOINTS).is_dir() for folder in folders):
        return [], "no trial has left a checkpoint"
    from catuvac import trained  # imports torch, which takes seconds and is not needed for tables

    if run is not None:
        return [trained.open_run(run)], ""
    for folder in folders:
        try:
            if best := trained.ranked(folder)[:SHARPENED]:
                return [trained.open_trial(folder, number) for number in best], ""
            why = "no complete trial has left a checkpoint"
        except CatuvacError as error:
            why = str(error)
    return [], why


def answer(sections: Sequence[Section], provenance: Provenance) -> dict[str, Any]:
    """Returns the content of `answer.json`: every statement of the report with its numbers, by name."""
    statements = {one.name: {"text": str(one), **one.values} for part in sections for one in part.statements}
    run = {
        "commands": provenance.commands,
        "machines": provenance.machines,
        "revision": provenance.revisions,
        "environment": provenance.environment,
    }
    return {"run": run, "headline": [one.name for one in headline(sections)], "statements": statements}


def headline(sections: Sequence[Section]) -> list[Statement]:
    """Returns the sentences that open the page: the headline of the first section, in its order."""
    by_name = {statement.name: statement for statement in sections[0].statements}
    return [by_name[name] for name in sections[0].headline]


def _provenance(study: Study, folders: Mapping[str, Path], command: str) -> Provenance:
    commands, machines = (
        {name: _recorded(folder, key) for name, folder in folders.items()} for key in ("command", "machine")
    )
    if command:
        commands[next(iter(folders))] = command
    versions = ", ".join(f"{name} {version}" for name in PACKAGES if (version := _version(name)))
    here = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores, Python {platform.python_version()}"
    revisions = ", ".join(study.trials["revision"].dropna().unique())
    return Provenance(commands, machines, revisions or "not recorded", f"{here}; {versions}", constant_settings(study))


def _recorded(folder: Path, key: str) -> str:
    """Reads how a study was started from its study.json."""
    path = folder / DESIGN
    value = artifacts.read_json(path, {}).get(key) if path.exists() else None
    return str(value or "not recorded")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _page(study: Study, sections: Sequence[Section], provenance: Provenance, tables: Sequence[str]) -> str:
    table = trial_table(study, MOST)
    words = settings_in_words(study)
    trials = {row: words[row] for row in table.rows}
    names = {drawing.name: f"f{i}" for i, drawing in enumerate(_drawings(sections))}  # short, as each point repeats it
    scopes: list[set[str]] = []  # each part of the page explains a term again

    def scope() -> set[str]:
        scopes.append(set())
        return scopes[-1]

    filters: dict[str, Callable[..., str]] = {
        "number": number,
        "svg": lambda drawing: svg(drawing.figure, drawing.alt, names[drawing.name], trials),
        "narrow": lambda drawing: svg(drawing.narrow, drawing.alt, f"{names[drawing.name]}n", trials),
        "wav": _wav,
        "explain": lambda text, known: explained(str(text), known),
        "meaning": meaning,
    }
    chosen = {best["trial_id"] for panel in study.panels().values() if (best := select(panel))}
    content = {
        "name": study.name,
        "sections": sections,
        "headline": headline(sections),
        "table": TrialTable(table.titles, dict(list(table.rows.items())[:SHOWN])),
        "n_rows": len(table.rows),
        "n_trials": len(study.trials),
        "tables": tables,
        "anchor": TRIAL,
        "many": MANY,
        "scope": scope,
        "terms": lambda: used(set().union(*scopes)),
        "rows": _json(table) if len(table.rows) > SHOWN else "",
        "best": chosen,
        "provenance": provenance,
        "started": f"{study.trials['started_at'].min()[:16].replace('T', ' ')} UTC" if len(study.trials) else "",
        "kind": lambda part: type(part).__name__,
    }
    return render(REPORT, content, filters)


def _json(table: TrialTable) -> str:
    """Encodes each row's number and cells ([text, key], or only the text if both are equal), safe inside a script."""
    rows = [
        [number, [cell.text if cell.text == cell.key else [cell.text, cell.key] for cell in row]]
        for number, row in table.rows.items()
    ]
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _wav(clip: Clip) -> str:
    return base64.b64encode(clip.wav).decode()


def _drawings(sections: Sequence[Section]) -> list[Drawing]:
    groups = [part for section in sections for part in section.parts if isinstance(part, Group)]
    return [drawing for group in groups for drawing in group.drawings]


def _save_figures(sections: Sequence[Section], folder: Path, kind: Format) -> None:
    """Writes every drawing and removes those of an earlier report that are not in this one."""
    folder.mkdir(exist_ok=True)
    drawings = _drawings(sections)
    for old in set(folder.glob(f"*.{kind}")) - {folder / f"{drawing.name}.{kind}" for drawing in drawings}:
        old.unlink()
    for drawing in track(drawings, "figures", console=Console(stderr=True), transient=True):
        save(drawing.figure, folder / f"{drawing.name}.{kind}")


def main() -> int:
    """Builds the report from the command line."""
    parser = argparse.ArgumentParser(prog="python -m analysis.report", description="Build a study's report.")
    parser.add_argument("folders", nargs="+", type=Path, help="results folders, such as results/NAME")
    parser.add_argument("--out", type=Path, help="folder to write to; default: the folder of the first study")
    shown = "folder of a `catuvac train` run whose clusters to show; default: the best trial with a checkpoint"
    parser.add_argument("--trained", dest="run", type=Path, help=shown)
    parser.add_argument("--command", default="", help="the command line that ran the study, if study.json has none")
    kinds = "format of the figures for papers in figures/; default: pdf"
    parser.add_argument("--figures", choices=get_args(Format), default="pdf", help=kinds)
    options = vars(parser.parse_args())
    return guarded(lambda: print(build(*options.pop("folders"), **options)))


if __name__ == "__main__":
    sys.exit(main())
