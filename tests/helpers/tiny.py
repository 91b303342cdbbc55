"""Small real things for tests: a bandit with known gradients, a tiny Llama."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch_lm import TorchLM

from passk_guard.rollouts.group import RolloutGroup
from passk_guard.rollouts.token_log_probs import token_log_probs
from passk_guard.runtime.isolation import isolated
from passk_guard.runtime.sharding import named_parameters


class BanditPolicy(nn.Module):
    """Contextual softmax bandit; a rollout is ``tokens`` independent actions, all must be right.

    Context x has features φ(x); logits are W φ(x). The right action differs from context to
    context, so gradients interfere. Everything about it can be computed exactly for one token.
    """

    def __init__(self, contexts: int, actions: int = 4, dim: int = 3, tokens: int = 1, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.features = torch.randn(contexts, dim, generator=generator, dtype=torch.float64)
        self.right = torch.randint(actions, (contexts,), generator=generator)
        weight = 1.5 * torch.randn(actions, dim, generator=generator, dtype=torch.float64)
        self.weight = nn.Parameter(weight)
        self.tokens = tokens
        self.generated = 0

    def pi(self, row: int | Tensor) -> Tensor:
        return (self.features[row] @ self.weight.T).log_softmax(-1)

    def success(self, row: int) -> Tensor:
        return (self.pi(row)[self.right[row]] * self.tokens).exp()

    def exact_gradients(self) -> tuple[Tensor, Tensor]:
        """(contexts,) success probabilities and (contexts, parameters) their gradients."""
        p = torch.stack([self.success(x) for x in range(len(self.right))])
        rows = [torch.autograd.grad(v, self.weight, retain_graph=True)[0].flatten() for v in p]
        return p.detach(), torch.stack(rows)

    # The Policy protocol ------------------------------------------------------------------

    def parameters(self, recurse: bool = True):
        return self.named_parameters()

    def generate(self, rows, row_ids, n):
        groups = []
        for i in row_ids:
            with torch.no_grad():
                scores = self.pi(i)
            draws = torch.multinomial(scores.exp(), n * self.tokens, replacement=True)
            actions = draws.view(n, self.tokens)
            # The context is the prompt: the first token.
            tokens = torch.cat([torch.full_like(actions[:, :1], i), actions], 1)
            ones = torch.ones_like(tokens)
            sampled = torch.cat([0 * ones[:, :1], ones[:, 1:]], 1)
            success = (actions == self.right[i]).all(1).float()
            told = torch.cat([torch.zeros_like(scores[actions[:, :1]]), scores[actions]], 1)
            groups.append(RolloutGroup(i, tokens, ones, sampled, success, sampling_log_probs=told))
            self.generated += n
        return groups

    def log_probs(self, input_ids, attention_mask, completion_mask):
        actions = input_ids[:, 1:].clamp(max=self.weight.shape[0] - 1)
        scores = self.pi(input_ids[:, 0]).gather(1, actions)
        return torch.cat([torch.zeros_like(scores[:, :1]), scores], 1) * completion_mask

    @contextmanager
    def isolated(self, seed):
        module = nn.Module()
        module.weight = self.weight
        with isolated(module, seed=seed):
            yield


class CausalLMPolicy:
    """A Hugging Face causal LM that scores; rollouts come from elsewhere."""

    def __init__(self, model, temperature: float = 1.0):
        self.model, self.temperature = model, temperature

    def parameters(self):
        return named_parameters(self.model)

    def log_probs(self, input_ids, attention_mask, completion_mask):
        return token_log_probs(
            self.model, input_ids, attention_mask, completion_mask, self.temperature
        )


def tiny_llama(*, tied: bool = False, seed: int = 0):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            tie_word_embeddings=tied,
            attention_dropout=0.1,
        )
    )


def tiny_torch_lm(*, tied: bool = False, seed: int = 0):
    torch.manual_seed(seed)
    return TorchLM(tied=tied)


LANGUAGE_MODELS = {"torch": tiny_torch_lm, "llama": tiny_llama}
KINDS = ["torch", pytest.param("llama", marks=pytest.mark.needs("transformers"))]


def random_groups(prompts: int, n: int, *, seed: int = 0, padding: str = "right"):
    """Rollouts of random tokens and random success, padded on the side asked for."""
    generator = torch.Generator().manual_seed(seed)
    groups = []
    for row in range(prompts):
        head = int(torch.randint(2, 6, (1,), generator=generator))
        lengths = torch.randint(1, 7, (n,), generator=generator)
        prompt = torch.randint(32, (head,), generator=generator)
        width = head + int(lengths.max())
        ids = torch.zeros(n, width, dtype=torch.long)
        attention, completion = torch.zeros_like(ids), torch.zeros_like(ids)
        for j, length in enumerate(lengths.tolist()):
            used = head + length
            start = 0 if padding == "right" else width - used
            tokens = torch.cat([prompt, torch.randint(32, (length,), generator=generator)])
            ids[j, start : start + used] = tokens
            attention[j, start : start + used] = 1
            completion[j, start + head : start + used] = 1
        right = int(torch.randint(0, n + 1, (1,), generator=generator))
        success = (torch.randperm(n, generator=generator) < right).float()
        groups.append(RolloutGroup(row, ids, attention, completion, success))
    return groups
