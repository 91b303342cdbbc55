"""Tables and figures of a real history."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from test_guard import CONTEXTS, ascend, make_guard
from tiny import BanditPolicy

from passk_guard.reporting import course
from passk_guard.reporting.figures import (
    agreement_figure,
    alignment_curve_figure,
    interference_figure,
)
from passk_guard.reporting.record import look_record
from passk_guard.reporting.scalars import scalars
from passk_guard.reporting.snapshot import Snapshot
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


@pytest.mark.parametrize("name", ["levels", "change", "cosine", "remedy", "comparison"])
def test_a_course_is_drawn_from_records_of_probes_and_rescorings(history, name):
    looks = [look_record(probe, scalars(probe)) for probe in history]
    sparse = ("pass_at_1", "pass_at_k", "pass_at_k_low", "pass_at_k_high", "cosine", "k")
    looks.insert(3, {key: looks[3][key] for key in looks[3] if key not in sparse})
    draw = getattr(course, f"{name}_figure")
    assert_drawn(draw({"one": looks, "two": looks[:5]} if name == "comparison" else looks))
    assert_drawn(draw({"one": []} if name == "comparison" else []))


def assert_drawn(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer)
    assert buffer.getvalue().startswith(b"\x89PNG")


def test_interference_is_the_cosine_kernel_in_the_order_of_pass_rates(history):
    probe = history[-1]
    figure = interference_figure(Snapshot.of(probe))
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
    figure = agreement_figure(Snapshot.of(probe))
    assert_drawn(figure)
    (points,) = figure.axes[0].collections
    rates = points.get_offsets()[:, 0]
    assert sorted(rates) == sorted(probe.pass_rates[np.diag(probe.gramian) > 0])


def without_signal(probe):
    return replace(probe, update_alignment=None, gramian=None, curve=[])


def of_one_rate(probe):
    return replace(probe, correct=(4,) * probe.prompts, weights=np.zeros(probe.prompts))


@pytest.mark.parametrize("draw", [interference_figure, agreement_figure, alignment_curve_figure])
@pytest.mark.parametrize("change", [without_signal, of_one_rate])
def test_probes_with_little_to_show_are_drawn_all_the_same(history, draw, change):
    assert_drawn(draw(Snapshot.of(change(history[-1]))))


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


def test_a_snapshot_survives_json(history):
    shown = Snapshot.of(history[-1])
    record = json.loads(json.dumps(shown.record(), allow_nan=False))
    again = Snapshot.read(shown.step, shown.k, record)
    for name, places in (("curve", 3), ("pass_rates", 3), ("agreement", 3), ("cosines", 2)):
        one, two = getattr(shown, name), getattr(again, name)
        assert one.shape == two.shape
        assert np.nanmax(np.abs(one - two)) <= 0.51 * 10**-places
    assert again.rows.tolist() == shown.rows.tolist()
    assert (again.cosines == again.cosines.T).all()
    empty = Snapshot.of(without_signal(history[-1]))
    assert Snapshot.read(0, 4, json.loads(json.dumps(empty.record()))).rows.shape == (0,)


def test_the_interval_of_pass_at_k_covers_what_repeated_probes_see():
    policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    guard = make_guard(policy, prompts_per_probe=48, action=lambda probe, guard: None)
    probes = [guard.probe(step) for step in range(60)]
    seen = np.std([p.pass_at_k for p in probes], ddof=1)
    # The pool is drawn without replacement: a probe differs from the next by no more than this.
    assert 0.5 < seen / np.mean([p.pass_at_k_se for p in probes]) < 1.2
