"""How many rollouts pass at once: what memory allows, and the same results whatever that is."""

import math

import pytest
import torch
from cramped import Cramped
from guarded_bandit import CONTEXTS
from peak_memory import peak_memory
from tiny import BanditPolicy, CausalLMPolicy, random_groups

from passk_guard import HeldOutPool, PassKGuard, PassKGuardConfig, compare, probe_policy
from passk_guard.gradients import ENGINES, EngineSettings
from passk_guard.remedies.anchors import AnchorLoss
from passk_guard.rollouts import batching
from passk_guard.rollouts.batching import PassSize
from passk_guard.rollouts.group import RolloutGroup
from passk_guard.rollouts.scores import score_all
from passk_guard.runtime.memory import free_memory, ran_out_of_memory
from passk_guard.runtime.progress import silent


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("limit", [1e12, 0], ids=["exact", "sketched"])
@pytest.mark.parametrize("engine", ["backward", "hooks"])
def test_a_pass_without_memory_is_done_again_in_halves(tiny_lm, engine, limit, where):
    model, groups, told = tiny_lm().eval(), random_groups(6, 5), []

    def gramian(policy, *told):
        settings = EngineSettings(None, PassSize(None, *told), limit)
        made = ENGINES.make(engine, policy, settings)
        return made.gramian(groups, (0,)), made

    want, _ = gramian(CausalLMPolicy(model))
    with Cramped(model, 25, where) as policy:
        got, made = gramian(policy, told.append)
    assert policy.refused
    assert (got - want).norm() / want.norm() < 1e-5
    assert len(told) in (1, 2, 3)
    assert made.said.endswith(f", up to {told[-1]} tokens at once")
    assert all(p.grad is None for p in model.parameters())


def test_scores_are_the_same_and_the_smaller_size_stays(tiny_lm):
    model, groups, size = tiny_lm().eval(), random_groups(6, 5), PassSize()
    want = score_all(CausalLMPolicy(model), groups)
    with Cramped(model, 25) as policy:
        for got, scores in zip(score_all(policy, groups, size), want, strict=True):
            torch.testing.assert_close(got, scores)
        policy.refused = 0
        score_all(policy, groups, size)
    assert not policy.refused


def test_one_rollout_that_does_not_fit_is_an_error_and_so_is_any_other_fault(tiny_lm):
    with Cramped(tiny_lm(), 1) as policy, pytest.raises(RuntimeError, match="out of memory"):
        score_all(policy, random_groups(2, 4), PassSize(4))
    calls = []

    def work(part):
        calls.append(part)
        raise ValueError("no memory of that")

    with pytest.raises(ValueError, match="no memory of that"):
        PassSize().each(8, 4, work)
    assert len(calls) == 1


def test_the_pass_at_1_term_counts_nothing_twice():
    policy = BanditPolicy(12)

    def loss():
        pool = HeldOutPool([{"prompt": str(i)} for i in range(12)])
        return AnchorLoss(policy, pool, 8, 12, policy.isolated, PassSize()).gradient(0)["weight"]

    want = loss()
    with Cramped(policy, 30) as policy:
        assert torch.allclose(loss(), want)
    assert policy.refused


def test_a_guard_loses_no_look_and_says_so():
    said = []
    with Cramped(BanditPolicy(CONTEXTS, dim=3, seed=5), 20) as policy:
        guard = PassKGuard(
            policy,
            HeldOutPool([{"prompt": "a"}] * CONTEXTS),
            PassKGuardConfig(k=4, reference_prompts=16, on_error="raise"),
            isolation=policy.isolated,
            say=said.append,
        )
        assert guard.probe(0).alignment is not None
    assert sum("memory ran out in a forward or backward" in text for text in said) >= 1
    assert f"up to {guard.passes.tokens} tokens go through the model at once" in said[-2] + said[-1]


def test_what_memory_allows_is_told_of_one_policy_and_of_two():
    rows = [{"prompt": str(i)} for i in range(64)]
    with Cramped(BanditPolicy(64, dim=3, seed=5), 12) as policy:
        found = probe_policy(policy, rows, k=4, progress=silent)
        other = compare(policy, policy, prompts=rows, num_generations=8, progress=silent)
    assert "Gradients were taken, up to " in str(found.remarks)
    assert "Rollouts were scored, up to " in str(other.remarks)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_size_is_what_fits_into_half_of_the_free_memory(tiny_lm, monkeypatch, checkpointing):
    model, groups = tiny_lm().train(), random_groups(8, 8)
    if checkpointing:
        enable = getattr(model, "activation_checkpointing_enable", None)
        (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
    policy, sizes = CausalLMPolicy(model.eval()), {}
    for free in (2**23, 2**21, 2**22, 2**12):
        monkeypatch.setattr(batching, "free_memory", lambda device, free=free: free)
        again = sizes.setdefault("again", PassSize())
        for size in (sizes.setdefault(free, PassSize()), again):
            size.fit(policy, groups)
        assert again.tokens == min(sizes[other].tokens for other in sizes if other != "again")
    assert sizes[2**23].tokens == 2 * sizes[2**22].tokens == 4 * sizes[2**21].tokens
    assert math.log2(sizes[2**23].tokens) % 1 == 0
    taken = PassSize()
    monkeypatch.setattr(batching, "free_memory", lambda device: 2**21)
    taken.fit(policy, groups, beside=2**20)
    assert taken.tokens == sizes[2**21].tokens / 2
    assert sizes[2**12].rollouts(12) == 1
    tokens = [t.repeat(8, 1) for t in groups[0].tokens]
    rollouts = sizes[2**21].rollouts(tokens[0].shape[1])
    part = [t[:rollouts] for t in tokens]
    assert len(part[0]) == rollouts
    assert 2**18 < peak_memory(lambda: policy.log_probs(*part).sum().backward()) < 2**21


@pytest.mark.parametrize("autocast", [False, True])
def test_what_is_kept_is_neither_weights_nor_mistaken_for_them(tiny_lm, monkeypatch, autocast):
    """Nor where rollouts are as long as a matrix is wide, or weights lie in one file's memory."""
    monkeypatch.setattr(batching, "free_memory", lambda device: 2**30)
    model, kept = tiny_lm().eval(), {}
    for width in (31, 32, 48, 32):
        if len(kept) == 3:
            whole = torch.cat([p.detach().flatten() for p in model.parameters()])
            parts = whole.split([p.numel() for p in model.parameters()])
            for parameter, part in zip(model.parameters(), parts, strict=True):
                parameter.data = part.view_as(parameter)
        ids = torch.ones(2, width, dtype=torch.long)
        size, group = PassSize(), RolloutGroup(0, ids, ids, ids, torch.ones(2))
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            size.fit(CausalLMPolicy(model), [group])
        kept[width, len(kept)] = size._measured[1]
    assert max(kept.values()) < 1.15 * min(kept.values())


def test_a_trainers_micro_batch_is_never_exceeded(tiny_lm, monkeypatch):
    size = PassSize(3)
    size.fit(CausalLMPolicy(tiny_lm()), random_groups(4, 4))
    assert (size.rollouts(10), size.rollouts(2**15), size.said) == (3, 3, "")
    monkeypatch.setattr(batching, "free_memory", lambda device: 2**12)
    size.fit(CausalLMPolicy(tiny_lm()), random_groups(4, 4))
    assert size.rollouts(10) == 1


def test_what_free_memory_is_and_which_errors_say_that_there_is_none():
    assert 2**20 < free_memory(torch.device("cpu")) < 2**50
    assert free_memory(torch.device("meta")) == math.inf
    for error in (
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
        MemoryError(),
    ):
        assert ran_out_of_memory(error)
    assert not ran_out_of_memory(RuntimeError("expected all tensors to be on the same device"))
