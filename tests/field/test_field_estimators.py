"""How the field study knows the truth on long completions, and its estimators in small."""

from extras import needs

needs("reasoning_gym", "transformers")

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from field import always_right, estimators, rollout_banks
from field.drift_coverage import effective_size, true_change

from passk_guard.rollouts.group import RolloutGroup


def drawn(p, q, n, fresh, rng):
    """Binary rollouts of the start and of the later policy, with their log-ratios."""
    success = [rng.random((len(p), size)) < x[:, None] for x, size in ((p, n), (q, fresh))]
    ratio = [np.where(s, (q / p)[:, None], ((1 - q) / (1 - p))[:, None]) for s in success]
    (one, other), (shift, own_shift) = success, map(np.log, ratio)
    return [torch.from_numpy(x) for x in (one, shift, other, own_shift)]


@pytest.mark.parametrize("apart", [0.02, 0.4])
def test_the_truth_on_these_prompts_is_true_and_knows_its_error(apart):
    rng = np.random.default_rng(0)
    p = np.linspace(0.1, 0.55, 40)
    found = np.array([true_change(*drawn(p, p + apart, 32, 12, rng)) for _ in range(300)])
    error = found[:, 0].std(ddof=1)
    assert abs(found[:, 0].mean() - apart) < 3 * error / np.sqrt(300) + 0.003 * apart
    assert np.sqrt((found[:, 1] ** 2).mean()) / error == pytest.approx(1, abs=0.1)


def test_effective_size_is_one_of_equal_ratios_and_little_of_unequal_ones():
    assert effective_size(torch.full((50,), -3.0)) == pytest.approx(1)
    assert effective_size(torch.tensor([50.0, *[0.0] * 49])) == pytest.approx(1 / 50)


def test_every_baseline_has_the_mean_of_the_change_and_errors_differ():
    """2,000 prompts at .97 that fall to .93, 12 rollouts of one token."""
    rng = np.random.default_rng(0)
    p, q = np.full(2000, 0.97), np.full(2000, 0.93)
    success, shift, _, _ = drawn(p, q, 12, 1, rng)
    one = torch.ones(12, 1)
    groups = [RolloutGroup(i, one, one, one, own.float()) for i, own in enumerate(success)]
    found = always_right.estimates(groups, shift.expm1())
    for name, (change, se) in found.items():
        assert abs(change + 0.04) < 4 * se + 1e-4, name
    assert found["min(p, 1 - p)"][1] < 0.3 * found["p"][1]


@pytest.mark.long
def test_all_of_it_in_small(tmp_path, capsys):
    found = estimators.measure(tmp_path, rollout_banks.QUICK)
    assert {one["step"] for one in found["drift"]} == {1, 2}
    estimators.print_tables(found)
    assert "what not to do" in capsys.readouterr().out
    again = estimators.measure(tmp_path, rollout_banks.QUICK)  # from what was kept
    assert json.dumps(again) == json.dumps(found)  # of few draws some figures are NaN
