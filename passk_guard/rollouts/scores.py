"""Log-probs of many prompts' rollouts under the present weights, shared out over processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from passk_guard.rollouts.batching import PassSize
from passk_guard.rollouts.group import RolloutGroup, stacked
from passk_guard.rollouts.policy import Policy
from passk_guard.runtime.processes import shared
from passk_guard.runtime.sharding import runs_together


@torch.no_grad()
def score(
    policy: Policy,
    groups: Sequence[RolloutGroup],
    size: PassSize | None = None,
    known: Sequence[Tensor | None] | None = None,
) -> list[Tensor | None]:
    """``(n, L)`` log-probs per prompt under the policy's present weights, on the CPU.

    Prompts share forward passes, in the same way whenever the same groups are scored, so that
    rounding is the same before and after: those with a signal, as a pass for their gradients has
    them, and the others that are always right. ``None`` where nothing is right and nothing was:
    its part of any change is zero whatever the log-probs.

    Args:
        policy: scores.
        groups: prompts.
        size: of a forward.
        known: of the prompts with a signal, where that pass gave them.
    """
    scores: list[Tensor | None] = [None] * len(groups) if known is None else list(known)
    signal = [i for i, group in enumerate(groups) if group.has_signal and known is None]
    solved = [i for i, g in enumerate(groups) if g.correct == g.n and not g.has_signal]
    for which in (signal, solved):
        found = score_all(policy, [groups[i] for i in which], size)
        for i, log_probs in zip(which, found, strict=True):
            scores[i] = log_probs
    return scores


@torch.no_grad()
def score_all(
    policy: Policy, groups: Sequence[RolloutGroup], size: PassSize | None = None
) -> list[Tensor]:
    """``(n, L)`` log-probs of every prompt, with a signal or not; processes share them out."""
    together = _is_split(policy)
    if size is None:
        size = PassSize()
    else:
        size.fit(policy, groups)

    def of_pack(pack: list[int]) -> list[Tensor]:
        return scored([groups[i] for i in pack], size, forward, together=together)

    def forward(tokens: Sequence[Tensor], which: slice) -> Tensor:
        return policy.log_probs(*tokens)

    with torch.no_grad():
        found = shared(list(packs(groups, size)), of_pack, together=together)
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
    size: PassSize,
    forward: Callable[[Sequence[Tensor], slice], Tensor],
    undo: Callable[[], None] = lambda: None,
    *,
    together: bool = False,
) -> list[Tensor]:
    """One pack: ``(n, L)`` log-probs per prompt, on the CPU.

    Args:
        groups: prompts that share forward passes.
        size: of a forward.
        forward: ``f(tokens, which)`` gives log-probs of those rollouts of the pack.
        undo: takes back what forwards have left behind, where memory ran out.
        together: whether processes wait for one another in a forward.
    """
    tokens = stacked(groups)

    def rows(which: slice) -> Tensor:
        return forward([t[which] for t in tokens], which).detach().float().cpu()

    n, width = tokens[0].shape
    found = size.each(n, width, rows, undo, together=together)
    parts = torch.cat(found).split([group.n for group in groups])
    return [part[:, : group.input_ids.shape[1]] for group, part in zip(groups, parts, strict=True)]


def packs(groups: Sequence[RolloutGroup], size: PassSize) -> Iterator[list[int]]:
    """Runs of prompts that share forward passes, by index, one prompt at least.

    Args:
        groups: prompts.
        size: of a pack.
    """
    pack: list[int] = []
    total = width = 0
    for i, group in enumerate(groups):
        width = max(width, group.input_ids.shape[1])
        if pack and total + group.n > size.rollouts(width):
            yield pack
            pack, total, width = [], 0, group.input_ids.shape[1]
        pack.append(i)
        total += group.n
    if pack:
        yield pack
