"""A policy in plain torch, for the identity check where there is Lightning but no transformers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from passk_guard.rollouts.group import RolloutGroup

__all__ = ["TinyModel", "TinyPolicy"]

_CHOICES = 10


class TinyModel(nn.Module):
    """Logits of ten answers to each of ten prompts, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Embedding(_CHOICES, 8)
        self.dropout = nn.Dropout(0.1)
        self.out = nn.Linear(8, _CHOICES)

    def forward(self, prompts: Tensor) -> Tensor:
        """``(b,)`` prompts to ``(b, 10)`` logits."""
        logits: Tensor = self.out(self.dropout(self.hidden(prompts)))
        return logits


class TinyPolicy:
    """:class:`~passk_guard.rollouts.policy.Policy`: one digit answers another."""

    def __init__(self, model: TinyModel) -> None:
        self._model = model

    def parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """All of them."""
        return self._model.named_parameters()

    def generate(
        self,
        rows: Sequence[Mapping[str, Any]],
        row_ids: Sequence[int],
        n: int,
        temperature: float | None = None,
    ) -> list[RolloutGroup]:
        """Sample."""
        return [self._group(row, i, n) for row, i in zip(rows, row_ids, strict=True)]

    @torch.no_grad()
    def _group(self, row: Mapping[str, Any], row_id: int, n: int) -> RolloutGroup:
        prompt = torch.tensor([int(row["prompt"][0])], device=self._model.out.weight.device)
        chances = self._model(prompt)[0].softmax(-1)
        answers = torch.multinomial(chances, n, replacement=True)
        ids = torch.stack([prompt.expand(n), answers], 1).cpu()
        sampled = torch.tensor([[0, 1]]).expand(n, 2)
        unknown = torch.full((n,), torch.nan)  # the verifier decides
        completions = tuple(map(str, answers.tolist()))
        return RolloutGroup(
            row_id, ids, torch.ones_like(ids), sampled, unknown, completions=completions
        )

    def log_probs(
        self, input_ids: Tensor, attention_mask: Tensor, completion_mask: Tensor
    ) -> Tensor:
        """Of the answers."""
        ids = input_ids.to(self._model.out.weight.device)
        scores = self._model(ids[:, 0]).log_softmax(-1).gather(1, ids[:, 1:])
        return torch.cat([torch.zeros_like(scores), scores], 1) * completion_mask.to(ids.device)
