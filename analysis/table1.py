"""Table I: every method on every corpus, mean and interval over seeds, next to the paper's numbers.

Run: python -m analysis.table1 results/NAME
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import t as student_t

from analysis.page import render
from analysis.paper import NOT_STATED, TABLE_1
from analysis.table import DASH
from analysis.trials import load_all, splits, values
from catuvac.artifacts import read_json
from catuvac.errors import CatuvacError, guarded
from catuvac.evaluation.metrics import DISPERSION_CEILING, FLOORS, INTERNAL_SCORES, LABEL_SCORES, SPACES
from catuvac.experiments.base import DESIGN
from catuvac.io import write as write_file

METHODS = {
    "labels": "Labels",
    "kmeans": "K-means",
    "pca_gmm": "PCA + GMM",
    "kmeans_embedding": "K-means on an embedding",
    "pca_gmm_embedding": "PCA + GMM on an embedding",
    "dcn": "DCN",
    "idec": "IDEC",
    "dec": "DEC",
    "vade": "VaDE",
    "uvac": "UVAC",
    "cat_uvac_paper": "Cat. UVAC, paper's protocol",
    "cat_uvac": "Cat. UVAC",
}
CORPORA = {
    "synthetic": "Synthetic",
    "fsdd": "FSDD",
    "arabic_digits": "Arabic digits",
    "audiomnist": "AudioMNIST",
    "tau2019": "TAU2019",
    "urbansound8k": "UrbanSound8K",
}
BLOCK = ["corpus", "n_clusters", "split"]
CELL = [*BLOCK, "method"]
CONFIDENCE = 0.95  # of the intervals; in words in READING
MARK = "†"
READING = (
    "Scores are for the test split. x, z and p are the spaces in which Silhouette, DBI and CHI are computed: the "
    "features, the representation that the method clusters, and the assignment probabilities; a method has no "
    "line for a space that it does not have. ± is the half-width of the 95 % Student-t interval over the seeds; "
    "it is missing for a single seed, and where the seed has no effect. CHI is given twice: as BCSS/WCSS, which has "
    "the magnitude of the paper's, and as computed by scikit-learn. The Silhouette trap: probabilities near 0 and 1 "
    "are compact by construction, so scores in p can be near-perfect while most clusters are empty; read them together "
    "with the clusters used in the same line, and do not compare them with other spaces. The paper does not state the "
    f"space of its scores, and gives neither AMI, ARI nor clusters used. {DASH} means that there is no value."
)


@dataclass(frozen=True)
class Line:
    """One line of a block as text; `first`: the first of its method; `paper`: with the paper's numbers."""

    cells: list[str]
    first: bool
    paper: bool


@dataclass(frozen=True)
class Block:
    """All methods on one corpus with one K and one split.

    Attributes:
        columns: titles, starting with the method.
        notes: what was run, what failed, and the meaning of the mark.
    """

    title: str
    columns: list[str]
    lines: list[Line]
    notes: list[str]


@dataclass(frozen=True)
class Page:
    """The content of every format: the facts of the run, then the blocks."""

    title: str
    command: str
    facts: list[str]
    blocks: list[Block]


def summarise(trials: pd.DataFrame) -> pd.DataFrame:
    """Computes means and intervals over the complete seeds of every method, and adds the paper's numbers.

    Args:
        trials: one row per cell (corpus, K, split, method, seed) of the arm `grid`, as `catuvac.results` stores them.

    Returns:
        One row per (corpus, n_clusters, split, method, space): complete `seeds` and `failed` ones; mean `NAME` and
        half-width `NAME_half` of the 95 % Student-t interval for acc (share), nmi, ami, ari, clusters_used,
        nmi_<nuisance>, silhouette, dbi, dispersion and chi; `bounded`, the seeds with a score of that space at its
        stated bound; `seconds`, mean wall time. A half-width is null for one seed and for labels; acc is null if K is
        not the number of classes, because a one-to-one matching then leaves clusters or classes unmatched. A method
        without a complete seed has one row, space x, without scores. `source` is measured or paper.

    Raises:
        CatuvacError: there are no cells, or two cells are of the same seed.
    """
    cells = _cells(trials)
    nuisances = _nuisances(cells, "test/")
    rows: list[dict[str, Any]] = []
    for key, group in cells.groupby(CELL):
        done = group[group["status"] == "complete"]
        method = dict(zip(CELL, key, strict=True))
        spread = method["method"] != "labels"
        method |= {"source": "measured", "seeds": len(done), "failed": len(group) - len(done)}
        method |= {"seconds": values(done, "wall_seconds").mean()}
        for name in (*LABEL_SCORES, "clusters_used", *nuisances):
            method |= _interval(name, values(done, f"test/{name}"), spread)
        for space in _spaces(done):
            row = method | {"space": space, "bounded": _bounded(done, space)}
            for name in INTERNAL_SCORES:
                row |= _interval(name, values(done, f"test/{name}_{space}"), spread)
            rows.append(row)
    grid = {(row["corpus"], row["n_clusters"]) for row in rows}
    for paper in TABLE_1:
        if (paper.corpus, paper.n_clusters) in grid:
            rows.append({**asdict(paper), "source": "paper", "space": NOT_STATED})
    rows.sort(key=lambda row: (_place(row), row["source"], row["split"], _rank(row["method"]), _rank(row["space"])))

    names = [*CELL, "space", "source", "seeds", "failed", "bounded", "seconds"]
    for name in (*LABEL_SCORES, "clusters_used", *nuisances, *INTERNAL_SCORES):
        names += [name, f"{name}_half"]
    summary = pd.DataFrame(rows, columns=names)
    text = {"corpus", "split", "method", "space", "source"}
    whole = {"n_clusters", "seeds", "failed", "bounded"}
    return summary.astype({name: "Int64" if name in whole else "Float64" for name in names if name not in text})


def blocks(trials: pd.DataFrame) -> list[Block]:
    """Formats the table, with one block per corpus, K and split; raises `CatuvacError` as `summarise` does."""
    summary = summarise(trials)
    cells = _cells(trials).groupby(BLOCK)
    measured = summary[summary["source"] == "measured"]
    made = []
    for key, rows_of_block in measured.groupby(BLOCK, sort=False):
        corpus, n_clusters, split = key
        paper = summary[
            (summary["source"] == "paper") & (summary["corpus"] == corpus) & (summary["n_clusters"] == n_clusters)
        ]
        nuisances = [name for name in _nuisances(rows_of_block) if rows_of_block[name].notna().any()]
        rows: list[dict[Any, Any]] = pd.concat([rows_of_block, paper]).to_dict("records")
        rows.sort(key=lambda row: _rank(row["method"]))  # stable, so the paper's line is the last of its method
        lines = []
        for i, row in enumerate(rows):
            first = i == 0 or row["method"] != rows[i - 1]["method"]
            lines.append(_line(row, nuisances, first=first))
        columns = ["method", "space", "ACC %", "NMI", "AMI", "ARI", "clusters used", "Silhouette", "DBI"]
        columns += ["CHI (BCSS/WCSS)", "CHI (scikit-learn)"]
        columns += [f"NMI {name.removeprefix('nmi_').replace('_', ' ')}" for name in nuisances]
        title = f"{CORPORA.get(str(corpus), corpus)}, K = {n_clusters}, split {split}"
        made.append(Block(title, columns, lines, _notes(cells.get_group(key), rows_of_block)))
    return made


def markdown(page: Page) -> str:
    """Formats the table as Markdown."""
    text = [f"# {page.title}", "", READING]
    text += ["", "```", page.command, "```"] if page.command else []
    text += ["", *(f"- {fact}" for fact in page.facts)]
    for block in page.blocks:
        text += ["", f"## {block.title}", ""]
        text += [_row(block.columns), _row(["---", "---", *["---:"] * (len(block.columns) - 2)])]
        text += [_row(line.cells) for line in block.lines]
        text += ["", *(f"- {note}" for note in block.notes)]
    return "\n".join(text) + "\n"


def latex(page: Page) -> str:
    """Formats the table for a paper, to be included with `\\input`."""
    text = [
        f"% {page.title}. A minimal document around it:",
        r"% \documentclass[a4paper,landscape]{article}",
        r"% \usepackage[T1]{fontenc}",
        r"% \usepackage[margin=15mm]{geometry}",
        r"% \usepackage{booktabs,graphicx}",
        r"% \begin{document}\input{table1}\end{document}",
        _tex(READING),
        *([f"\\par\\noindent\\texttt{{{_tex(page.command)}}}"] if page.command else []),
        *(f"\\par\\noindent {_tex(fact)}" for fact in page.facts),
    ]
    for block in page.blocks:
        text += [
            "",
            r"\begin{table}[htbp]",
            r"\centering",
            f"\\caption{{{_tex(block.title)}}}",
            r"\resizebox{\linewidth}{!}{%",
            f"\\begin{{tabular}}{{ll{'r' * (len(block.columns) - 2)}}}",
            r"\toprule",
            _tex_row(block.columns),
            r"\midrule",
            *(_tex_row(line.cells) for line in block.lines),
            r"\bottomrule",
            r"\end{tabular}}",
            *(f"\\par\\smallskip\\raggedright\\footnotesize {_tex(note)}" for note in block.notes),
            r"\end{table}",
        ]
    return "\n".join(text) + "\n"


def html(page: Page) -> str:
    """Formats the table as one self-contained page."""
    return render("table1.html", {"page": page, "reading": READING})


def write(folder: Path, *, out: Path | None = None, notes: Sequence[str] = ()) -> list[Path]:
    """Writes `table1.parquet`, `.md`, `.tex` and `.html` and returns their paths.

    Each file is replaced atomically, so it is never seen half written.

    Args:
        folder: contains the `trials.parquet` of the run, and its `study.json`, which names the command and the machine.
        out: folder to write to; None: the same one.
        notes: further lines to be shown above the table.

    Raises:
        CatuvacError: the folder or its table of trials does not exist, or a file is damaged, or there are no cells.
    """
    study, target = load_all([folder]), folder if out is None else out
    record = read_json(folder / DESIGN, {}) if (folder / DESIGN).exists() else {}
    named = {"Machine": record.get("machine", ""), "Revision": ", ".join(study.trials["revision"].dropna().unique())}
    facts = [*(f"{name}: {text}" for name, text in named.items() if text), *notes]
    page = Page(f"Table I: {study.name}", record.get("command", ""), facts, blocks(study.trials))
    writers: dict[str, Callable[[], bytes]] = {
        "table1.parquet": summarise(study.trials).to_parquet,
        "table1.md": lambda: markdown(page).encode(),
        "table1.tex": lambda: latex(page).encode(),
        "table1.html": lambda: html(page).encode(),
    }
    target.mkdir(parents=True, exist_ok=True)
    for name, writer in writers.items():
        write_file(target / name, writer())
    return [target / name for name in writers]


def _cells(trials: pd.DataFrame) -> pd.DataFrame:
    """Returns the grid's cells with their split in words, and ACC only if a one-to-one matching can be complete."""
    cells = trials[trials["arm"] == "grid"].reset_index(drop=True)
    if cells.empty:
        raise CatuvacError("no cells of Table I (arm 'grid') among the trials; give the results folder of a table1 run")
    cells["split"] = splits(cells)
    twice = cells[cells.duplicated([*CELL, "seed"], keep=False)].sort_values([*CELL, "seed"], kind="stable")
    if len(twice):
        raise CatuvacError(
            f"{' and '.join(twice['trial_id'][:2])} are the same cell (corpus, K, split, method, seed); "
            "keep runs of different settings in separate folders"
        )
    classes = values(cells, "test/n_classes")
    cells["test/acc"] = values(cells, "test/acc").where(classes.isna() | (classes == cells["n_clusters"]))
    return cells


def _interval(name: str, scores: pd.Series[float], spread: bool) -> dict[str, float | None]:
    """Returns the mean and the half-width of the Student-t interval; None if they do not exist."""
    known = scores.dropna()
    n = len(known)
    half = None
    if spread and n > 1:
        half = float(student_t.ppf((1 + CONFIDENCE) / 2, n - 1) * known.std(ddof=1) / math.sqrt(n))
    return {name: float(known.mean()) if n else None, f"{name}_half": half}


def _spaces(done: pd.DataFrame) -> list[str]:
    """Returns the scored spaces; never p without clusters used, because a collapse would then not be visible."""
    scored = [space for space in SPACES if values(done, f"test/silhouette_{space}").notna().any()]
    if values(done, "test/clusters_used").isna().any():
        scored = [space for space in scored if space != "p"]
    return scored or ["x"]


def _bounded(done: pd.DataFrame, space: str) -> int:
    """Counts seeds with an undefined score: each reason named in `metrics` sets one of these two to its bound."""
    dbi, dispersion = values(done, f"test/dbi_{space}"), values(done, f"test/dispersion_{space}")
    return int(((dbi >= FLOORS["dbi"]) | (dispersion >= DISPERSION_CEILING)).sum())


def _place(row: dict[str, Any]) -> tuple[int, str, int]:
    """Orders known corpora first and larger K first, as in the paper."""
    corpus = row["corpus"]
    known = list(CORPORA)
    return known.index(corpus) if corpus in known else len(known), corpus, -row["n_clusters"]


def _name(method: object) -> str:
    return METHODS.get(str(method), str(method))


def _nuisances(frame: pd.DataFrame, prefix: str = "") -> list[str]:
    names: list[str] = frame.columns.tolist()
    nuisances = (name.removeprefix(prefix) for name in names if name.startswith(f"{prefix}nmi_"))
    return [name for name in nuisances if not name.endswith("_half")]


def _rank(name: str) -> tuple[int, str]:
    """Orders methods and spaces; unknown names come last, alphabetically."""
    order = [*METHODS, *SPACES]
    return order.index(name) if name in order else len(order), name


def _line(row: Mapping[Any, Any], nuisances: Sequence[str], *, first: bool) -> Line:
    paper = row["source"] == "paper"
    method = _name(row["method"])
    space = row["space"] if paper or not row["bounded"] else f"{row['space']} {MARK}"

    def shown(name: str) -> str:
        return _number(row[name], row[f"{name}_half"], decimals=2 if paper else None)

    cells = [f"{method} (paper)" if paper else method, space]
    if first or paper:
        percent = [None if pd.isna(value) else 100 * value for value in (row["acc"], row["acc_half"])]
        cells += [_number(*percent, decimals=2 if paper else 1), shown("nmi"), shown("ami"), shown("ari")]
    else:
        cells += [""] * 4
    used, half = row["clusters_used"], row["clusters_used_half"]
    whole = pd.notna(used) and float(used).is_integer() and (pd.isna(half) or half == 0)
    cells.append(_number(used, half, decimals=0 if whole else 1))
    cells += [shown(name) for name in ("silhouette", "dbi", "dispersion", "chi")]
    cells += [shown(name) if first or paper else "" for name in nuisances]
    return Line(cells, first, paper)


def _number(mean: Any, half: Any, *, decimals: int | None = None) -> str:
    """Formats mean ± half-width with the same decimals; without `decimals`, with four digits of the mean."""
    if pd.isna(mean):
        return DASH
    if decimals is None:
        decimals = max(0, 3 - int(math.log10(max(1.0, abs(mean)))))
    pattern = "{:.3g}" if abs(mean) >= 1e5 else f"{{:.{decimals}f}}"
    return " ± ".join(pattern.format(value) for value in (mean, half) if pd.notna(value))


def _notes(cells: pd.DataFrame, summary: pd.DataFrame) -> list[str]:
    """Describes what was run in a block, what is missing and why, and the meaning of the mark."""
    methods = sorted(cells["method"].unique(), key=_rank)
    done = cells[cells["status"] == "complete"]
    failed = cells[cells["status"] != "complete"]
    seeds = sorted(cells["seed"].unique())
    absent = [
        f"{_name(method)} seed {seed}"
        for method in methods
        for seed in seeds
        if method != "labels" and not ((cells["method"] == method) & (cells["seed"] == seed)).any()
    ]
    trained = done[values(done, "epochs") > 0]
    epochs = {
        n: [_name(method) for method in methods if method in set(trained["method"][trained["epochs"] == n])]
        for n in sorted(trained["epochs"].unique())
    }
    seconds = summary.drop_duplicates("method").set_index("method")["seconds"].dropna()
    run = {
        "Split": cells["split"].iloc[0],
        "Test clips": _listed(values(done, "test/clips").dropna().astype(int)),
        "Seeds": _listed(seeds),
        "Epochs": _listed(f"{n} ({', '.join(names)})" for n, names in epochs.items()),
    }
    notes = [" ".join(f"{name}: {text or 'not recorded'}." for name, text in run.items())]
    if len(failed):
        names = (f"{row['trial_id']} ({row['status']})" for row in failed.to_dict("records"))
        notes.append(f"Failed cells, left out of the means: {_listed(names)}.")
    if absent:
        notes.append(f"Cells not run: {_listed(absent)}.")
    if len(seconds):
        times = (f"{_name(method)} {value:.1f} s" for method, value in seconds.items())
        notes.append(f"Mean wall time of a cell: {_listed(times)}.")
    classes = values(done, "test/n_classes").dropna()
    n_clusters = int(cells["n_clusters"].iloc[0])
    if values(done, "test/nmi").isna().all() and len(done):
        notes.append("There are no labels, so there are no ACC, NMI and ARI.")
    elif (classes != n_clusters).any():
        notes.append(
            f"No ACC: its one-to-one matching of {n_clusters} clusters with {_listed(classes.astype(int).unique())} "
            "classes cannot be complete."
        )
    if (summary["bounded"] > 0).any():
        notes.append(
            f"{MARK} For at least one seed, a score of this line is undefined and has its stated bound (one cluster, "
            "coinciding centres or no spread within the clusters)."
        )
    return notes


def _listed(items: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(map(str, items)))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


_TEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "×": r"$\times$",
        DASH: r"\textendash{}",
        MARK: r"$^\dagger$",
    }
)


def _tex(text: str) -> str:
    return text.translate(_TEX).replace("--", "-{}-")  # otherwise the hyphens of an option become a dash


def _tex_row(cells: Sequence[str]) -> str:
    return " & ".join(_tex_number(cell) if cell[:1] in set("-0123456789") else _tex(cell) for cell in cells) + r" \\"


def _tex_number(cell: str) -> str:
    """Formats a number in math mode, for the minus sign and powers of ten."""
    powers = re.sub(r"e([+-]\d+)", lambda power: rf" \cdot 10^{{{int(power[1])}}}", cell)
    return f"${powers}$".replace("±", r"\pm")


def main() -> int:
    """Writes the table from the command line."""
    parser = argparse.ArgumentParser(prog="python -m analysis.table1", description="Write Table I of a run.")
    parser.add_argument("folder", type=Path, help="results folder of the run, such as results/NAME")
    parser.add_argument("--out", type=Path, help="folder to write to (default: the results folder)")
    parser.add_argument("--note", action="append", default=[], help="a line to show above the table; may be repeated")
    options = parser.parse_args()

    def run() -> None:
        print(*write(options.folder, out=options.out, notes=options.note), sep="\n")

    return guarded(run)


if __name__ == "__main__":
    sys.exit(main())
