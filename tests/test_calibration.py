"""The calibration benchmark's quick form: figures within bounds, negative controls out of them."""

import subprocess
import sys
from pathlib import Path


def test_quick_calibration():
    script = Path(__file__).parent / "benchmarks" / "calibration.py"
    run = subprocess.run(
        [sys.executable, str(script), "--quick"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "| 0.001 |" in run.stdout  # the rate that is shipped
