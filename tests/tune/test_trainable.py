"""What the process of a trial loads before it trains."""

from __future__ import annotations

import subprocess
import sys

DRIVERS = ("optuna", "sqlalchemy", "triton", "tensorboardX", "catuvac.tune.driver")  # for which nobody should wait


def test_a_trial_does_not_import_what_the_driver_needs() -> None:
    script = f"import sys, catuvac.tune.trainable; print([name for name in {DRIVERS} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
