"""Recorded studies: whole, small, without paths, and quoted with their own numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import report, table1
from analysis.questions import branches
from analysis.questions.confirm import confirmed
from analysis.questions.effects import panels, read_plan
from analysis.questions.sizes import sizes
from analysis.section import Statement
from analysis.sections import effects
from analysis.stats.equivalence import paired
from analysis.trials import load_all
from catuvac import results
from catuvac.experiments.base import BRANCH, DESIGN
from catuvac.experiments.search import MARGIN
from catuvac.experiments.search_space import FACTORS

ROOT = Path(__file__).parents[2]
RECORDED = sorted(path.parent for path in (ROOT / "studies" / "recorded").glob(f"*/{DESIGN}"))
SIZES = "sizes"  # varies no temperature
NO_TERM = "fsdd-no-term"  # its two studies together
CEILING = [path for path in RECORDED if set(results.read_trials(path)["val/ami"]) == {1.0}]  # no effect to estimate
BRANCHED = [path for path in RECORDED if set(results.read_trials(path)["arm"]) == {BRANCH}]
CONFIRMED = [path for path in RECORDED if set(results.read_trials(path)["arm"]) == {"confirm"}]
TABLES = [path for path in RECORDED if set(results.read_trials(path)["arm"]) == {"grid"}]
SEARCHED = [path for path in RECORDED if path not in (*BRANCHED, *CONFIRMED, *TABLES)]
FEW = [path for path in SEARCHED if results.read_trials(path)["val/y_decided"].sum() < 5]  # decided: no estimate
UNQUOTED = [path for path in SEARCHED if path.name == SIZES or path in (*CEILING, *FEW)]
ALL = "studies/recorded/README.md"  # the page of all recorded studies
MAIN = ["fsdd-a", "arabic-a", NO_TERM, "arabic-no-term-a"]
QUOTED = {
    ALL: [NO_TERM, *(path.name for path in SEARCHED if path not in UNQUOTED)],
    "studies/README.md": [*MAIN, "urbansound8k-small", "synthetic"],
    "README.md": MAIN,
}


@pytest.fixture(scope="module")
def answers() -> dict[str, Statement]:
    """What the page of each recorded study opens with, from its tables."""
    opened = {}
    together = {NO_TERM: [folder for folder in RECORDED if folder.name.startswith(NO_TERM)]}
    for name, folders in ({folder.name: [folder] for folder in SEARCHED} | together).items():
        section = effects.section(load_all(folders), {folder.name: read_plan(folder) for folder in folders})
        opened[name] = report.headline([section])[0]
    return opened


def signed(number: float) -> str:
    """As the pages write it."""
    return f"{number:+.3f}".replace("-", "−")


@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.name)
def test_a_recorded_study_is_whole_and_names_no_folder(folder: Path) -> None:
    trials = results.read_trials(folder)
    assert set(trials["study"]) == {folder.name}
    assert len(results.read_history(folder)) >= trials["method"].str.contains("uvac").sum()  # others have none
    record = json.loads((folder / DESIGN).read_text(encoding="utf-8"))
    of_cells = "" if folder in TABLES else "-share|-top"  # of branches and confirmations, whose designs have more keys
    cells = [name for name in record["design"] if re.search(of_cells, name)]
    assert len(trials) == record["design"].get("trials", len(cells))
    assert "+dirty" not in record["revision"]
    assert record["machine"]
    assert not re.search(r"[\"' ]/\w", (folder / DESIGN).read_text(encoding="utf-8"))
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 1.1e6


@pytest.mark.parametrize(("page", "study"), [(page, study) for page in QUOTED for study in QUOTED[page]])
def test_a_page_quotes_the_primary_effect_as_it_is(page: str, study: str, answers: dict[str, Statement]) -> None:
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    primary: dict[str, Any] = dict(answers[study].values)
    value, low, high = (signed(primary[key]) for key in ("value", "low", "high"))
    assert f"{value} (95 % interval {low} to {high}" in text
    assert primary["verdict"] in text


@pytest.mark.parametrize("studies", [("fsdd-no-term-a", "fsdd-no-term-b", "arabic-no-term-a"), ("fsdd-a", "arabic-a")])
@pytest.mark.parametrize("factor", FACTORS)
def test_a_page_quotes_the_interval_over_the_seeds_of_both_corpora(studies: tuple[str, ...], factor: str) -> None:
    each: list[float] = []
    for folder in (path for path in RECORDED if path.name in studies):
        (panel,) = panels(load_all([folder]), {folder.name: read_plan(folder)})
        (effect,) = (e for e in panel.effects if (e.outcome, e.factor) == (panel.primary.outcome, factor))
        assert effect.found is not None
        each += effect.found.by_seed
    over, _ = paired(np.asarray(each), level=0.95, margin=MARGIN)
    assert over is not None
    for page in (ALL, "README.md"):
        text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
        assert f"{signed(over.value)} ({signed(over.low)} to {signed(over.high)})" in text


def row(folder: Path) -> str:
    """Of a study in the table of all studies."""
    text = (ROOT / ALL).read_text(encoding="utf-8")
    (found,) = re.findall(rf"^\|.*\(`{folder.name}`\).*$", text, re.MULTILINE)
    return str(found)


@pytest.mark.parametrize("folder", CEILING, ids=lambda folder: folder.name)
def test_a_page_says_how_many_trainings_found_every_class(folder: Path) -> None:
    assert f"AMI is 1.00 in all {len(results.read_trials(folder))} trainings" in row(folder)


@pytest.mark.parametrize("folder", FEW, ids=lambda folder: folder.name)
def test_a_page_says_in_how_few_trainings_clusters_were_decided(folder: Path, answers: dict[str, Statement]) -> None:
    decided = results.read_trials(folder)["val/y_decided"]
    assert f"decided in only {decided.sum()} of {len(decided)} trainings" in row(folder)
    assert "value" not in answers[folder.name].values


@pytest.mark.parametrize("folder", BRANCHED, ids=lambda folder: folder.name)
def test_a_page_quotes_what_branches_show(folder: Path) -> None:
    text = " ".join((ROOT / ALL).read_text(encoding="utf-8").split())
    plans = {folder.name: read_plan(folder)}
    (panel,) = branches.panels(load_all([folder]), plans, branches.read_partitions(folder))
    for share in panel.shares:
        cells = []
        for outcome in ("val/ami", "val/confidence"):
            effect = share.effect(outcome)
            assert effect is not None
            assert effect.contrast is not None
            value, low, high = map(signed, (effect.contrast.value, effect.contrast.low, effect.contrast.high))
            cells.append(f"{value} ({low} to {high}): {effect.contrast.verdict}")
        assert share.agreement is not None
        cells.append("{:.3f} ({:.3f} to {:.3f})".format(*share.agreement))
        assert " | ".join(cells) in text
    assert panel.later is not None
    value, low, high = map(signed, (panel.later.value, panel.later.low, panel.later.high))
    assert f"{value} ({100 * panel.later.level:.4g} % interval {low} to {high})" in text


@pytest.mark.parametrize("folder", CONFIRMED, ids=lambda folder: folder.name)
def test_a_page_quotes_what_a_confirmation_shows(folder: Path) -> None:
    text = " ".join((ROOT / ALL).read_text(encoding="utf-8").split())
    (run,) = confirmed(load_all([folder]), {folder.name: read_plan(folder)})
    for pair in run.pairs:
        assert pair.contrast is not None
        value, low, high = map(signed, (pair.contrast.value, pair.contrast.low, pair.contrast.high))
        assert f"{value} ({100 * pair.contrast.level:.4g} % interval {low} to {high}" in text
        assert pair.contrast.verdict in text


def test_the_page_on_devices_quotes_every_size_of_the_networks() -> None:
    text = (ROOT / "studies" / "device.md").read_text(encoding="utf-8")
    (panel,) = load_all([ROOT / "studies" / "recorded" / SIZES]).panels().values()
    found = sizes(panel, margin=MARGIN)
    assert found is not None
    for size in found.sizes:
        line = f"| {size.macs / 1e6:.2f} | "
        (row,) = (row for row in text.replace("*", "").splitlines() if line in row)
        assert f"| {size.mean:.3f} ± " in row
        if size.change:
            value, low, high = map(signed, (size.change.value, size.change.low, size.change.high))
            assert f"{value} ({low} to {high}), {size.change.verdict} |" in row


def test_the_page_of_a_recorded_study_says_the_same(tmp_path: Path, answers: dict[str, Statement]) -> None:
    """One page: each takes ten seconds; `make report` builds all."""
    report.build(RECORDED[0], out=tmp_path, figures="none")
    found = json.loads((tmp_path / report.ANSWER).read_text(encoding="utf-8"))
    first = answers[RECORDED[0].name]
    assert found["headline"][0] == first.name
    assert found["statements"][first.name]["text"] == str(first)


@pytest.mark.parametrize("folder", TABLES, ids=lambda folder: folder.name)
def test_the_page_of_table_1_has_every_line(folder: Path) -> None:
    text = (ROOT / "studies" / "table1.md").read_text(encoding="utf-8")
    lines = [line for block in table1.blocks(load_all([folder]).trials) for line in block.lines]
    assert len(lines) > 40
    for line in lines:
        assert f"| {' | '.join(line.cells)} |" in text
