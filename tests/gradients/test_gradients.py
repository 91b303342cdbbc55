"""The Gramian against explicit per-prompt gradients on a real tiny Llama."""

import pytest
import torch
from tiny import CausalLMPolicy, random_groups

from passk_guard.gradients.accumulators import ExactGramian
from passk_guard.gradients.backward import prompt_gramian
from passk_guard.gradients.parameters import NothingTrainable, select_parameters
from passk_guard.rollouts.batching import PassSize
from passk_guard.runtime.isolation import checkpointing_without_dropout


def explicit_gradients(model, groups):
    """One rollout at a time, without padding, with autograd.grad: slow and obvious."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for group in groups:
        total = [torch.zeros_like(p) for p in parameters]
        for j in range(group.n):
            used = group.attention_mask[j].bool()
            ids = group.input_ids[j][used][None]
            sampled = group.completion_mask[j][used].bool()
            log_probs = model(input_ids=ids).logits[0].log_softmax(-1)
            score = sum(log_probs[t - 1, ids[0, t]] for t in range(1, ids.shape[1]) if sampled[t])
            weight = (group.success[j] - group.success.mean()) / (group.n - 1)
            for slot, g in zip(total, torch.autograd.grad(score, parameters), strict=True):
                slot += weight * g
        rows.append(torch.cat([t.flatten() for t in total]).double())
    return torch.stack(rows)


def gramian(model, **settings):
    groups = random_groups(8, 6)
    parameters = select_parameters(model.named_parameters())
    return prompt_gramian(CausalLMPolicy(model), groups, parameters, **settings)


def cosine(a, b):
    return float((a * b).sum() / (a.norm() * b.norm()))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("checkpointing", [None, "plain", "reentrant"])
@pytest.mark.parametrize("padding", ["right", "left"])
def test_gramian_equals_explicit_gradients(tiny_lm, tied, checkpointing, padding):
    model = tiny_lm(tied=tied).eval()
    groups = random_groups(6, 5, padding=padding)
    gradients = explicit_gradients(model, groups)
    want = gradients @ gradients.T
    if checkpointing:
        model.train()
        enable = getattr(model, "activation_checkpointing_enable", None)
        enable = enable or model.gradient_checkpointing_enable
        enable({"use_reentrant": checkpointing == "reentrant"})
        if checkpointing == "reentrant":
            model.enable_input_require_grads()
        model.eval()
    parameters = select_parameters(model.named_parameters())
    with checkpointing_without_dropout(model):
        assert not checkpointing or any(m.training for m in model.modules())
        got = prompt_gramian(CausalLMPolicy(model), groups, parameters, size=PassSize(2))
    error = (got - want).norm() / want.norm()
    assert error < 1e-5
    assert not any(m.training for m in model.modules())


def test_a_wrong_mask_fails_the_same_comparison(tiny_lm):
    model = tiny_lm().eval()
    groups = random_groups(6, 5)
    gradients = explicit_gradients(model, groups)
    for group in groups:
        group.completion_mask[:, :-1] &= group.completion_mask[:, 1:]  # loses the last token
    got = prompt_gramian(CausalLMPolicy(model), groups, select_parameters(model.named_parameters()))
    want = gradients @ gradients.T
    assert (got - want).norm() / want.norm() > 1e-2


@pytest.mark.parametrize("wanted", [None, "layers"])
def test_nothing_is_left_behind(tiny_lm, wanted):
    """Nor on parameters that nobody asked for, of which the second one is one, then."""
    model = tiny_lm().eval()
    first, *others = model.parameters()
    first.grad = torch.ones_like(first)
    calls = []
    second = others[-1]
    second.register_post_accumulate_grad_hook(lambda p: calls.append(p))
    parameters = select_parameters(model.named_parameters(), wanted)
    assert any(parameter is second for _, parameter in parameters) == (wanted is None)
    prompt_gramian(CausalLMPolicy(model), random_groups(4, 4), parameters)
    assert torch.equal(first.grad, torch.ones_like(first))
    assert all(p.grad is None for p in others)
    assert calls == []  # an optimiser that steps inside backward must not step
    assert len(second._post_accumulate_grad_hooks) == 1
    assert all(not p._post_accumulate_grad_hooks for p in others[:-1])
    second.sum().backward()
    assert len(calls) == 1


def test_parameter_subsets_add_up(tiny_lm):
    model = tiny_lm().eval()
    groups = random_groups(4, 4)
    policy = CausalLMPolicy(model)
    parts = [
        prompt_gramian(policy, groups, select_parameters(model.named_parameters(), wanted))
        for wanted in (r"mlp", lambda name, _: "mlp" not in name, None)
    ]
    torch.testing.assert_close(parts[0] + parts[1], parts[2], rtol=1e-4, atol=1e-6)
    model.lm_head.requires_grad_(False)
    assert "lm_head.weight" not in dict(select_parameters(model.named_parameters()))
    with pytest.raises(ValueError, match="selects no trainable parameter"):
        select_parameters(model.named_parameters(), "no_such_layer")
    model.requires_grad_(False)  # as before gradual unfreezing, which mends no wrong name
    for wanted in (r"mlp", lambda name, _: False, None):
        with pytest.raises(NothingTrainable, match="all of them frozen"):
            select_parameters(model.named_parameters(), wanted)
    with pytest.raises(ValueError, match="has 0 trainable ones"):
        select_parameters(model.named_parameters(), "no_such_layer")


def test_inner_products_of_long_gradients_do_not_lose_their_end():
    kept = ExactGramian(1)
    kept.add(0, "weight", torch.full((32_000 * 768,), 0.01))
    assert float(kept.gramian()) == pytest.approx(0.01**2 * 32_000 * 768, rel=3e-5)


def test_nan_is_an_error_with_the_row(tiny_lm):
    model = tiny_lm()
    with torch.no_grad():
        model.lm_head.weight[:] = float("nan")
    with pytest.raises(FloatingPointError, match="not finite on row"):
        prompt_gramian(
            CausalLMPolicy(model), random_groups(4, 4), select_parameters(model.named_parameters())
        )


def test_micro_batches_cover_every_rollout_within_a_token_budget():
    def sizes(n, most, width):
        parts = PassSize(most).each(n, width, lambda part: part)
        assert [i for part in parts for i in range(n)[part]] == list(range(n))
        return [part.stop - part.start for part in parts]

    assert sizes(16, None, 300) == [16]  # 4800 tokens
    assert sizes(16, None, 4096) == [4, 4, 4, 4]
    assert sizes(3, None, 10**6) == [1, 1, 1]
    assert sizes(5, 2, 10) == [2, 2, 1]


@pytest.mark.parametrize("limit", [2**30, 0], ids=["exact", "sketched"])
def test_bfloat16_weights_give_the_gramian_of_float32_ones(tiny_lm, limit):
    whole = gramian(tiny_lm().eval())
    half = gramian(tiny_lm().eval().bfloat16(), memory_limit=limit)
    assert cosine(whole, half) > 0.99
    assert cosine(whole, half[torch.randperm(8)]) < 0.9  # of other prompts: it would be seen


@pytest.mark.long
def test_a_compiled_model_gives_the_same(tiny_lm):
    model = tiny_lm().eval()
    whole = gramian(model)
    compiled = torch.compile(model, backend="aot_eager", dynamic=True)
    groups = random_groups(8, 6)
    parameters = select_parameters(model.named_parameters())
    got = prompt_gramian(CausalLMPolicy(compiled), groups, parameters)
    assert (got - whole).norm() / whole.norm() < 1e-5
