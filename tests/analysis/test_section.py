"""A statement says what its values are, or does not exist."""

from __future__ import annotations

import pytest

from analysis.section import Statement, slug


def test_a_sentence_is_written_from_its_values() -> None:
    assert str(Statement("a", "τ moves it by {change:+.2f}", {"change": -0.1})) == "τ moves it by -0.10"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_does_not_exist_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="'a': change"):
        Statement("a", "{change}", {"change": value})


def test_names_are_fit_for_files() -> None:
    assert slug("fsdd, K = 10", "tau_end") == "fsdd-k-10-tau_end"
