"""Ambiguous arithmetic without a trainer: a plain torch policy-gradient loop, and its policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bench  # noqa: F401

# isort: split
import ambiguous_arithmetic as task
import torch
from torch import Tensor

from passk_guard.rollouts.group import RolloutGroup
from passk_guard.rollouts.token_log_probs import token_log_probs
from passk_guard.runtime.isolation import isolated

GROUPS, N = 32, 16


class ArithmeticPolicy:
    """Samples two digits, verifies them by comparing tokens; follows the ``Policy`` protocol."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.entropy: float | None = None  # per sampled token, at the latest training step

    def encode(self, rows: Any) -> tuple[Tensor, Tensor]:
        """``(m, 3)`` prompt tokens and ``(m, 2)`` wanted answer tokens."""
        ids = [self.tokenizer(row["prompt"] + " " + row["answer"])["input_ids"] for row in rows]
        tokens = torch.tensor(ids)
        return tokens[:, :-2], tokens[:, -2:]

    @torch.no_grad()
    def sample(self, prompts: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """``(m n, 5)`` prompts with sampled answers, and log-probs, those of the prompts 0."""
        ids = prompts.repeat_interleave(n, 0)
        told = torch.zeros(ids.shape)
        for _ in range(2):
            scores = self.model(input_ids=ids, use_cache=False).logits[:, -1].log_softmax(-1)
            drawn = torch.multinomial(scores.exp(), 1)
            ids = torch.cat([ids, drawn], 1)
            told = torch.cat([told, scores.gather(1, drawn)], 1)
        return ids, told

    def generate(self, rows, row_ids, n, temperature=None):
        prompts, answers = self.encode(rows)
        ids, told = (found.view(len(rows), n, -1) for found in self.sample(prompts, n))
        right = (ids[:, :, -2:] == answers[:, None]).all(-1).float()
        ones = torch.ones_like(ids[0])
        sampled = ones.clone()
        sampled[:, :-2] = 0
        return [
            RolloutGroup(row, ids[i], ones, sampled, right[i], sampling_log_probs=told[i])
            for i, row in enumerate(row_ids)
        ]

    def log_probs(self, input_ids, attention_mask, completion_mask):
        return token_log_probs(self.model, input_ids, attention_mask, completion_mask)

    def parameters(self):
        return self.model.named_parameters()

    @contextmanager
    def isolated(self, seed: int) -> Iterator[None]:
        with isolated(self.model, seed=seed):
            yield


def warmed_up(seed: int, cache: Path, **shape: Any) -> tuple[Any, Any]:
    """A warmed-up model and its tokenizer; kept on disk."""
    tokenizer = task.make_tokenizer()
    model = task.make_model(tokenizer, seed=seed, **shape)
    name = "-".join([str(seed), *(f"{k}{v}" for k, v in shape.items())])
    path = cache / f"warm-{name}.pt"
    if path.exists():
        model.load_state_dict(torch.load(path))
    else:
        task.warm_up(model, tokenizer, seed=seed)
        cache.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), path)
    return model, tokenizer


def train(
    policy: ArithmeticPolicy,
    advantages: Callable[[Tensor], Tensor | tuple[Tensor, Tensor]],
    *,
    products: float,
    steps: int,
    lr: float,
    seed: int,
    before_step: Callable[[int], None],
    hand_out: Callable[[torch.optim.Optimizer], None] = lambda _: None,
) -> None:
    """On-policy gradient steps of 32 prompts x 16 rollouts with Adam.

    Args:
        policy: trained in place.
        advantages: ``(groups, n)`` rewards to advantages; a pair of them is two objectives, and
            the second one's gradient is kept from being lowered (A-GEM's one-sided projection).
        products: share of rows that want the product.
        steps: how many.
        lr: Adam's.
        seed: of prompts and sampling.
        before_step: called with the steps done.
        hand_out: called with the optimizer, before anything else is.
    """
    torch.manual_seed(seed)
    rows = task.make_rows(4096, products=products, seed=seed)
    prompts, answers = policy.encode(rows)
    parameters = list(policy.model.parameters())
    optimizer = torch.optim.Adam(parameters, lr=lr)
    hand_out(optimizer)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        before_step(step)
        pick = torch.randint(len(prompts), (GROUPS,), generator=generator)
        ids, _ = policy.sample(prompts[pick], N)
        right = ids[:, -2:] == answers[pick].repeat_interleave(N, 0)
        found = advantages(right.all(1).float().view(GROUPS, N))
        logits = policy.model(input_ids=ids, use_cache=False).logits[:, -3:-1].log_softmax(-1)
        policy.entropy = float(-(logits.detach().exp() * logits.detach()).sum(-1).mean())
        scores = logits.gather(-1, ids[:, -2:, None]).squeeze(-1).sum(1)
        if isinstance(found, tuple):
            gradients = [
                torch.autograd.grad(-(a.flatten() * scores).mean(), parameters, retain_graph=True)
                for a in found
            ]
            for p, g in zip(parameters, project(*gradients), strict=True):
                p.grad = g
        else:
            (-(found.flatten() * scores).mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
    before_step(steps)


def project(ours: tuple[Tensor, ...], kept: tuple[Tensor, ...]) -> list[Tensor]:
    """Our gradient, without what opposes the kept one."""
    inner = sum(float((a * b).sum()) for a, b in zip(ours, kept, strict=True))
    norm2 = sum(float((b * b).sum()) for b in kept)
    share = min(inner, 0.0) / max(norm2, 1e-30)
    return [a - share * b for a, b in zip(ours, kept, strict=True)]
