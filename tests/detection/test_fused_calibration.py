"""The simulation of the fused alarm: its parts, and its quick form within bounds."""

import subprocess
import sys

import numpy as np
import pytest
from places import TESTS

from passk_guard.detection.cusum import FusedCusum, cusum_threshold

sys.path.insert(0, str(TESTS / "benchmarks"))

import fused_calibration as simulation


@pytest.mark.simulation
def test_quick_form():
    script = TESTS / "benchmarks" / "fused_calibration.py"
    run = subprocess.run(
        [sys.executable, str(script), "--quick"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "| panel, strong | 0.01 |" in run.stdout


def test_it_is_the_shipped_rule():
    u, d = np.random.default_rng(0).normal(-0.5, 2, size=(2, 60, 5))
    d[::7], u[1::7] = np.nan, np.nan
    x, count = simulation.fused(u, d), 0
    for run in range(5):
        cusum = FusedCusum(cusum_threshold(1e-2))
        for one, other in zip(u[:, run], d[:, run], strict=True):
            cusum.update(*(None if np.isnan(v) else v for v in (one, other)))
            if cusum.open:
                count, cusum = count + 1, FusedCusum(cusum.threshold)
    assert simulation.alarms(x, 1e-2) == pytest.approx(count / x.size / 1e-2)


@pytest.mark.parametrize("kind", simulation.DRIFTS)
def test_drift_has_no_trend_and_its_sum_the_spread_that_is_said(kind):
    change, added = simulation.DRIFTS[kind](np.random.default_rng(0), 250)
    mean, se = change.mean(), change.mean(0).std() / np.sqrt(250)
    assert abs(mean) < 4 * se
    assert (added > 0).all()
    if kind in ("still, 64 prompts", "rare gains", "rare losses"):
        spread = change.sum(0).std() / np.sqrt(added.sum(0).mean())
        assert spread == pytest.approx(1.0, abs=0.12)


def test_of_independent_normal_x_the_rate_is_the_nominal_one():
    x = np.random.default_rng(0).normal(size=(4000, 200))
    assert simulation.alarms(x, 1e-2) == pytest.approx(1.0, abs=0.1)
    assert simulation.alarms(x - 0.2, 1e-2) > 2  # negative control: a conflict


def test_overwhelming_evidence_fires_at_the_first_look():
    x = np.full((1, 1), -20.0)
    assert simulation.alarms(x, 1e-3) > 0
    assert simulation.alarms(x, 1e-3, clip=3.0) == 0
