"""What a command makes of bad input and of being ended, in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import torch

from catuvac.errors import CatuvacError, guarded, printable

WAIT = """
import time
from catuvac.errors import guarded

def command():
    print("up", flush=True)
    time.sleep(60)

raise SystemExit(guarded(command))
"""
# A command that a shell without job control starts with & ignores Ctrl-C.
BACKGROUND = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"


@pytest.mark.parametrize("before", ["", BACKGROUND], ids=["foreground", "background"])
def test_a_command_that_is_ended_says_so(before: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", before + WAIT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "interrupted; the files on disk are complete\n")


def test_bad_input_is_one_line_and_the_handler_is_given_back(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise CatuvacError("no such thing; give another")

    before = signal.getsignal(signal.SIGTERM)
    assert guarded(command) == 2
    assert capsys.readouterr().err == "error: no such thing; give another\n"
    assert signal.getsignal(signal.SIGTERM) is before


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


def test_a_full_gpu_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    assert guarded(command) == 2
    assert capsys.readouterr().err.count("\n") == 1
