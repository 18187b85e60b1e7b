from __future__ import annotations

import os

import pytest

from catuvac.errors import CatuvacError, guarded, printable


def test_text_that_would_move_a_cursor_is_escaped() -> None:
    assert printable("τ = 1 [/b] {0}") == "τ = 1 [/b] {0}"
    assert printable("a\x1b[31m\nb\udce9\u202e") == "a\\x1b[31m\\nb\\udce9\\u202e"


def test_an_error_is_one_line_whatever_it_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise CatuvacError("no \x1b[2J\n\udcff")

    assert guarded(command) == 2
    assert capsys.readouterr().err == "error: no \\x1b[2J\\n\\udcff\n"


@pytest.mark.parametrize(("given", "used"), [("1", "60"), ("0", "60"), ("20", "60"), ("100", "100"), ("wide", "wide")])
def test_a_terminal_is_never_too_narrow(given: str, used: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", given)
    widths: list[str] = []
    assert guarded(lambda: widths.append(os.environ["COLUMNS"])) == 0
    assert widths == [used]
