"""Tables and figures of a real history."""

import io
from dataclasses import replace

import numpy as np
import pytest
from test_guard import CONTEXTS, ascend, make_guard
from tiny import BanditPolicy

from passk_guard.reporting.figures import (
    agreement_figure,
    alignment_curve_figure,
    interference_figure,
    run_figure,
)
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
        assert_drawn(figure)


def assert_drawn(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer)
    assert buffer.getvalue().startswith(b"\x89PNG")


def test_interference_is_the_cosine_kernel_in_the_order_of_pass_rates(history):
    probe = history[-1]
    figure = interference_figure(probe)
    assert_drawn(figure)
    (image,) = figure.axes[0].images
    shown = image.get_array()
    alive = np.diag(probe.gramian) > 0
    assert shown.shape == (alive.sum(), alive.sum())
    low, high = image.get_clim()
    assert low == -high  # white is 0
    order = [i for i in np.argsort(probe.pass_rates, kind="stable") if alive[i]]
    i, j = order[0], order[-1]
    cosine = probe.gramian[i, j] / np.sqrt(probe.gramian[i, i] * probe.gramian[j, j])
    assert shown[0, -1] == pytest.approx(cosine, rel=1e-5)
    assert shown.mask.diagonal().all()


def test_agreement_shows_prompts_that_have_a_gradient(history):
    probe = history[-1]
    figure = agreement_figure(probe)
    assert_drawn(figure)
    (points,) = figure.axes[0].collections
    rates = points.get_offsets()[:, 0]
    assert sorted(rates) == sorted(probe.pass_rates[np.diag(probe.gramian) > 0])


def without_signal(probe):
    return replace(probe, update_alignment=None, gramian=None)


def of_one_rate(probe):
    return replace(probe, correct=(4,) * probe.prompts, weights=np.zeros(probe.prompts))


@pytest.mark.parametrize("draw", [interference_figure, agreement_figure])
@pytest.mark.parametrize("change", [without_signal, of_one_rate])
def test_probes_with_little_to_show_are_drawn_all_the_same(history, draw, change):
    assert_drawn(draw(change(history[-1])))


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
