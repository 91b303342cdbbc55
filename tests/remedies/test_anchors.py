"""The pass@1 term on anchor prompts: its gradient, its size, its faults."""

import pytest
import torch
from tiny import BanditPolicy

from passk_guard import HeldOutPool, PassKGuardWarning
from passk_guard.objectives.mixes import AnchorMix
from passk_guard.remedies.anchors import AnchorLoss, AnchorTerm, norm
from passk_guard.remedies.gradient_term import HostNorm, add_to_gradients


def bandit_loss(contexts=12, prompts=12, n=8):
    policy = BanditPolicy(contexts)

    rows = [{"prompt": str(i)} for i in range(contexts)]
    return policy, AnchorLoss(policy, HeldOutPool(rows), n, prompts, policy.isolated, None)


@pytest.mark.long
def test_the_gradient_is_unbiased_for_pass_at_1():
    policy, loss = bandit_loss()
    _, gradients = policy.exact_gradients()
    truth = -gradients.mean(0)
    draws = torch.stack([loss.gradient(seed)["weight"].flatten() for seed in range(400)]).double()
    z = (draws.mean(0) - truth) / (draws.std(0) / 400**0.5)
    assert z.abs().max() < 4
    one_sided = (draws.mean(0) * 1.2 - truth) / (draws.std(0) / 400**0.5)
    assert one_sided.abs().max() > 4  # a term that were a fifth too large would be seen


def test_the_runs_own_gradients_stay_as_they_are():
    policy, loss = bandit_loss()
    kept = policy.weight.grad = torch.ones_like(policy.weight)
    state = torch.get_rng_state()
    loss.gradient(0)
    assert policy.weight.grad is kept
    assert torch.equal(policy.weight.grad, torch.ones_like(policy.weight))
    assert torch.equal(torch.get_rng_state(), state)


def test_adding_scales_and_sums():
    policy, loss = bandit_loss()
    gradient = loss.gradient(0)
    add_to_gradients(loss.parameters(), gradient, 2.0)
    add_to_gradients(loss.parameters(), gradient, 0.5)
    assert torch.allclose(policy.weight.grad, 2.5 * gradient["weight"])


def test_host_norm_sees_the_sum_over_micro_batches_and_nothing_after():
    model = torch.nn.Linear(3, 2)
    watch = HostNorm()
    watch.watch(dict(model.named_parameters()), 7.0)
    for _ in range(3):
        model(torch.ones(4, 3)).square().sum().backward()
    wanted = norm(p.grad for p in model.parameters())
    assert watch.read() == pytest.approx((wanted, 7.0))
    assert not watch.watching
    model(torch.ones(4, 3)).sum().backward()
    assert watch.read()[0] == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_norms_of_more_numbers_than_float32_can_count(dtype):
    weight = torch.nn.Parameter(torch.zeros(32_000, 768, dtype=dtype))
    watch = HostNorm()
    watch.watch({"weight": weight}, 0.0)
    torch.autograd.backward(weight, torch.full_like(weight, 0.01))
    wanted = float(weight.grad[0, 0]) * weight.numel() ** 0.5
    assert norm([weight.grad]) == pytest.approx(wanted, rel=1e-5)
    assert watch.read()[0] == pytest.approx(wanted, rel=1e-5)


def test_the_factor_is_the_odds_of_lambda_and_stays_finite():
    mix = AnchorMix(8)
    mix.scale = 3.0
    factors = []
    for mix.pass1_weight in (0.0, 0.5, 0.75, 1.0):
        factors.append(mix.factor)
    assert factors == pytest.approx([0.0, 3.0, 9.0, 57.0])


def test_weights_in_force_go_from_the_pass_at_k_ones_to_one():
    mix = AnchorMix(2)
    assert mix.prompt_weight(1, 4, None, None) == pytest.approx(2 * 2 / 2)  # k C(n-c-1,1)/C(n-2,1)
    mix.pass1_weight = 1.0  # at most .95 is applied
    assert mix.prompt_weight(1, 4, None, None) == pytest.approx(0.05 * 2 + 0.95)


def test_matching_takes_the_ratio_and_ignores_what_is_no_size():
    _, loss = bandit_loss()
    mix = AnchorMix(8)
    mix.pass1_weight = 0.5
    term = AnchorTerm(loss, mix, seed=0)
    assert term.due()
    for host, own in ((0.0, 1.0), (1.0, 0.0), (float("nan"), 1.0), (float("inf"), 1.0)):
        term.match(host, own)
        assert not term.matched
    term.match(6.0, 2.0)
    assert (term.matched, mix.scale) == (True, 3.0)


def test_a_fault_costs_that_steps_term_and_is_said_once_per_episode():
    policy, loss = bandit_loss()
    mix = AnchorMix(8)
    term = AnchorTerm(loss, mix, seed=0)
    mix.pass1_weight = 0.5
    with torch.no_grad():
        good = policy.weight.clone()
        policy.weight.fill_(torch.nan)
    with pytest.warns(PassKGuardWarning, match="step 3: the pass@1 term is left out"):
        assert term.gradient(3) is None
    assert term.gradient(4) is None  # warnings are errors here: it is not said again
    with torch.no_grad():
        policy.weight.copy_(good)
    assert term.gradient(5)
    mix.pass1_weight = 0.0
    assert not term.due()
