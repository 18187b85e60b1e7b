"""Files that the data tests share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile


@pytest.fixture
def bad_files(tmp_path: Path) -> dict[str, Path]:
    """One file of each unusable kind, in `tmp_path/tree/b`."""
    folder = tmp_path / "tree" / "b"
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.wav" for name in ("empty", "junk", "nan", "zero")}
    paths["empty"].touch()
    paths["junk"].write_text("these are not samples\n" * 100)
    soundfile.write(paths["nan"], np.array([0.1, np.nan, 0.1]), 8000, subtype="FLOAT")
    soundfile.write(paths["zero"], np.zeros(0), 8000)
    return paths


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Twelve good files: six low tones under `a`, six high ones under `b`."""
    root = tmp_path / "tree"
    rng = np.random.default_rng(0)
    for label, frequency in (("a", 300.0), ("b", 2500.0)):
        (root / label).mkdir(parents=True, exist_ok=True)
        for number in range(6):
            time = np.arange(4000 + 400 * number) / 8000
            tone = 0.3 * np.sin(2 * np.pi * frequency * time) + 0.01 * rng.normal(size=len(time))
            soundfile.write(root / label / f"{number}.wav", tone, 8000)
    return root
