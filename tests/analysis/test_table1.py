"""Table I: planted cells with known means and intervals, in every format."""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis import table1
from analysis.paper import TABLE_1
from analysis.table1 import Block, blocks, summarise, write
from catuvac.artifacts import write_json
from catuvac.errors import CatuvacError
from catuvac.results import append_trial, read_trials

# Of three values a - 0.1, a, a + 0.1: t(0.975, 2) = 4.30265, times their deviation 0.1, over the root of 3.
HALF = 0.248414


def cell(method: str, seed: int, scores: Mapping[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A complete cell on a corpus of ten classes; `scores` are those of the test split, beside plain ones in x."""
    row = {
        "study": "planted",
        "corpus": "fsdd",
        "method": method,
        "n_clusters": 10,
        "seed": seed,
        "arm": "grid",
        "status": "complete",
        "epochs": 60 if method.endswith("uvac") else 0,
        "wall_seconds": 2.0,
        "config_hash": "h",
        "revision": "1a2b3c4",
        "started_at": "2025-01-01T00:00:00Z",
        "config/split": "grouped",
        "config/group": "speaker",
        "test/n_classes": 10.0,
        "test/clips": 300.0,
        "test/clusters_used": 10.0,
        "test/acc": 0.5,
        "test/nmi": 0.4,
        "test/ari": 0.3,
        "test/nmi_speaker": 0.2,
        **internal("x"),
        **{f"test/{name}": value for name, value in (scores or {}).items()},
        **changes,
    }
    return {"trial_id": f"{row['corpus']}-k{row['n_clusters']}-{method}-s{seed}", **row}


def internal(space: str, silhouette: float = 0.1, dbi: float = 2.0) -> dict[str, float]:
    """The four scores of a space, as they stand in a row of the table of trials."""
    return {
        f"test/silhouette_{space}": silhouette,
        f"test/dbi_{space}": dbi,
        f"test/dispersion_{space}": 0.5,
        f"test/chi_{space}": 16.1,
    }


def table(folder: Path, *cells: Mapping[str, Any]) -> pd.DataFrame:
    """Writes cells as a run does and reads them as the analysis does."""
    for number, row in enumerate(cells):
        append_trial(folder, {"number": number, **row})
    return read_trials(folder)


def one(summary: pd.DataFrame, **wanted: object) -> pd.Series[Any]:
    """The single row with these values."""
    for name, value in wanted.items():
        summary = summary[summary[name] == value]
    assert len(summary) == 1
    return summary.iloc[0]


def shown(block: Block, method: str, space: str) -> dict[str, str]:
    """The cells of one line by the title of their column."""
    found = [line.cells for line in block.lines if line.cells[:2] == [method, space]]
    assert len(found) == 1
    return dict(zip(block.columns, found[0], strict=True))


def grid(folder: Path) -> pd.DataFrame:
    """Labels, k-means and Cat. UVAC on three seeds; one seed more of Cat. UVAC diverged, and k-means lacks it."""
    p = internal("z", -0.2) | internal("p", 0.95, 0.07)
    return table(
        folder,
        *(cell("cat_uvac", s, {"acc": 0.6 + 0.1 * (s - 1)}, wall_seconds=10.0 + s, **p) for s in range(3)),
        cell("cat_uvac", 3, {"acc": 0.0, "nmi": 0.0}, status="diverged", **p),
        *(cell("kmeans", s) for s in range(3)),
        cell("labels", 0, {"acc": 1.0, "nmi": 1.0, "ari": 1.0}),
    )


def test_means_and_intervals_over_complete_seeds(tmp_path: Path) -> None:
    summary = summarise(grid(tmp_path))
    row = one(summary, method="cat_uvac", space="p")
    assert (row["corpus"], row["n_clusters"], row["split"]) == ("fsdd", 10, "grouped by speaker")
    assert (row["seeds"], row["failed"], row["source"]) == (3, 1, "measured")
    assert row["acc"] == pytest.approx(0.6)
    assert row["acc_half"] == pytest.approx(HALF, abs=1e-6)
    assert row[["silhouette", "dbi", "dispersion", "chi"]].tolist() == pytest.approx([0.95, 0.07, 0.5, 16.1])
    assert row[["nmi_speaker", "nmi_speaker_half"]].tolist() == pytest.approx([0.2, 0.0])
    assert row["seconds"] == 11.0
    assert one(summary, method="cat_uvac", space="z")["silhouette"] == pytest.approx(-0.2)
    assert summary["space"].tolist() == ["x", "x", "x", "z", "p"]
    assert summary["method"].tolist() == ["labels", "kmeans", *["cat_uvac"] * 3]


def test_one_seed_and_labels_have_no_interval(tmp_path: Path) -> None:
    cells = [cell("dcn", 0), *(cell("labels", seed, {"acc": 1.0}) for seed in range(3))]
    summary = summarise(table(tmp_path, *cells))
    assert summary.filter(like="_half").isna().all(axis=None)
    assert one(summary, method="labels")["acc"] == 1.0
    assert one(summary, method="dcn")["acc"] == 0.5


def test_label_scores_stand_once_and_p_beside_the_clusters_used(tmp_path: Path) -> None:
    (block,) = blocks(grid(tmp_path))
    assert block.title == "FSDD, K = 10, split grouped by speaker"
    first, last = shown(block, "Cat. UVAC", "x"), shown(block, "Cat. UVAC", "p")
    assert (first["ACC %"], first["NMI"], first["NMI speaker"]) == ("60.0 ± 24.8", "0.400 ± 0.000", "0.200 ± 0.000")
    assert (last["ACC %"], last["NMI"], last["ARI"], last["NMI speaker"]) == ("", "", "", "")
    assert (last["clusters used"], last["Silhouette"]) == ("10 ± 0", "0.950 ± 0.000")
    assert last["CHI (BCSS/WCSS)"] == "0.500 ± 0.000"
    assert last["CHI (scikit-learn)"] == "16.10 ± 0.00"


def test_p_is_not_shown_where_the_clusters_used_are_unknown(tmp_path: Path) -> None:
    summary = summarise(table(tmp_path, cell("uvac", 0, {"clusters_used": None}, **internal("p", 0.99))))
    assert summary["space"].tolist() == ["x"]


def test_what_failed_or_was_not_run_is_named(tmp_path: Path) -> None:
    (block,) = blocks(grid(tmp_path))
    assert block.notes == [
        "Split: grouped by speaker. Test clips: 300. Seeds: 0, 1, 2, 3. Epochs: 60 (Cat. UVAC).",
        "Failed cells, left out of the means: fsdd-k10-cat_uvac-s3 (diverged).",
        "Cells not run: K-means seed 3.",
        "Mean wall time of a cell: Labels 2.0 s, K-means 2.0 s, Cat. UVAC 11.0 s.",
    ]


def test_a_method_that_always_failed_keeps_its_line(tmp_path: Path) -> None:
    failed = {"status": "error", "epochs": None, "wall_seconds": None}
    bare = {name: value for name, value in cell("vade", 0, **failed).items() if not name.startswith("test/")}
    trials = table(tmp_path, bare, cell("kmeans", 0))
    row = one(summarise(trials), method="vade")
    assert (row["seeds"], row["failed"], row["space"]) == (0, 1, "x")
    assert row[["acc", "silhouette", "seconds"]].isna().all()
    (block,) = blocks(trials)
    assert set(block.lines[-1].cells[2:]) == {"–"}
    assert "Failed cells, left out of the means: fsdd-k10-vade-s0 (error)." in block.notes


def test_no_accuracy_where_k_is_not_the_number_of_classes(tmp_path: Path) -> None:
    trials = table(tmp_path, *(cell("kmeans", seed, n_clusters=5) for seed in range(2)))
    row = one(summarise(trials))
    assert pd.isna(row["acc"])
    assert pd.isna(row["acc_half"])
    assert row["nmi"] == 0.4
    (block,) = blocks(trials)
    assert shown(block, "K-means", "x")["ACC %"] == "–"
    assert any("5 clusters with 10 classes" in note for note in block.notes)


def test_without_labels_no_label_score_is_shown(tmp_path: Path) -> None:
    none = dict.fromkeys(("n_classes", "acc", "nmi", "ari", "nmi_speaker"))
    (block,) = blocks(table(tmp_path, cell("kmeans", 0, none)))
    line = shown(block, "K-means", "x")
    assert (line["ACC %"], line["NMI"], line["ARI"], line["Silhouette"]) == ("–", "–", "–", "0.100")
    assert "NMI speaker" not in block.columns
    assert "There are no labels, so there are no ACC, NMI and ARI." in block.notes


def test_a_score_at_its_bound_marks_its_own_space(tmp_path: Path) -> None:
    trials = table(
        tmp_path,
        cell("uvac", 0, **internal("p", 0.9, 0.1)),
        cell("uvac", 1, **internal("p", 0.9, 1e3)),  # coinciding centres in p alone
    )
    assert one(summarise(trials), space="p")["bounded"] == 1
    (block,) = blocks(trials)
    assert [line.cells[1] for line in block.lines] == ["x", "p †"]
    assert block.notes[-1].startswith("† For at least one seed")
    assert shown(block, "UVAC", "p †")["DBI"] == "500.1 ± 6352.5"  # 12.7062 × 999.9 / 2, in p alone


def test_the_paper_stands_beneath_each_method(tmp_path: Path) -> None:
    cells = [cell("cat_uvac", 0, corpus="audiomnist", **{"config/split": "random", "config/group": ""})]
    trials = table(tmp_path, *cells, cell("dec", 0, corpus="audiomnist", **{"config/split": "random"}))
    paper = one(summarise(trials), method="cat_uvac", source="paper")
    assert (paper["acc"], paper["nmi"], paper["silhouette"]) == (0.763, 0.78, 0.97)
    assert (paper["dbi"], paper["dispersion"], paper["space"]) == (0.07, 40.14, "not stated")
    assert pd.isna(paper["seeds"])
    assert pd.isna(paper["chi"])
    (block,) = blocks(trials)
    assert [line.cells[0] for line in block.lines] == [
        "Labels (paper)",
        "K-means (paper)",
        "DEC",
        "UVAC (paper)",
        "Cat. UVAC",
        "Cat. UVAC (paper)",
    ]
    line = shown(block, "Cat. UVAC (paper)", "not stated")
    assert (line["ACC %"], line["NMI"], line["CHI (BCSS/WCSS)"], line["clusters used"]) == (
        "76.30",
        "0.78",
        "40.14",
        "–",
    )


def test_the_paper_s_table_is_whole() -> None:
    assert len({(row.corpus, row.n_clusters, row.method) for row in TABLE_1}) == len(TABLE_1) == 18
    assert all((row.acc is None) == (row.nmi is None) == (row.n_clusters == 5) for row in TABLE_1)


def test_blocks_by_corpus_k_and_split(tmp_path: Path) -> None:
    random = {"config/split": "random", "config/group": ""}
    cells = [cell("kmeans", 0, corpus="tau2019", n_clusters=k) for k in (5, 10)]
    cells += [cell("kmeans", 0, corpus="other"), cell("kmeans", 0, trial_id="again", **random), cell("kmeans", 0)]
    assert [block.title for block in blocks(table(tmp_path, *cells))] == [
        "FSDD, K = 10, split grouped by speaker",
        "FSDD, K = 10, split random",
        "TAU2019, K = 10, split grouped by speaker",
        "TAU2019, K = 5, split grouped by speaker",
        "other, K = 10, split grouped by speaker",
    ]


def test_runs_that_must_not_be_averaged_are_refused(tmp_path: Path) -> None:
    again = [{**cell(method, 0), "trial_id": f"second {method}"} for method in ("vade", "kmeans")]
    trials = table(tmp_path, cell("vade", 0), cell("kmeans", 0), *again)
    with pytest.raises(CatuvacError, match="fsdd-k10-kmeans-s0 and second kmeans are the same cell"):
        summarise(trials)
    with pytest.raises(CatuvacError, match="no cells of Table I"):
        summarise(trials.assign(arm="tpe"))


def test_every_format_says_the_same(tmp_path: Path) -> None:
    trials = grid(tmp_path)
    command = "python studies/table1.py --corpora fsdd"
    write_json(tmp_path / "study.json", {"command": command, "machine": "two cores <&> 24 GiB"})
    out = tmp_path / "a" / "page"
    paths = write(tmp_path, out=out, notes=["fold_1 only"])
    assert [path.name for path in paths] == ["table1.parquet", "table1.md", "table1.tex", "table1.html"]
    assert {path.name for path in out.iterdir()} == {path.name for path in paths}
    assert not list(tmp_path.glob("table1*"))
    pd.testing.assert_frame_equal(pd.read_parquet(paths[0]), summarise(trials))

    (block,) = blocks(trials)
    text, tex, page = (path.read_text(encoding="utf-8") for path in paths[1:])
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == block.columns
    assert rows[2:] == [line.cells for line in block.lines]
    cells = [
        [html.unescape(c) for c in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line)]
        for line in re.findall(r"<tr.*?</tr>", page, re.DOTALL)
    ]
    assert cells == [block.columns, *(line.cells for line in block.lines)]
    for source in (text, html.unescape(page)):
        assert all(fact in source for fact in (command, "two cores <&> 24 GiB", "fold_1 only", "1a2b3c4", *block.notes))
        assert "Silhouette trap" in source
    assert not re.search(r"https?:|src=|href=|@import|url\(", page)
    assert not re.search(r"\bnan\b|<NA>|\bNone\b", text + tex + page)


def test_latex_is_well_formed(tmp_path: Path) -> None:
    grid(tmp_path)
    write_json(tmp_path / "study.json", {"command": "run --x 50% a_b"})
    source = write(tmp_path, notes=["~ ^ \\ {"])[2].read_text(encoding="utf-8")
    body = "\n".join(line for line in source.splitlines() if not line.startswith("% "))
    assert r"run -{}-x 50\% a\_b" in body
    assert body.isascii()
    opened: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", body):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened
    bare = re.sub(r"\\[\\{}%_&$#]", "", body)  # without what is escaped
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert "_" not in bare
    (columns,) = re.findall(r"\\begin\{tabular\}\{(\w+)\}", body)
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 6
    assert {len(re.split(r"(?<!\\)&", row)) for row in rows} == {len(columns)}
    assert r"$-0.200 \pm 0.000$" in body


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    grid(tmp_path)
    monkeypatch.setattr(sys, "argv", ["table1", str(tmp_path)])
    assert table1.main() == 0
    assert capsys.readouterr().out.split()[-1] == str(tmp_path / "table1.html")
    monkeypatch.setattr(sys, "argv", ["table1", str(tmp_path / "no")])
    assert table1.main() == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: no folder")
    assert errors.count("\n") == 1
