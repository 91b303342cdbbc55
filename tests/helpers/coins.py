"""A policy whose completions are long and whose pass@1 is known: biased coins.

A rollout is ``tokens`` coin flips; a context is solved by enough heads (or, in some contexts, by
few enough). Success is a binomial tail, so pass@1 and its gradient are exact at any length, while
log-probs, ratios and rewards are per token and per sequence as with a language model.
"""

from __future__ import annotations

from contextlib import contextmanager

import torch
from torch import Tensor, nn

from passk_guard.rollouts.group import RolloutGroup
from passk_guard.runtime.isolation import isolated


class CoinPolicy(nn.Module):
    """Logit of heads in context x: ``θ·φ(x) / sqrt(tokens)``, so that θ moves any length alike."""

    def __init__(self, contexts: int, tokens: int, dim: int = 4, seed: int = 0) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.features = torch.randn(contexts, dim, generator=rng, dtype=torch.float64)
        self.features[:, 0] = 1.0
        self.few = torch.rand(contexts, generator=rng) < 0.3  # solved by few heads
        self.theta = nn.Parameter(0.3 * torch.randn(dim, generator=rng, dtype=torch.float64))
        self.tokens = tokens
        # Half-way between two counts, chosen so that success rates spread over (0, 1).
        wanted = torch.rand(contexts, generator=rng, dtype=torch.float64)
        tail = self._tails(self.rate().detach())
        self.bar = (tail - wanted[:, None]).abs().argmin(1) - 0.5

    def rate(self) -> Tensor:
        """``(contexts,)`` chance of heads."""
        return (self.features @ self.theta / self.tokens**0.5).sigmoid()

    def _tails(self, rate: Tensor) -> Tensor:
        """``(contexts, tokens + 2)`` chance of at least 0, 1, ... heads."""
        heads = torch.arange(self.tokens + 1, dtype=torch.float64)
        total = torch.tensor(float(self.tokens), dtype=torch.float64)
        ways = (total + 1).lgamma() - (heads + 1).lgamma() - (total - heads + 1).lgamma()
        logs = ways + heads * rate.log()[:, None] + (total - heads) * (1 - rate).log()[:, None]
        tail = logs.exp().flip(1).cumsum(1).flip(1)
        return torch.cat([tail, torch.zeros_like(tail[:, :1])], 1)

    def success(self) -> Tensor:
        """``(contexts,)`` exact pass@1 of each context, differentiable."""
        many = self._tails(self.rate()).gather(1, (self.bar + 0.5).long()[:, None])[:, 0]
        return torch.where(self.few, 1 - many, many)

    def gradients(self) -> tuple[Tensor, Tensor]:
        """``(contexts,)`` pass@1 and ``(contexts, dim)`` its gradients, exact."""
        p = self.success()
        rows = [torch.autograd.grad(v, self.theta, retain_graph=True)[0] for v in p]
        return p.detach(), torch.stack(rows)

    def sampled(self, ids: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """``(m, dim)`` leave-one-out gradients ĝ and ``(m,)`` right rollouts, without tokens."""
        with torch.no_grad():
            rate = self.rate()[ids]
            heads = torch.distributions.Binomial(self.tokens, rate).sample((n,)).T
            right = (heads > self.bar[ids, None]) ^ self.few[ids, None]
            reward = right.double()
            centred = (reward - reward.mean(1, keepdim=True)) / (n - 1)
            score = (heads - self.tokens * rate[:, None]) / self.tokens**0.5
            return (centred * score).sum(1, keepdim=True) * self.features[ids], right.sum(1)

    # The Policy protocol ------------------------------------------------------------------

    def parameters(self, recurse: bool = True):
        return self.named_parameters()

    @torch.no_grad()
    def generate(self, rows, row_ids, n, temperature=None):
        rate, groups = self.rate(), []
        for i in row_ids:
            flips = torch.bernoulli(rate[i].expand(n, self.tokens)).long()
            tokens = torch.cat([torch.full((n, 1), i), flips], 1)
            ones = torch.ones_like(tokens)
            sampled = ones.clone()
            sampled[:, 0] = 0
            right = (flips.sum(1) > self.bar[i]) ^ self.few[i]
            told = self.log_probs(tokens, ones, sampled)
            groups.append(
                RolloutGroup(int(i), tokens, ones, sampled, right.float(), sampling_log_probs=told)
            )
        return groups

    def log_probs(self, input_ids, attention_mask, completion_mask):
        heads = self.rate()[input_ids[:, 0]][:, None]
        flips = input_ids[:, 1:]
        scores = torch.where(flips == 1, heads.log(), (1 - heads).log())
        return torch.cat([torch.zeros_like(scores[:, :1]), scores], 1) * completion_mask

    @contextmanager
    def isolated(self, seed):
        module = nn.Module()
        module.theta = self.theta
        with isolated(module, seed=seed):
            yield
