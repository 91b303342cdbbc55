"""Figures of a real history."""

from extras import needs

needs("matplotlib")

import io
from dataclasses import replace

import numpy as np
import pytest
from test_reporting import conflict_history, without_signal

from passk_guard.reporting import course
from passk_guard.reporting.figures import (
    agreement_figure,
    alignment_curve_figure,
    interference_figure,
)
from passk_guard.reporting.record import look_record
from passk_guard.reporting.scalars import scalars
from passk_guard.reporting.snapshot import Snapshot


@pytest.fixture(scope="module")
def history():
    return conflict_history()


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


def of_one_rate(probe):
    return replace(probe, correct=(4,) * probe.prompts, weights=np.zeros(probe.prompts))


@pytest.mark.parametrize("draw", [interference_figure, agreement_figure, alignment_curve_figure])
@pytest.mark.parametrize("change", [without_signal, of_one_rate])
def test_probes_with_little_to_show_are_drawn_all_the_same(history, draw, change):
    assert_drawn(draw(Snapshot.of(change(history[-1]))))
