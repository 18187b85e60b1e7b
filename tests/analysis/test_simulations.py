"""The page says what is true: few repeats of every scenario, and the command that repeats them often."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from analysis.simulations import HEAD, KEPT, SCENARIOS, Simulations, page, rows

ROOT = Path(__file__).parents[2]
FEW = 12  # a rate that is far from what is wanted shows


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_claim_is_made_as_often_as_is_wanted(scenario) -> None:  # type: ignore[no-untyped-def]
    found = rows(scenario, FEW)
    assert (found["as wanted"] == "yes").all(), found.to_string()


def test_a_repeat_is_the_same_whenever_it_is_drawn() -> None:
    assert SCENARIOS[0].repeat(3) == SCENARIOS[0].repeat(3)
    assert SCENARIOS[0].repeat(3) != SCENARIOS[0].repeat(4)


def test_the_committed_table_has_every_rate_and_each_is_as_wanted() -> None:
    lines = (ROOT / "studies" / "simulations.md").read_text(encoding="utf-8").splitlines()
    table = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines if line.startswith("| ")]
    assert table[0] == HEAD
    assert [(row[0], row[2]) for row in table[1:]] == [(s.name, claim) for s in SCENARIOS for claim in s.wanted]


def test_bad_input_is_one_line(tmp_path: Path, refused: Callable[..., str]) -> None:
    for flags in (["--repeats", "0"], ["--out", str(tmp_path / "absent" / "a.md")]):
        assert refused(Simulations, flags).count("\n") == 1


def test_scenarios_that_are_done_are_not_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_script: Callable[..., tuple[int, str, str]]
) -> None:
    """All but the first are there, of the same code and number; those of another number count for nothing."""
    monkeypatch.setenv("CATUVAC_REVISION", "abc")
    kept = [
        (s.name, 216, claim, "any", "12.3%", "", "yes", repeats, "abc")
        for s in SCENARIOS[1:]
        for claim in s.wanted
        for repeats in (2, 3)
    ]
    pd.DataFrame(kept, columns=KEPT).to_csv(tmp_path / "a.csv", index=False)
    code, _, errors = run_script(Simulations, ["--repeats", "2", "--out", str(tmp_path / "a.md")])
    assert code == 0, errors
    text = (tmp_path / "a.md").read_text(encoding="utf-8")
    assert text.count("12.3%") == len(kept) // 2
    assert text.count(SCENARIOS[0].name) == len(SCENARIOS[0].wanted)
    assert "Commit abc" in text
    assert [path.name for path in tmp_path.iterdir()] == ["a.md"]


def test_the_table_has_a_row_for_each_rate() -> None:
    done = pd.DataFrame([("a", 24, "b", "at most 6%", "5.0%", "3% to 8%", "yes")], columns=list(HEAD))
    text = page(done, repeats=9, source="abc", machine="one core")
    assert "| a | 24 | b | at most 6% | 5.0% | 3% to 8% | yes |" in text
