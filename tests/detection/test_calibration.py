"""The calibration benchmark's quick form: figures within bounds, negative controls out of them."""

import subprocess
import sys

import pytest
from places import TESTS


@pytest.mark.simulation
def test_quick_calibration():
    script = TESTS / "benchmarks" / "calibration.py"
    run = subprocess.run(
        [sys.executable, str(script), "--quick"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "| still |" in run.stdout
