"""examples/bandit.py: its exact figures are exact, and the library's estimates find them."""

from extras import needs

needs("matplotlib")

import os
import subprocess
import sys
from pathlib import Path

import bandit
import numpy as np
import pytest
import torch

from passk_guard import alignment_curve, prompt_weight

SCRIPT = Path(bandit.__file__)
EASY_AND_HARD_APART = np.hstack(
    [bandit.X * (bandit.RIGHT == 0)[:, None], bandit.X * (bandit.RIGHT == 1)[:, None]]
)


@pytest.fixture(autouse=True)
def own_seed(monkeypatch):
    monkeypatch.setattr(bandit, "RNG", np.random.default_rng(7))


def pass_rates(theta, x=bandit.X):
    return bandit.gradients(theta, x, bandit.RIGHT)[0]


def ascent(p, g, k):
    """``(parameters,)`` gradient of pass@k over the whole pool."""
    return prompt_weight(p, k) @ g / len(p)


def cosines(p, g):
    one = ascent(p, g, 1)
    found = [ascent(p, g, k) for k in range(1, 33)]
    return np.array([v @ one / np.linalg.norm(v) / np.linalg.norm(one) for v in found])


def test_gradients_are_those_of_autograd_and_of_finite_differences():
    p, g = bandit.gradients(bandit.THETA, bandit.X, bandit.RIGHT)
    theta = torch.tensor(bandit.THETA, requires_grad=True)
    rows, right = torch.arange(len(p)), torch.tensor(bandit.RIGHT)
    solved = (torch.tensor(bandit.X) @ theta.T).softmax(1)[rows, right]
    np.testing.assert_allclose(p, solved.detach().numpy(), atol=1e-14)
    for i in (0, 17, 399):
        (grad,) = torch.autograd.grad(solved[i], theta, retain_graph=True)
        np.testing.assert_allclose(g[i], grad.flatten().numpy(), atol=1e-14)
    for k in (1, 8, 32):
        for j in range(bandit.THETA.size):
            shift = 1e-5 * np.eye(bandit.THETA.size)[j].reshape(bandit.THETA.shape)
            up, down = (
                np.mean(1 - (1 - pass_rates(bandit.THETA + s)) ** k) for s in (shift, -shift)
            )
            assert ascent(p, g, k)[j] == pytest.approx((up - down) / 2e-5, abs=1e-8)


@pytest.mark.parametrize("eta", [0.1, 1.0, 6.0])
def test_a_pass_at_8_step_raises_pass_at_8_and_lowers_pass_at_1(eta):
    p, g = bandit.gradients(bandit.THETA, bandit.X, bandit.RIGHT)
    after = {k: pass_rates(bandit.THETA + eta * ascent(p, g, k).reshape(4, 2)) for k in (1, 8)}
    assert after[8].mean() < p.mean() < after[1].mean()
    assert np.mean((1 - after[8]) ** 8) < np.mean((1 - p) ** 8)


def test_the_figures_in_the_documents_are_those_of_the_bandit():
    p, g = bandit.gradients(bandit.THETA, bandit.X, bandit.RIGHT)
    levels = [p]
    for k in (8, 1):
        levels.append(pass_rates(bandit.THETA + 6 * ascent(p, g, k).reshape(4, 2)))
    shown = [f"{100 * v:.1f}" for q in levels for v in (q.mean(), np.mean(1 - (1 - q) ** 8))]
    weight = prompt_weight(p, 8)
    share = weight[bandit.RIGHT == 1].sum() / weight.sum()
    cosine = cosines(p, g)
    page = " ".join((SCRIPT.parents[1] / "docs/evidence.md").read_text().split())
    one, eight, after_one, after_eight, along_one, along_eight = shown
    assert f"From pass@1 {one}, pass@8 {eight}, six units along" in page
    assert f"along ∇pass@8 end at {after_one} and {after_eight}" in page
    assert f"along ∇pass@1 at {along_one} and {along_eight}" in page
    assert f"carries {share:.0%}".replace("%", " %") in page
    assert f"through 0 at k = 4 to {cosine[-1]:.2f}".replace("-0.", "-.") in page
    assert abs(cosine[3]) < 0.005


def test_the_conflict_grows_with_k():
    found = cosines(*bandit.gradients(bandit.THETA, bandit.X, bandit.RIGHT))
    assert (np.diff(found) < 0).all()
    assert found[0] == pytest.approx(1)
    assert found[-1] < -0.5


def test_prompts_that_share_no_features_cannot_be_in_conflict():
    theta = np.hstack([bandit.THETA, bandit.THETA])  # the same probabilities as before
    p, g = bandit.gradients(theta, EASY_AND_HARD_APART, bandit.RIGHT)
    np.testing.assert_allclose(p, pass_rates(bandit.THETA))
    assert (cosines(p, g) > 0).all()
    for k in (8, 32):
        after = pass_rates(theta + ascent(p, g, k).reshape(theta.shape), EASY_AND_HARD_APART)
        assert after.mean() > p.mean()


def test_one_probe_as_in_the_script_finds_the_truth_at_every_k():
    p, g = bandit.gradients(bandit.THETA, bandit.X, bandit.RIGHT)
    drawn = bandit.RNG.integers(len(p), size=bandit.PROMPTS)
    x, right = bandit.X[drawn], bandit.RIGHT[drawn]
    solved, rows = bandit.gradients(bandit.THETA, x, right, bandit.ROLLOUTS)
    correct = (solved * bandit.ROLLOUTS).round()
    for a in alignment_curve(rows @ rows.T, correct, bandit.ROLLOUTS, bandit.KS):
        assert abs(a.inner - ascent(p, g, a.k) @ ascent(p, g, 1)) < 4 * a.se


def test_the_script_prints_a_table_and_draws_a_picture(tmp_path):
    result = subprocess.run(
        [sys.executable, SCRIPT],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[1]), "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 1 + len(bandit.KS)
    assert len(SCRIPT.read_text().splitlines()) < 80
    picture = tmp_path / "runs" / "bandit" / "bandit.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
