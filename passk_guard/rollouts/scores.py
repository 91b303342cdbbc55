"""Log-probs of many prompts' rollouts under the present weights, shared out over processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from passk_guard.rollouts.batching import micro_batches
from passk_guard.rollouts.group import RolloutGroup, stacked
from passk_guard.rollouts.policy import Policy
from passk_guard.runtime.processes import shared

__all__ = ["score", "score_all"]


@torch.no_grad()
def score(
    policy: Policy, groups: Sequence[RolloutGroup], rollouts_per_forward: int | None = None
) -> list[Tensor | None]:
    """``(n, L)`` log-probs per prompt under the policy's present weights, on the CPU.

    Prompts share forward passes, in the same way whenever the same groups are scored, so that
    rounding is the same before and after. ``None`` where the prompt has no signal: its change is
    zero whatever the log-probs.
    """
    scores: list[Tensor | None] = [None] * len(groups)
    signal = [i for i, group in enumerate(groups) if group.has_signal]
    scored = score_all(policy, [groups[i] for i in signal], rollouts_per_forward)
    for i, log_probs in zip(signal, scored, strict=True):
        scores[i] = log_probs
    return scores


@torch.no_grad()
def score_all(
    policy: Policy, groups: Sequence[RolloutGroup], rollouts_per_forward: int | None = None
) -> list[Tensor]:
    """``(n, L)`` log-probs of every prompt, with a signal or not; processes share them out."""

    def of_pack(pack: list[int]) -> list[Tensor]:
        tokens = stacked([groups[i] for i in pack])
        n, width = tokens[0].shape
        rows = [
            policy.log_probs(*(t[which] for t in tokens)).float().cpu()
            for which in micro_batches(n, rollouts_per_forward, width)
        ]
        parts = torch.cat(rows).split([groups[i].n for i in pack])
        return [
            part[:, : groups[i].input_ids.shape[1]] for i, part in zip(pack, parts, strict=True)
        ]

    with torch.no_grad():
        packs = shared(list(_packs(groups, rollouts_per_forward)), of_pack)
    return [scores for pack in packs for scores in pack]


def _packs(groups: Sequence[RolloutGroup], most: int | None) -> Iterator[list[int]]:
    """Runs of prompts, up to ``most`` rollouts together, one prompt at least."""
    pack: list[int] = []
    total = 0
    for i, group in enumerate(groups):
        if pack and (most is None or total + group.n > most):
            yield pack
            pack, total = [], 0
        pack.append(i)
        total += group.n
    if pack:
        yield pack
