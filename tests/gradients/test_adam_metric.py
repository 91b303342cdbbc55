"""Adam's metric against explicit gradients, and against the step that Adam really takes."""

import pytest
import torch
from tiny import CausalLMPolicy, random_groups

from passk_guard.gradients.adam_metric import adam_scales
from passk_guard.gradients.backward import prompt_gramian
from passk_guard.gradients.parameters import select_parameters


def train(model, optimizer, steps=5):
    torch.manual_seed(0)
    for _ in range(steps):
        ids = torch.randint(32, (4, 8))
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def flat_gradient(policy, parameters, group):
    coefficients = group.centred_success() / group.n
    loss = policy.log_probs(*group.tokens).sum(-1) @ coefficients
    return torch.autograd.grad(loss, [p for _, p in parameters])


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "NAdam", "RAdam", "amsgrad"])
def test_gramian_in_adams_metric(tiny_lm, kind):
    model = tiny_lm().eval()
    if kind == "amsgrad":
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, amsgrad=True)
    else:
        optimizer = getattr(torch.optim, kind)(model.parameters(), lr=1e-3)
    train(model, optimizer)
    policy, groups = CausalLMPolicy(model), random_groups(6, 5)
    parameters = select_parameters(policy.parameters())
    scales = adam_scales(optimizer, parameters)
    got = prompt_gramian(policy, groups, parameters, scales=scales)
    metric = []
    for _, p in parameters:
        state = optimizer.state[p]
        moment = state["max_exp_avg_sq"] if kind == "amsgrad" else state["exp_avg_sq"]
        corrected = moment / (1 - 0.999 ** float(state["step"]))
        metric.append(1 / (corrected.sqrt() + 1e-8))
    rows = [
        torch.cat([(g * p.sqrt()).flatten() for g, p in zip(gs, metric, strict=True)])
        if group.has_signal
        else torch.zeros(sum(p.numel() for _, p in parameters))
        for group in groups
        for gs in [flat_gradient(policy, parameters, group)]
    ]
    want = torch.stack(rows) @ torch.stack(rows).T
    torch.testing.assert_close(got, want.double(), rtol=2e-4, atol=1e-3 * float(want.abs().max()))
    euclidean = prompt_gramian(policy, groups, parameters)
    cosine = torch.nn.functional.cosine_similarity(got.flatten(), euclidean.flatten(), dim=0)
    assert cosine < 0.99  # it is another metric


def test_it_predicts_the_step_that_adam_takes(tiny_lm):
    """Without momentum, Adam moves a loss by -lr ⟨g, P g⟩ to first order; SGD's metric does not."""
    model = tiny_lm().eval()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.0, 0.999))
    train(model, optimizer)
    ids = torch.randint(32, (4, 8), generator=torch.Generator().manual_seed(9))
    before = model(input_ids=ids, labels=ids).loss
    before.backward()
    for group in optimizer.param_groups:
        group["lr"] = 1e-5
    gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
    optimizer.step()
    scales = adam_scales(optimizer, list(model.named_parameters()))  # those of this very step
    predicted = -1e-5 * sum(float(((g * scales[n]) ** 2).sum()) for n, g in gradients.items())
    with torch.no_grad():
        moved = float(model(input_ids=ids, labels=ids).loss - before)
    assert moved == pytest.approx(predicted, rel=0.05)


def test_before_the_first_step_there_is_no_metric(tiny_lm):
    model = tiny_lm()
    assert adam_scales(torch.optim.AdamW(model.parameters()), list(model.named_parameters())) == {}


def test_wrapped_optimizers_are_unwrapped_and_others_refused(tiny_lm):
    model = tiny_lm()
    optimizer = torch.optim.AdamW(model.parameters())
    train(model, optimizer, 1)

    class Wrapper:
        def __init__(self, optimizer):
            self.optimizer = optimizer

    named = list(model.named_parameters())
    assert set(adam_scales(Wrapper(optimizer), named)) == {n for n, _ in named}
    with pytest.raises(ValueError, match=r"metric='adam' reads .* but the optimizer is .*SGD"):
        adam_scales(torch.optim.SGD(model.parameters(), lr=0.1), named)
    partly = torch.optim.AdamW(list(model.parameters())[1:])
    with pytest.raises(
        ValueError, match=r"the optimizer does not train 'model\.embed_tokens\.weight'"
    ):
        adam_scales(partly, named)
