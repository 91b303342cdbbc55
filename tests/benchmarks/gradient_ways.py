"""Ways to the Gramian of per-prompt gradients, for ``probe_cost.py`` and ``gpu_cost.py``."""

from __future__ import annotations

from typing import Any

import torch
from tiny import CausalLMPolicy
from transformers import LlamaConfig, LlamaForCausalLM

from passk_guard.gradients import EngineSettings, HookEngine
from passk_guard.gradients.backward import prompt_gramian
from passk_guard.gradients.parameters import select_parameters
from passk_guard.rollouts.batching import PassSize
from passk_guard.rollouts.group import RolloutGroup
from passk_guard.rollouts.group import stacked as concatenated
from passk_guard.rollouts.scores import score

Groups = list[RolloutGroup]


def make_model(hidden: int, layers: int, vocabulary: int, positions: int = 2048) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=8 * hidden // 3,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64 or 1,
        num_key_value_heads=hidden // 64 or 1,
        max_position_embeddings=positions,
    )
    return LlamaForCausalLM(config).eval()


def make_groups(m: int, n: int, length: int, vocabulary: int, device: str) -> Groups:
    """Half of each prompt's rollouts are right; a quarter of the tokens are the prompt's."""
    rng = torch.Generator().manual_seed(1)
    groups = []
    for row in range(m):
        ids = torch.randint(vocabulary, (n, length), generator=rng).to(device)
        ids[:, : length // 4] = ids[0, : length // 4]
        ones = torch.ones_like(ids)
        sampled = ones.clone()
        sampled[:, : length // 4] = 0
        success = (torch.arange(n) < n // 2).float()
        groups.append(RolloutGroup(row, ids, ones, sampled, success))
    return groups


def prompt_loss(policy: Any, group: RolloutGroup) -> torch.Tensor:
    scores = policy.log_probs(*group.tokens).sum(-1)
    return scores @ (group.centred_success() / group.n).to(scores)


class GradientWays:
    """Ways to a Gramian of per-prompt gradients, and what they are measured against."""

    def __init__(self, model: Any, at_once: int | None = None) -> None:
        self.model, self.policy, self.at_once = model, CausalLMPolicy(model), at_once
        self._engines: dict[float, HookEngine] = {}
        self.parameters = select_parameters(model.named_parameters())

    def plain(self, groups: Groups) -> None:
        """Forward and backward as training does it, gradients summed."""
        for group in groups:
            prompt_loss(self.policy, group).backward()
        self.model.zero_grad()

    def batched(self, groups: Groups) -> None:
        """The same, prompts together, as many rollouts at once as the others take."""
        tokens = concatenated(groups)
        weights = torch.cat([group.centred_success() / group.n for group in groups])

        def backward(which: slice) -> None:
            scores = self.policy.log_probs(*(t[which] for t in tokens)).sum(-1)
            (scores @ weights[which].to(scores)).backward()

        PassSize(self.at_once).each(*tokens[0].shape, backward)
        self.model.zero_grad()

    def scoring(self, groups: Groups) -> None:
        score(self.policy, groups, PassSize(self.at_once))

    def hooks(self, groups: Groups) -> torch.Tensor:
        return self._watched(groups, 1e15)

    def hooked_sketch(self, groups: Groups) -> torch.Tensor:
        return self._watched(groups, 0)

    def _watched(self, groups: Groups, limit: float) -> torch.Tensor:
        if limit not in self._engines:
            settings = EngineSettings(None, PassSize(self.at_once), limit)
            self._engines[limit] = HookEngine(self.policy, settings)
        return self._engines[limit].gramian(groups, (0,))

    def exact(self, groups: Groups) -> torch.Tensor:
        return prompt_gramian(self.policy, groups, self.parameters, memory_limit=float("inf"))

    def sketch(self, groups: Groups) -> torch.Tensor:
        return prompt_gramian(self.policy, groups, self.parameters, memory_limit=0)
