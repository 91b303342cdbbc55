"""One pack of prompts through the watched layers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from passk_guard.errors import ProbeError
from passk_guard.gradients.accumulators import ExactGramian
from passk_guard.gradients.two_sided import TwoSidedGramian
from passk_guard.gradients.watching import Watch
from passk_guard.rollouts.batching import PassSize
from passk_guard.rollouts.group import RolloutGroup
from passk_guard.rollouts.policy import Policy
from passk_guard.rollouts.scores import scored


class UnsupportedModelError(ProbeError):
    """The policy's layers cannot be watched; the backward engine can take the gradients."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"engine='hooks' cannot watch this policy: {reason}. Use engine='auto'.")
        self.reason = reason


def hooked_pass(
    policy: Policy,
    watch: Watch,
    sink: ExactGramian | TwoSidedGramian,
    size: PassSize,
    first: int,
    groups: Sequence[RolloutGroup],
    *,
    share: float = 1.0,
    together: bool = False,
) -> list[Tensor]:
    """Feed a sink with ``ĝ`` of a pack of prompts.

    Args:
        policy: scores rollouts.
        watch: the policy's watched layers, attached by the caller.
        sink: receives the layers' factors.
        size: rollouts in a forward and backward.
        first: row of the first prompt in the sink; the others follow.
        groups: prompts with a signal. One, where parameters are differentiated as they are.
        share: factor of the gradients.
        together: whether processes wait for one another in a pass. None of them leaves it where a
            log-probability is not finite.

    Returns:
        ``(n, L)`` log-probs of each prompt.

    Raises:
        FloatingPointError: a log-probability is not finite.
        UnsupportedModelError: checkpointing is re-entrant.
    """
    weights = torch.cat([group.centred_success() / group.n for group in groups]) * share
    owners = torch.cat([torch.full((g.n,), first + i, device="cpu") for i, g in enumerate(groups)])

    def forward(tokens: Sequence[Tensor], which: slice) -> Tensor:
        def loss() -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                scores = policy.log_probs(*tokens)
                value = scores.sum(-1) @ weights[which].to(scores)
            if not together and not bool(value.isfinite()):
                bad = owners[which][~scores.isfinite().all(-1).cpu()].unique() - first
                row = groups[int(bad[0])].row
                raise FloatingPointError(
                    f"the policy gave a log-probability that is not finite on row {row}"
                )
            return value, scores

        try:
            gradients, scores = watch.take(owners[which], tokens[0].shape[1], loss)
        except RuntimeError as error:
            if "use_reentrant" not in str(error) and "checkpoint" not in str(error).lower():
                raise
            raise UnsupportedModelError("gradient checkpointing is re-entrant") from error
        for name, gradient in gradients.items():
            sink.add(first, name, gradient)
        return scores

    undo = partial(sink.clear, slice(first, first + len(groups)))
    return scored(groups, size, forward, undo, together=together)
