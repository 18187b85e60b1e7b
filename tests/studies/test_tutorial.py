"""The tutorial runs as it is, and finds the scenes that it says it finds."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

TUTORIAL = Path(__file__).parents[2] / "studies" / "tutorial.ipynb"


@pytest.mark.slow
def test_the_tutorial_runs_and_finds_the_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(TUTORIAL, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # they would be of another machine
    NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    tables = [
        output["data"]["text/plain"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "text/plain" in output.get("data", {})
    ]
    counts = [[int(word) for word in line.split()[1:]] for line in tables[1].splitlines()[2:]]
    assert len(counts) == 5
    assert all(max(row) > 0.9 * sum(row) for row in counts)  # a scene lies in one cluster
    assert sorted(row.index(max(row)) for row in counts) == list(range(5))
