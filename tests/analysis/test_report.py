"""The page itself: it parses, says the planted answer, loads nothing and never shows a NaN."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from fabricate import study
from planted import evaluations, falling_with_tau_end, trial

from analysis import report
from analysis.report import SHOWN, Format, build
from analysis.section import Section, Statement
from analysis.trials import Study
from catuvac import artifacts
from catuvac.errors import CatuvacError
from catuvac.results import HISTORY, TRIALS, append_history, append_trial

VOID = {"meta", "br"}


class Page(HTMLParser):
    """Checks that tags nest, and collects text, attributes and ids."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]) and "svg" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


def checked(*folders: Path, command: str = "", figures: Format = "none") -> str:
    """Builds the page, holds it to what every page must keep, and returns its text."""
    path = build(*folders, command=command, figures=figures)
    assert [p.name for p in folders[0].glob("report*")] == ["report.html"]
    source = path.read_text(encoding="utf-8")
    page = Page(source)
    assert not re.search(r"\b(nan|NaN|None|inf)\b|<NA>", page.text)
    for name, value in page.attributes:
        if name in ("src", "href", "xlink:href"):
            assert value is not None
            assert value.startswith(("#", "data:")) or value.endswith(TRIALS)
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    stored = re.findall(r'<script type="application/json" id="rows">(.*?)</script>', source, re.DOTALL)
    drawn_later = {f"trial-{number}" for rows in stored for number, _ in json.loads(rows)}
    targets = {
        value[1:] for name, value in page.attributes if name in ("href", "xlink:href") and value and value[0] == "#"
    }
    assert targets <= {*ids, *drawn_later}
    assert not re.search(r"@import|url\((?!#)", source)
    for drawing in re.findall(r"<svg.*?</svg>", source, re.DOTALL):
        label = ElementTree.fromstring(drawing).get("aria-label")
        assert label
        assert not re.search(r"\b(nan|None|inf)\b", label)
    statements = answer(folders[0])["statements"]
    assert statements
    assert all(" ".join(each["text"].split()) in page.text for each in statements.values())
    return page.text


def answer(folder: Path) -> dict[str, Any]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in answer.json")

    found: dict[str, Any] = json.loads((folder / "answer.json").read_text(encoding="utf-8"), parse_constant=refuse)
    return found


def written(made: Study, folder: Path) -> Path:
    """A fabricated study as its tables."""
    folder.mkdir(exist_ok=True)
    made.trials.drop(columns="config/tau_mean").to_parquet(folder / TRIALS)
    if len(made.history):
        made.history.to_parquet(folder / HISTORY)
    return folder


def lifted(design: pd.DataFrame, rng: np.random.Generator) -> dict[str, Any]:
    """AMI falls by 0.1 with each doubling of tau_end / tau_start, and nothing else does."""
    ratio = design["config/tau_end"] / design["config/tau_start"]
    return {"val/ami": 0.5 - 0.1 * np.log2(ratio) + rng.normal(0, 0.02, len(design))}


@pytest.mark.slow
def test_the_planted_answer_comes_first_and_its_numbers_are_in_answer_json(tmp_path: Path) -> None:
    folder = written(study(40, planted=lifted, evaluations=8), tmp_path / "a")
    text = checked(folder, command="python studies/tau_sweep.py <&>", figures="pdf")
    found = answer(folder)
    opening = text[: text.index("All trials")]
    for name in found["headline"]:
        assert " ".join(found["statements"][name]["text"].split()) in opening
    assert 1 <= len(found["headline"]) <= 3
    primary = found["statements"]["effects/fsdd-k-10/tau_ratio"]
    assert primary["verdict"] == "matters"
    assert primary["low"] < -0.1 * np.log2(primary["to"] / primary["from"]) < primary["high"] < 0
    assert "python studies/tau_sweep.py <&>" in text
    assert "1a2b3c4" in text
    pictures = list((folder / "figures").glob("*.pdf"))
    assert len(pictures) > 20
    assert all(path.read_bytes().startswith(b"%PDF") for path in pictures)
    first = (folder / "report.html").read_bytes()
    assert build(folder, command="python studies/tau_sweep.py <&>", figures="none").read_bytes() == first


def test_no_finished_trial(tmp_path: Path) -> None:
    append_trial(tmp_path, trial(0, status="error", objective=None, epochs=None, wall_seconds=None, revision=None))
    text = checked(tmp_path)
    assert "no trial completed" in text
    assert "Revision: not recorded" in text


def test_one_trial(tmp_path: Path) -> None:
    append_trial(tmp_path, trial(0))
    append_history(tmp_path, evaluations(0, [1.0]))
    assert "1 trial of cat_uvac" in checked(tmp_path)


def constant(design: pd.DataFrame, rng: np.random.Generator) -> dict[str, Any]:
    del design, rng
    return {"val/nmi": 0.5, "val/clusters_used": 10.0, "objective": 0.25, "val/silhouette_p": 1.0}


def unlabelled(design: pd.DataFrame, rng: np.random.Generator) -> dict[str, Any]:
    del rng
    return dict.fromkeys(
        ("val/acc", "val/nmi", "val/ari", "val/ami_speaker"), pd.array([None] * len(design), "Float64")
    )


@pytest.mark.slow
@pytest.mark.parametrize("odd", [constant, unlabelled])
def test_a_metric_that_is_constant_and_labels_that_are_missing(
    odd: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    checked(written(study(18, planted=odd, evaluations=3), tmp_path))


def test_trials_of_two_corpora(tmp_path: Path) -> None:
    for number in range(6):
        corpus = ("fsdd", "synthetic")[number % 2]
        append_trial(tmp_path, trial(number, corpus=corpus, arm="qmc", objective=0.1 * number))
    text = checked(tmp_path)
    assert "fsdd, K = 5: by the label-free objective, the best trial is number 4 (t04)" in text
    assert "synthetic, K = 5: by the label-free objective, the best trial is number 5 (t05)" in text


def test_a_half_written_table_and_one_that_is_not_there_yet(tmp_path: Path) -> None:
    falling_with_tau_end(tmp_path / "a")
    (tmp_path / "a" / HISTORY).write_bytes((tmp_path / "a" / HISTORY).read_bytes()[:99])
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "study.json").write_text("{}")
    text = checked(tmp_path / "a", tmp_path / "b")
    assert "history.parquet is damaged" in text
    assert "b has no trials.parquet yet" in text
    assert "(t00), at 0.900" in text
    assert "No trial has been recorded yet" in checked(tmp_path / "b")


def test_a_trial_without_scores_or_temperature(tmp_path: Path) -> None:
    kept = ("config/tau", "val/")
    append_trial(tmp_path, {name: value for name, value in trial(0).items() if not name.startswith(kept)})
    checked(tmp_path)


def test_names_are_escaped(tmp_path: Path) -> None:
    append_trial(tmp_path, trial(0, trial_id="<script>alert(1)</script>", corpus="{0} & <b>"))
    text = checked(tmp_path)
    assert "{0} & <b>" in text
    assert "<script>alert" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_braces_in_a_columns_name_are_text(tmp_path: Path) -> None:
    made = study(24, evaluations=3)
    made.trials["val/ami_{0} }{ {acc"] = made.trials["val/ami_speaker"]
    assert "{0} }{ {acc" in checked(written(made, tmp_path))


def test_a_damaged_plan_is_not_replaced_by_the_defaults(tmp_path: Path) -> None:
    append_trial(tmp_path, trial(0))
    artifacts.write_json(tmp_path / "study.json", {"design": {"primary": "tau_start", "margin": 0.05}})
    text = (tmp_path / "study.json").read_text()
    (tmp_path / "study.json").write_text(text.replace("0.05", "0.15"))
    with pytest.raises(CatuvacError, match=r"study\.json is damaged"):
        build(tmp_path, figures="none")
    assert not (tmp_path / "report.html").exists()


def test_of_many_trials_the_page_holds_some_and_the_script_all(tmp_path: Path) -> None:
    made = study(SHOWN + 5, arm="tpe")  # nothing is inferred from them
    made.trials["status"] = "stopped"
    folder = written(made, tmp_path)
    text = checked(folder)
    assert f"only the first {SHOWN} of {SHOWN + 5} are here" in text
    source = (folder / "report.html").read_text(encoding="utf-8")
    (stored,) = re.findall(r'<script type="application/json" id="rows">(.*?)</script>', source, re.DOTALL)
    rows = json.loads(stored)
    assert len(rows) == SHOWN + 5
    assert [(number, cells[0]) for number, cells in rows[-2:]] == [(203, "t00203"), (204, "t00204")]
    objective = rows[-1][1][1]
    assert float(objective[1]) == pytest.approx(made.trials["objective"].iloc[-1], rel=1e-6)


def test_of_more_trials_still_the_page_holds_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.report.MOST", 2)
    falling_with_tau_end(tmp_path)
    checked(tmp_path)
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.findall(r'<tr id="(trial-\d+)"', source) == ["trial-0", "trial-6"]
    assert f'<a href="{TRIALS}">' in source


def test_a_point_leads_to_its_trial_and_says_its_settings(tmp_path: Path) -> None:
    checked(falling_with_tau_end(tmp_path))
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    points = set(re.findall(r'<a href="#trial-(\d+)"><title>(.*?)</title>', source))
    complete = {(str(i), f"t{i:02}: τ_end {0.1 * (i + 1):.3f}") for i in range(6)}
    assert complete <= points
    for number, words in points:
        row = re.findall(rf'<tr id="trial-{number}".*?<td>(.*?)</td>', source)
        assert row == [words.partition(":")[0]]


def test_each_part_explains_a_term_where_it_uses_it_first(tmp_path: Path) -> None:
    checked(falling_with_tau_end(tmp_path))
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    for part in re.split(r"<details|<section", source)[1:]:
        terms = re.findall(r'<a class="term" href="#(.*?)"', part)
        assert len(terms) == len(set(terms))
    assert "term-silhouette-p" in source


def test_what_is_asked_for_and_absent_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    append_trial(tmp_path / "a", trial(0))
    for flags, words in (
        ([str(tmp_path / "absent")], "no folder"),
        ([str(tmp_path / "a"), "--trained", "b"], "no run"),
    ):
        monkeypatch.setattr(sys, "argv", ["report", *flags])
        assert report.main() == 2
        errors = capsys.readouterr().err
        assert errors.startswith("error: ")
        assert words in errors
        assert errors.count("\n") == 1


def test_a_section_is_one_entry_of_the_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def section(inputs: report.ReportInputs) -> Section:
        count = Statement("toy/count", "There are {n} trials.", {"n": len(inputs.study.trials)})
        return Section("How many trials are there?", (count,), (), ())

    monkeypatch.setattr(report, "SECTIONS", (*report.SECTIONS[:1], section))
    page = build(written(study(6), tmp_path / "a"), figures="none").read_text()
    assert "How many trials are there?" in page
    assert "There are 6 trials." in page
