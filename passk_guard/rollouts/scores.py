"""Log-probs of many prompts' rollouts under the present weights, shared out over processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from passk_guard.rollouts.batching import TOKENS_AT_ONCE, micro_batches
from passk_guard.rollouts.group import RolloutGroup, stacked
from passk_guard.rollouts.policy import Policy
from passk_guard.runtime.processes import shared
from passk_guard.runtime.sharding import runs_together

__all__ = ["packs", "score", "score_all", "scored"]


@torch.no_grad()
def score(
    policy: Policy,
    groups: Sequence[RolloutGroup],
    rollouts_per_forward: int | None = None,
    known: Sequence[Tensor | None] | None = None,
) -> list[Tensor | None]:
    """``(n, L)`` log-probs per prompt under the policy's present weights, on the CPU.

    Prompts share forward passes, in the same way whenever the same groups are scored, so that
    rounding is the same before and after: those with a signal, as a pass for their gradients has
    them, and those that are always right. ``None`` where nothing is right: its part of any change
    is zero whatever the log-probs.

    Args:
        policy: scores.
        groups: prompts.
        rollouts_per_forward: as many as make 16 384 tokens where ``None``.
        known: of the prompts with a signal, where that pass gave them.
    """
    scores: list[Tensor | None] = [None] * len(groups) if known is None else list(known)
    signal = [i for i, group in enumerate(groups) if group.has_signal and known is None]
    solved = [i for i, group in enumerate(groups) if group.correct == group.n]
    for which in (signal, solved):
        found = score_all(policy, [groups[i] for i in which], rollouts_per_forward)
        for i, log_probs in zip(which, found, strict=True):
            scores[i] = log_probs
    return scores


@torch.no_grad()
def score_all(
    policy: Policy, groups: Sequence[RolloutGroup], rollouts_per_forward: int | None = None
) -> list[Tensor]:
    """``(n, L)`` log-probs of every prompt, with a signal or not; processes share them out."""

    def of_pack(pack: list[int]) -> list[Tensor]:
        return scored([groups[i] for i in pack], rollouts_per_forward, forward)

    def forward(tokens: Sequence[Tensor], which: slice) -> Tensor:
        return policy.log_probs(*tokens)

    with torch.no_grad():
        parts = list(packs(groups, rollouts_per_forward))
        found = shared(parts, of_pack, together=_is_split(policy))
    return [scores for pack in found for scores in pack]


def _is_split(policy: Policy) -> bool:
    """Whether processes wait for one another in its passes."""
    try:
        named = list(policy.parameters())
    except AttributeError:  # its model lies elsewhere
        return False
    return runs_together(parameter for _, parameter in named)


def scored(
    groups: Sequence[RolloutGroup],
    most: int | None,
    forward: Callable[[Sequence[Tensor], slice], Tensor],
) -> list[Tensor]:
    """One pack: ``(n, L)`` log-probs per prompt, on the CPU.

    Args:
        groups: that share forward passes.
        most: rollouts in each.
        forward: ``f(tokens, which)`` gives log-probs of those rollouts of the pack.
    """
    tokens = stacked(groups)
    n, width = tokens[0].shape
    rows = [
        forward([t[which] for t in tokens], which).detach().float().cpu()
        for which in micro_batches(n, most, width)
    ]
    parts = torch.cat(rows).split([group.n for group in groups])
    return [part[:, : group.input_ids.shape[1]] for group, part in zip(groups, parts, strict=True)]


def packs(groups: Sequence[RolloutGroup], most: int | None) -> Iterator[list[int]]:
    """Runs of prompts that share forward passes, by index, one prompt at least.

    Args:
        groups: prompts.
        most: rollouts in a pack; where ``None`` as many as make 16 384 tokens.
    """
    pack: list[int] = []
    total = width = 0
    for i, group in enumerate(groups):
        width = max(width, group.input_ids.shape[1])
        if pack and total + group.n > (most or TOKENS_AT_ONCE // width):
            yield pack
            pack, total, width = [], 0, group.input_ids.shape[1]
        pack.append(i)
        total += group.n
    if pack:
        yield pack
