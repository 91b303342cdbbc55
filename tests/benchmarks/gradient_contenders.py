"""Ways to the Gramian of per-prompt gradients, for ``probe_cost.py``."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from tiny import CausalLMPolicy
from torch.func import functional_call, grad, vmap
from transformers import LlamaConfig, LlamaForCausalLM

from passk_guard.gradients import EngineSettings, HookEngine
from passk_guard.gradients.backward import add_gradient, prompt_gramian
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


def rollout_scores(model: Any, ids: torch.Tensor, **how: Any) -> torch.Tensor:
    """``(b,)`` log-probabilities of completions, written so that torch.func can take it."""
    start = ids.shape[1] // 4
    logits = model(input_ids=ids, use_cache=False, **how).logits[:, start - 1 : -1]
    return logits.log_softmax(-1).gather(-1, ids[:, start:, None])[..., 0].sum(-1)


class Nothing:
    """An accumulator that keeps no gradient."""

    def add(self, row: int, name: str, gradient: torch.Tensor) -> None:
        pass


class Contenders:
    """Ways to a Gramian of per-prompt gradients, and what they are measured against."""

    def __init__(self, model: Any, at_once: int | None = None) -> None:
        self.model, self.policy, self.at_once = model, CausalLMPolicy(model), at_once
        self._engines: dict[float, HookEngine] = {}
        self.parameters = select_parameters(model.named_parameters())

    def works(self, groups: Groups, *names: str) -> dict[str, Callable[[], Any]]:
        return {name: partial(getattr(self, name), groups) for name in names}

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
        """What a guard did besides, before layers were watched."""
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

    @property
    def said(self) -> str:
        """Of the sketch: its size and error."""
        engine = self._engines[0]
        return f"{engine._size} numbers a side, error of a cosine {engine.error:.4f}"

    def bergson(self, groups: Groups) -> torch.Tensor:
        """Two-sided projections of each rollout, p = 16; linear layers only."""
        return bergson_gramian(self.model, self.policy, groups, self.at_once)

    def nothing_kept(self, groups: Groups) -> None:
        for row, group in enumerate(groups):
            add_gradient(Nothing(), row, self.policy, [group], self.parameters)

    def exact(self, groups: Groups) -> torch.Tensor:
        return prompt_gramian(self.policy, groups, self.parameters, memory_limit=float("inf"))

    def sketch(self, groups: Groups) -> torch.Tensor:
        return prompt_gramian(self.policy, groups, self.parameters, memory_limit=0)

    def loop(self, groups: Groups) -> torch.Tensor:
        tensors = [p for _, p in self.parameters]
        rows = [
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, tensors)])
            for loss in (prompt_loss(self.policy, group) for group in groups)
        ]
        gradients = torch.stack(rows)
        return gradients @ gradients.T

    def vmap(self, groups: Groups) -> torch.Tensor:
        # The fused attention kernels have no batching rule.
        model = with_eager_attention(self.model)
        weights = {name: p.detach() for name, p in self.parameters}

        def loss(weights, ids, coefficients):
            def call(**inputs):
                return functional_call(model, weights, kwargs=inputs)

            return rollout_scores(call, ids) @ coefficients

        found = vmap(grad(loss), in_dims=(None, 0, 0))(weights, *stacked(groups))
        return sum(g.flatten(1) @ g.flatten(1).T for g in found.values())

    def autogram(self, groups: Groups) -> torch.Tensor:
        """TorchJD over prompts: one objective each."""
        from torchjd.autogram import Engine

        model = with_eager_attention(self.model)
        engine = Engine(model, batch_dim=None)
        ids, coefficients = stacked(groups)
        scores = rollout_scores(model, ids.flatten(0, 1)).view(coefficients.shape)
        return engine.compute_gramian((scores * coefficients).sum(-1))

    def autogram_batched(self, groups: Groups) -> torch.Tensor:
        """TorchJD over rollouts, which it may batch; then summed over each prompt's."""
        from torchjd.autogram import Engine

        model = with_eager_attention(self.model)
        engine = Engine(model, batch_dim=0)
        ids, coefficients = stacked(groups)
        gramian = engine.compute_gramian(rollout_scores(model, ids.flatten(0, 1)))
        weights = torch.block_diag(*coefficients)
        return weights @ gramian @ weights.T


def with_eager_attention(model: Any) -> Any:
    """A shell of the model with the same parameters."""
    memo = {id(p): p for p in model.parameters()}
    other = copy.deepcopy(model, memo)
    other.set_attn_implementation("eager")
    return other


def stacked(groups: Groups) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.stack([group.input_ids for group in groups])
    coefficients = torch.stack([group.centred_success() / group.n for group in groups])
    return ids, coefficients.to(ids.device)


def bergson_gramian(model: Any, policy: Any, groups: Groups, at_once: int | None) -> torch.Tensor:
    from bergson.collector.collector import HookCollectorBase
    from bergson.gradients import GradientProcessor

    class Collector(HookCollectorBase):
        def setup(self) -> None:
            pass

        def teardown(self) -> None:
            pass

        def process_batch(self, indices: list[int], **kwargs: Any) -> None:
            pass

        def backward_hook(self, module: Any, g: torch.Tensor) -> None:
            self.mod_grads[module._name] = self._compute_gradient(module, g)

    collector = Collector(model, processor=GradientProcessor(projection_dim=16))
    tokens = concatenated(groups)
    weights = torch.cat([group.centred_success() / group.n for group in groups])
    rows = torch.repeat_interleave(
        torch.arange(len(groups)), torch.tensor([group.n for group in groups])
    )
    found: dict[str, torch.Tensor] = {}

    def backward(which: slice) -> None:
        with collector.with_batch(None):
            scores = policy.log_probs(*(t[which] for t in tokens)).sum(-1)
            (scores @ weights[which].to(scores)).backward()
        for name, gradients in collector.mod_grads.items():
            nothing = gradients.new_zeros(len(groups), gradients[0].numel(), dtype=torch.float32)
            kept = found.setdefault(name, nothing)
            kept.index_add_(0, rows[which].to(kept.device), gradients.flatten(1).float())
        collector.mod_grads.clear()

    PassSize(at_once).each(*tokens[0].shape, backward)
    model.zero_grad()
    return sum(kept @ kept.T for kept in found.values())
