"""Token log-probabilities of causal language models that follow the Hugging Face call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["token_log_probs"]


def token_log_probs(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor,
    completion_mask: Tensor,
    temperature: float = 1.0,
) -> Tensor:
    """Log-probability of each sampled token under the sampling distribution, differentiable.

    Args:
        model: called as ``model(input_ids=, attention_mask=, use_cache=False).logits``.
        input_ids: ``(b, L)``, padded on either side.
        attention_mask: ``(b, L)``.
        completion_mask: ``(b, L)``, 1 on tokens to be scored. The first column cannot be.
        temperature: that of the sampling; logits are divided by it.

    Returns:
        ``(b, L)`` float32 (or wider), 0 outside ``completion_mask``.
    """
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
    if not bool(attention_mask[:, 0].all()):
        # Left padding shifts positions. Not every architecture takes them, so only where needed.
        inputs["position_ids"] = (attention_mask.cumsum(-1) - 1).clamp(min=0)
    # PEFT's prompt tuning puts virtual tokens in front, whose logits belong to no token here.
    logits = model(**inputs).logits[:, -input_ids.shape[1] :]
    # Only positions that predict a sampled token go through the softmax.
    predicts = completion_mask[:, 1:].bool()
    chosen = logits[:, :-1][predicts] / temperature
    chosen = chosen.to(torch.promote_types(chosen.dtype, torch.float32))
    scores = chosen.log_softmax(-1).gather(-1, input_ids[:, 1:][predicts].unsqueeze(-1)).squeeze(-1)
    out: Tensor = scores.new_zeros(input_ids.shape)
    out[:, 1:][predicts] = scores
    return out
