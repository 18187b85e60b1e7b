"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real recordings beside the checkout (or $CATUVAC_SHARED_DATA); skips where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("CATUVAC_SHARED_DATA", default))
    if not root.is_dir():
        pytest.skip(f"no real recordings at {root}; set CATUVAC_SHARED_DATA to run this test")
    return root
