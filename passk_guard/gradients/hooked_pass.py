"""One pack of prompts through the watched layers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from passk_guard.errors import ProbeError
from passk_guard.gradients.exact_factors import ExactFactors
from passk_guard.gradients.two_sided import TwoSidedGramian
from passk_guard.gradients.watching import Watch
from passk_guard.rollouts.batching import PassSize
from passk_guard.rollouts.group import RolloutGroup
from passk_guard.rollouts.policy import Policy
from passk_guard.rollouts.scores import scored


class Unwatchable(ProbeError):
    """The policy's layers cannot be watched; the backward engine can take the gradients.

    Args:
        reason: why.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"engine='hooks' cannot watch this policy: {reason}. Use engine='auto'.")
        self.reason = reason


class HookedPass:
    """Feeds a sink with ``ĝ`` of packs of prompts, and keeps the log-probs.

    Args:
        policy: scores rollouts.
        watch: of its layers, attached by the caller.
        sink: where the watched layers' factors go.
        size: of a forward and backward.
        together: whether processes wait for one another in a pass. None of them leaves it where a
            log-probability is not finite.
    """

    def __init__(
        self,
        policy: Policy,
        watch: Watch,
        sink: ExactFactors | TwoSidedGramian,
        size: PassSize,
        *,
        together: bool = False,
    ) -> None:
        self._policy, self._watch, self._sink = policy, watch, sink
        self._size, self._together = size, together

    def take(self, first: int, groups: Sequence[RolloutGroup], share: float = 1.0) -> list[Tensor]:
        """``(n, L)`` log-probs of each prompt.

        Args:
            first: row of the first prompt in the sink; the others follow.
            groups: prompts with a signal. One, where parameters are differentiated as they are.
            share: that the gradients are multiplied by.

        Raises:
            FloatingPointError: a log-probability is not finite.
            Unwatchable: checkpointing is re-entrant.
        """
        weights = torch.cat([group.centred_success() / group.n for group in groups]) * share
        owners = torch.cat(
            [torch.full((g.n,), first + i, device="cpu") for i, g in enumerate(groups)]
        )

        def forward(tokens: Sequence[Tensor], which: slice) -> Tensor:
            def loss() -> tuple[Tensor, Tensor]:
                with torch.enable_grad():
                    scores = self._policy.log_probs(*tokens)
                    value = scores.sum(-1) @ weights[which].to(scores)
                if not self._together and not bool(value.isfinite()):
                    bad = owners[which][~scores.isfinite().all(-1).cpu()].unique() - first
                    row = groups[int(bad[0])].row
                    raise FloatingPointError(
                        f"the policy gave a log-probability that is not finite on row {row}"
                    )
                return value, scores

            try:
                gradients, scores = self._watch.take(owners[which], tokens[0].shape[1], loss)
            except RuntimeError as error:
                if "use_reentrant" not in str(error) and "checkpoint" not in str(error).lower():
                    raise
                raise Unwatchable("gradient checkpointing is re-entrant") from error
            for name, gradient in gradients.items():
                self._sink.add(first, name, gradient)
            return scores

        rows = slice(first, first + len(groups))
        undo = partial(self._sink.clear, rows)
        return scored(groups, self._size, forward, undo, together=self._together)
