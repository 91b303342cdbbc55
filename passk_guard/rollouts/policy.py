"""The protocol that anything which samples and scores follows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from passk_guard.rollouts.group import RolloutGroup


class Policy(Protocol):
    """What the guard needs of a policy: rollouts, log-probs, parameters.

    Rollouts must be independent and come from the very distribution that :meth:`log_probs` scores:
    no top-k, top-p or penalties, the same temperature, dropout off in both.

    Where it has a ``model``, a :class:`torch.nn.Module` whose layers :meth:`log_probs` calls, or is
    one itself, gradients come from watching them, which is cheaper.

    A policy may also have ``unfit(rows) -> list[str | None]``: of each row, why it cannot be
    sampled ("has 5000 tokens, ..."). Such rows are left out, where they would fail their batch.
    And it may have ``verify_again(rows, completions, completion_ids) -> list[float]``: verdicts on
    given rollouts, one row each (1 right, 0 wrong, NaN none), for a look at the verifier itself; it
    then leaves ``completions`` on the verified groups. Where several processes call it, all of them
    get the same verdicts.

    One that answers each prompt by a single token, from a table of logits::

        import torch

        from passk_guard import RolloutGroup


        class Table(torch.nn.Module):
            def __init__(self, prompts, answers):
                super().__init__()
                self.logits = torch.nn.Parameter(torch.zeros(prompts, answers))

            def parameters(self):
                return self.named_parameters()

            def generate(self, rows, row_ids, n, temperature=None):
                return [self.rollouts(row, i, n) for row, i in zip(rows, row_ids)]

            def rollouts(self, row, i, n):
                answers = self.logits[i].softmax(-1).multinomial(n, replacement=True)
                ids = torch.stack([torch.full((n,), i), answers], 1)  # (n, 2)
                sampled = torch.tensor([0, 1]).expand(n, 2)
                success = (answers == row["answer"]).float()
                return RolloutGroup(i, ids, torch.ones_like(ids), sampled, success)

            def log_probs(self, input_ids, attention_mask, completion_mask):
                scores = self.logits[input_ids[:, :1]].log_softmax(-1)  # (b, 1, answers)
                scores = scores.gather(2, input_ids[:, 1:, None])[..., 0]
                return torch.nn.functional.pad(scores, (1, 0)) * completion_mask
    """

    def generate(
        self,
        rows: Sequence[Mapping[str, Any]],
        row_ids: Sequence[int],
        n: int,
        temperature: float | None = None,
    ) -> list[RolloutGroup]:
        """Sample ``n`` rollouts for each row, in the order of the rows.

        A policy may verify them itself. If not, it leaves ``success`` at NaN and gives
        ``completions``, which
        :class:`~passk_guard.rollouts.verified_policy.VerifiedPolicy` has verified.

        One that tells the log-probs of what it sampled from, ``sampling_log_probs``, lets the
        paired drift see losses on prompts that were always right.

        Args:
            rows: held-out rows.
            row_ids: their ids.
            n: rollouts for each.
            temperature: other than the policy's own; 0 is greedy. Asked for only with
                ``report_temperature``.
        """
        ...

    def log_probs(
        self, input_ids: Tensor, attention_mask: Tensor, completion_mask: Tensor
    ) -> Tensor:
        """Per-token log-probabilities of rollouts, possibly of several prompts, differentiable.

        Args:
            input_ids: ``(b, L)`` as in :class:`RolloutGroup`, on any device.
            attention_mask: ``(b, L)``.
            completion_mask: ``(b, L)``.

        Returns:
            ``(b, L)`` aligned with ``input_ids``, 0 outside ``completion_mask``.
        """
        ...

    def parameters(self) -> Iterable[tuple[str, torch.nn.Parameter]]:
        """Named parameters, shared ones once."""
        ...


def lacking(policy: Any) -> list[str]:
    """Methods that an object would need to be a policy.

    >>> lacking("text")
    ['generate', 'log_probs', 'parameters']
    """
    missing = [name for name in ("generate", "log_probs") if not hasattr(policy, name)]
    if not hasattr(policy, "parameters") and not hasattr(policy, "gramian"):
        missing.append("parameters")
    return missing
