"""Tables and figures of a real history."""

import io

import pytest
from test_guard import CONTEXTS, ascend, make_guard
from tiny import BanditPolicy

from passk_guard.reporting.figures import alignment_curve_figure, run_figure
from passk_guard.reporting.scalars import scalars
from passk_guard.reporting.table import history_table


@pytest.fixture(scope="module")
def history():
    policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    silent = {"prompts_per_probe": 48, "action": lambda probe, guard: None}
    guard = make_guard(policy, **silent)
    for step in range(0, 60, 5):
        guard.probe(step)
        ascend(policy, 1, 5, lr=-40.0)
    assert any(p.alarm for p in guard.history)
    return guard.history


def test_table_shows_every_probe_and_the_alarm(history):
    lines = history_table(history).splitlines()
    assert len(lines) == len(history) + 2
    assert sum("ALARM: " in line for line in lines) == 1
    assert "pass@4" in lines[0]


def test_figures_can_be_saved(history):
    for figure in (run_figure(history, "title"), alignment_curve_figure(history[-1])):
        buffer = io.BytesIO()
        figure.savefig(buffer)
        assert buffer.getvalue().startswith(b"\x89PNG")


def test_every_logged_key_is_in_the_documented_table(history):
    from pathlib import Path

    import passk_guard.reporting.scalars as module

    readme = (Path(__file__).parent.parent / "README.md").read_text()
    for key in scalars(history[-1]):
        assert key in module.__doc__
        assert f"`{key.removeprefix('passk_guard/')}`" in readme or f"`{key}`" in readme


def test_missing_values_are_left_out(history):
    assert "passk_guard/drift" not in scalars(history[0])
    assert all(isinstance(v, float) for v in scalars(history[-1]).values())
