"""On a GPU, too, a guard that only watches changes no bit of a run."""

from extras import needs

needs("trl", "lightning", "peft")

import pytest
import torch
from gpu_runs import EVERY, STEPS, VARIANTS, run
from hosts import HOSTS
from torch.nn.attention import SDPBackend, sdpa_kernel
from trl_runs import same_weights

# What releases that were never seen here warn of decides nothing.
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]


@pytest.fixture(autouse=True)
def repeatable():
    """Deterministic kernels, where there are any: two runs alone are compared first.

    The fused kernels of attention add up gradients in no fixed order.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    with sdpa_kernel(SDPBackend.MATH):
        yield
    torch.use_deterministic_algorithms(False)
    torch._dynamo.reset()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("host", HOSTS)
def test_warn_leaves_weights_and_losses_bit_identical(tmp_path, host, variant):
    alone = run(host, variant, tmp_path / "alone")
    again = run(host, variant, tmp_path / "again")
    if not same_weights(alone.weights, again.weights):
        pytest.fail("two runs without a guard differ: nothing can be told", pytrace=False)
    guarded = run(host, variant, tmp_path / "guarded", guarded=True)
    assert not guarded.guard.failures
    assert [p.step for p in guarded.guard.history] == list(range(0, STEPS + 1, EVERY))
    assert same_weights(alone.weights, guarded.weights)
    assert alone.losses == guarded.losses
    assert all(bool(w.isfinite().all()) for w in alone.weights.values() if w.is_floating_point())


@pytest.mark.parametrize("host", HOSTS)
def test_one_sampled_token_more_or_less_is_seen(tmp_path, host):
    """The negative control of the above."""
    alone, odd = (run(host, "bf16", tmp_path / str(odd), odd=odd) for odd in (False, True))
    assert not same_weights(alone.weights, odd.weights)
    assert alone.losses != odd.losses


@pytest.mark.filterwarnings("ignore::passk_guard.errors.PassKGuardWarning")
@pytest.mark.parametrize("variant", ["bf16", "fp16"])
@pytest.mark.parametrize("host", HOSTS)
def test_a_remedy_is_as_large_as_in_float32(tmp_path, host, variant):
    """A GradScaler has scaled the gradients that it is matched with and added to, by 2^16."""

    def run_so(name, how, **alarm):
        objective = {k: v for k, v in HOSTS[host].mix.items() if k == "objective"}
        found = run(host, how, tmp_path / name, guarded=True, **objective | alarm)
        assert not found.guard.failures
        return found

    calm = run_so("calm", variant)
    alarm = {"action": ["warn", "mix"], "floor": 0.99, **HOSTS[host].mix}
    whole, half = run_so("whole", "float32", **alarm), run_so("half", variant, **alarm)
    assert half.guard.history[0].alarm
    assert half.guard.pass1_weight == 1.0
    assert not same_weights(calm.weights, half.weights)
    assert all(bool(weight.isfinite().all()) for weight in half.weights.values())
    if host != "trl":  # which mixes advantages
        sizes = [found.guard.objective.scale for found in (whole, half)]
        assert 1.0 not in sizes  # they were matched
        assert min(sizes) > 0
        assert max(sizes) < 5 * min(sizes)
