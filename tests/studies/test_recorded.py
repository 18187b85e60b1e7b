"""Recorded studies: whole, small, without paths, and quoted with their own numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from analysis import report
from catuvac import results
from catuvac.experiments.base import DESIGN

ROOT = Path(__file__).parents[2]
RECORDED = sorted(path.parent for path in (ROOT / "studies" / "recorded").glob(f"*/{DESIGN}"))
QUOTED = {"studies/README.md": [path.name for path in RECORDED], "README.md": ["fsdd-a"]}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the page of each recorded study answers, built from its tables."""
    found = {}
    for folder in RECORDED:
        out = tmp_path_factory.mktemp("pages") / folder.name
        report.build(folder, out=out, figures="none")
        found[folder.name] = json.loads((out / report.ANSWER).read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.name)
def test_a_recorded_study_is_whole_and_names_no_folder(folder: Path) -> None:
    trials = results.read_trials(folder)
    assert set(trials["study"]) == {folder.name}
    assert len(results.read_history(folder)) >= len(trials)
    record = json.loads((folder / DESIGN).read_text(encoding="utf-8"))
    assert len(trials) == record["design"]["trials"]
    assert "+dirty" not in record["revision"]
    assert record["machine"]
    assert not re.search(r"[\"' ]/\w", (folder / DESIGN).read_text(encoding="utf-8"))
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 1.1e6


@pytest.mark.parametrize(("page", "study"), [(page, study) for page in QUOTED for study in QUOTED[page]])
def test_a_page_quotes_the_primary_effect_as_it_is(page: str, study: str, answers: dict[str, dict[str, Any]]) -> None:
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    found = answers[study]
    primary = found["statements"][found["headline"][0]]
    value, low, high = (f"{primary[key]:+.3f}".replace("-", "−") for key in ("value", "low", "high"))
    assert f"{value} (95 % interval {low} to {high}" in text
    assert primary["verdict"] in text
