"""The page itself: it parses, says the planted answer, loads nothing and never shows a NaN."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from planted import evaluations, falling_with_tau_end, trial

from analysis.report import build, duration
from catuvac.results import append_history, append_trial

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
        if self.open[-1:] not in (["style"], ["script"]):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def checked(folder: Path, command: str = "") -> str:
    """Builds the page, holds it to what every page must keep, and returns its text."""
    path = build(folder, command=command)
    assert [p.name for p in folder.glob("report*")] == ["report.html"]
    source = path.read_text(encoding="utf-8")
    page = Page(source)
    assert not re.search(r"\b(nan|NaN|None|null|inf)\b|<NA>", page.text)
    for name, value in page.attributes:
        if name in ("src", "href", "xlink:href"):
            assert value is not None
            assert value.startswith("#")
    assert not re.search(r"@import|url\((?!#)", source)
    for drawing in re.findall(r"<svg.*?</svg>", source, re.DOTALL):
        label = ElementTree.fromstring(drawing).get("aria-label")
        assert label
        assert "nan" not in label
    return page.text


def test_the_answer_comes_first(tmp_path: Path) -> None:
    text = checked(falling_with_tau_end(tmp_path), command="python studies/tau_sweep.py <&>")
    answer = text[: text.index("Figures")]
    assert "9 trials of cat_uvac on synthetic (split: grouped by speaker), K = 5" in answer
    assert "6 complete, 1 stopped early, 1 diverged, 1 ended in an error" in answer
    assert "t00 : objective 0.900, 5 of 5 clusters used" in answer
    assert "Selection regret. 0.050" in answer
    assert "NMI with the label 0.600, with speaker 0.100" in answer
    assert "τ_end with the objective: -1.00 (n = 6)" in answer
    assert "not independent" in answer
    assert "python studies/tau_sweep.py <&>" in text
    assert "1a2b3c4" in text


def test_every_figure_says_how_it_was_made(tmp_path: Path) -> None:
    text = checked(falling_with_tau_end(tmp_path))
    for setting in ("end temperature τ_end", "start temperature τ_start"):
        assert f"Objective against the {setting}: a point per complete trial (n = 6)" in text
        assert f"Clusters used against the {setting}" in text
    assert "Assignment entropy H(y|x), nats, over training: a line per complete trial (n = 6)" in text
    assert "Spearman rho undefined (one of the two is constant, n = 6)" in text


def test_no_labels(tmp_path: Path) -> None:
    text = checked(falling_with_tau_end(tmp_path, labels=False))
    assert "no labels were recorded" in text
    assert "Would the label-free scores" not in text


def test_one_trial(tmp_path: Path) -> None:
    append_trial(tmp_path, trial(0))
    append_history(tmp_path, evaluations(0, [1.0]))
    text = checked(tmp_path)
    assert "1 trial of cat_uvac" in text
    assert "undefined (fewer than 3 trials, n = 1)" in text


def test_no_finished_trial(tmp_path: Path) -> None:
    append_trial(tmp_path, trial(0, status="error", objective=None, epochs=None, wall_seconds=None, revision=None))
    text = checked(tmp_path)
    assert "no trial ran to its end" in text
    assert "nothing to draw" in text
    assert "Revision: not recorded" in text


def test_a_trial_without_scores_or_temperature(tmp_path: Path) -> None:
    kept = ("config/tau", "val/")
    append_trial(tmp_path, {name: value for name, value in trial(0).items() if not name.startswith(kept)})
    assert "clusters used not recorded" in checked(tmp_path)


def test_names_are_escaped(tmp_path: Path) -> None:
    append_trial(tmp_path, trial(0, trial_id="<script>alert(1)</script>"))
    checked(tmp_path)
    assert "<script>alert" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_same_tables_give_the_same_page(tmp_path: Path) -> None:
    falling_with_tau_end(tmp_path)
    first = build(tmp_path).read_bytes()
    assert build(tmp_path).read_bytes() == first


def test_a_bad_folder_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "analysis.report", str(tmp_path / "absent")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 2
    assert done.stderr.startswith("error: no folder")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("seconds", "text"), [(5.2, "5 s"), (65, "1 min 5 s"), (7260, "2 h 1 min")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
