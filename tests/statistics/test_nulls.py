"""The helpers of the calibration: nulls that are null, and sums that are those of the kernel."""

from itertools import islice

import numpy as np
import pytest
from factored import kernels, simulated
from nulls import CONTROLS, NULLS, ORTHOGONAL, PANEL_CONTROLS, PANELS, VANISHING, kind_means

from passk_guard.statistics.alignment import weighted_alignment
from passk_guard.statistics.interval import variance_slope
from passk_guard.statistics.variance import unbiased_variance


def standard_errors_off(generator, draws):
    """``⟨E[w g], E[g]⟩`` from two halves that share no prompt, in its own standard errors.

    And the sizes of the two means, likewise.
    """
    gradients, weights = generator(np.random.default_rng(11), 2 * draws)
    one, other = gradients[:draws], weights[draws:, None] * gradients[draws:]
    a, b = one.mean(0), other.mean(0)
    variance = ((one @ b).var() + (other @ a).var()) / draws
    variance += (one.var(0) * other.var(0)).sum() / draws**2
    sizes = [float(x.mean(0) @ x.mean(0) / (x.var(0).sum() / draws)) for x in (one, other)]
    return float(a @ b) / np.sqrt(variance), sizes


@pytest.mark.parametrize("name", NULLS)
def test_every_null_is_one(name):
    z, sizes = standard_errors_off(NULLS[name], 10_000 if name == "isotropic" else 150_000)
    assert abs(z) < 3.7  # once in 4600 by chance; 17 nulls
    if name in ORTHOGONAL:
        assert min(sizes) > 200  # the means are there, with 1 where there is noise alone
    else:
        assert max(sizes) < 12


def third(panel):
    """A look after the reference's and another one."""
    return lambda rng, m: next(islice(panel(rng, m), 2, None))


@pytest.mark.parametrize("name", PANELS)
def test_every_look_at_a_panel_is_a_null(name):
    assert abs(standard_errors_off(third(PANELS[name]), 150_000)[0]) < 3.7


@pytest.mark.parametrize("name", [*CONTROLS, *PANEL_CONTROLS])
def test_negative_control_what_is_opposed_is_found(name):
    generator = CONTROLS[name] if name in CONTROLS else third(PANEL_CONTROLS[name])
    assert standard_errors_off(generator, 150_000)[0] < -20


def test_the_means_of_two_kinds_are_as_the_formula_says():
    shares, weights = (0.7, 0.3), (0.25, 3.0)
    a, b = kind_means(shares, weights, 2.0, 5.0)
    np.testing.assert_allclose(shares[0] * a + shares[1] * b, [2, 0], atol=1e-12)
    weighted = shares[0] * weights[0] * a + shares[1] * weights[1] * b
    np.testing.assert_allclose(weighted, [0, 5], atol=1e-12)


@pytest.mark.parametrize("rank", [2, 5, 9])  # of 12 prompts: factored, and formed from 6 on
def test_sums_are_those_of_the_kernel(rank):
    rng = np.random.default_rng(rank)
    gradients, weights = rng.normal(size=(4, 12, rank)) + 0.2, 3 * rng.random((4, 12))
    got = kernels(gradients, weights)
    for i, (g, w) in enumerate(zip(gradients, weights, strict=True)):
        H = 0.5 * (w[:, None] + w[None, :]) * (g @ g.T)
        np.fill_diagonal(H, 0)
        row, shipped = H.sum(1), weighted_alignment(g @ g.T, w)
        np.testing.assert_allclose(got.row[i], row, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(got.squares[i], (H**2).sum(1), rtol=1e-9)
        np.testing.assert_allclose(got.twice[i], H @ row, rtol=1e-9, atol=1e-10)
        assert got.inner[i] == pytest.approx(shipped.inner)
        assert got.variance[i] == pytest.approx(unbiased_variance(H, row))
        assert got.jackknife[i] == pytest.approx(shipped.jackknife_se**2)
        assert got.kept[i] == pytest.approx(shipped.se**2)
        assert got.slope[i] == pytest.approx(variance_slope(H, row))


def test_batches_in_pieces_are_as_many_as_asked_for():
    rng = np.random.default_rng(0)
    pieces = list(simulated(VANISHING["rare hard prompts"], rng, 25, 8, at_once=400))
    assert len(pieces) == 5  # six kernels of 8 x 8 fit
    assert sum(len(weights) for _, weights in pieces) == 25
