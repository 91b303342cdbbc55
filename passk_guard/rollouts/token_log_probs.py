"""Token log-probabilities of causal language models that follow the Hugging Face call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from passk_guard.rollouts.token_rows import tokens_of
from passk_guard.runtime.sharding import runs_together

# 128 MiB in float32. Much smaller pieces would spend their time on reading the head's weight.
LOGITS_AT_ONCE = 2**25

_plain_only: WeakSet[nn.Module] = WeakSet()  # heads whose logits the model changes afterwards


def token_log_probs(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor,
    completion_mask: Tensor,
    temperature: float = 1.0,
    logits_at_once: int = LOGITS_AT_ONCE,
) -> Tensor:
    """Log-probability of each sampled token under the sampling distribution, differentiable.

    Where there are more than ``logits_at_once`` logits (tokens x vocabulary) they are computed
    piece by piece, and again in the backward: memory for them does not grow with the tokens.

    Args:
        model: called as ``model(input_ids=, attention_mask=, use_cache=False).logits``.
        input_ids: ``(b, L)``, padded on either side.
        attention_mask: ``(b, L)``.
        completion_mask: ``(b, L)``, 1 on tokens to be scored. The first column cannot be.
        temperature: that of the sampling; logits are divided by it.
        logits_at_once: size of a piece.

    Returns:
        ``(b, L)`` float32 (or wider), 0 outside ``completion_mask``.
    """
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
    if not bool(attention_mask[:, 0].all()):
        # Left padding shifts positions. Not every architecture takes them, so only where needed.
        inputs["position_ids"] = (attention_mask.cumsum(-1) - 1).clamp(min=0)
    # Only positions that predict a sampled token go through the softmax.
    predicts = completion_mask[:, 1:].bool()
    targets = input_ids[:, 1:][predicts]
    length = input_ids.shape[1]
    head = _output_head(model)
    vocabulary = getattr(head, "out_features", 0)
    found = None
    if (
        head is not None
        and input_ids.numel() * vocabulary > logits_at_once
        and head not in _plain_only
        and not runs_together(head.parameters())  # processes have unlike numbers of pieces
    ):
        found = _before_head(model, head, inputs)
        if found is None:
            _plain_only.add(head)
    rows, columns = predicts.nonzero(as_tuple=True)

    def chosen(values: Tensor) -> Tensor:
        """At the predicting positions: picked out at once, for a slice has a costly backward."""
        # PEFT's prompt tuning puts virtual tokens in front, whose logits belong to no token here.
        # A model that is spread over devices may end on another one than it began.
        at = rows.to(values.device), columns.to(values.device) + (values.shape[1] - length)
        return values[at]

    if found is None:
        scores = _scores(chosen(model(**inputs).logits), targets, temperature)
    else:
        size = max(logits_at_once // vocabulary, 1)
        split = (part.split(size) for part in (chosen(found.hidden), targets, rows))
        pieces = []
        for *piece, of in zip(*split, strict=True):
            with tokens_of(of):
                pieces.append(
                    checkpoint(
                        *(found.scores, *piece, temperature),
                        use_reentrant=False,
                        preserve_rng_state=False,
                    )
                )
        scores = torch.cat(pieces)
    scores = scores.to(input_ids.device)
    out: Tensor = scores.new_zeros(input_ids.shape)
    out[:, 1:][predicts] = scores
    return out


def _scores(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """``(tokens,)`` log-probabilities of ``targets`` from ``(tokens, vocabulary)`` logits."""
    logits = logits if temperature == 1 else logits / temperature
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    chosen = targets.to(logits.device).unsqueeze(-1)
    return logits.log_softmax(-1).gather(-1, chosen).squeeze(-1)


@dataclass(frozen=True)
class _BeforeHead:
    """What a model gave to its head, and how to go on from there as the model does."""

    head: nn.Module
    hidden: Tensor
    autocast: torch.dtype | None
    dtype: torch.dtype

    def logits(self, hidden: Tensor) -> Tensor:
        kind = self.hidden.device.type
        with torch.autocast(kind, self.autocast, enabled=self.autocast is not None):
            logits: Tensor = self.head(hidden)
        return logits.to(self.dtype)

    def scores(self, hidden: Tensor, targets: Tensor, temperature: float) -> Tensor:
        return _scores(self.logits(hidden), targets, temperature)


def _output_head(model: Any) -> nn.Module | None:
    head = getattr(model, "get_output_embeddings", lambda: None)()
    return head if isinstance(head, nn.Module) else None


def _before_head(model: Any, head: nn.Module, inputs: dict[str, Any]) -> _BeforeHead | None:
    """Run the model with the last position only through its head.

    The model itself is called, with all its wrappers. ``None`` where its logits are not what the
    head gives (soft-capping, scaling, a head that is not called as a module), by comparison at the
    last position.
    """
    seen: list[tuple[Tensor, torch.dtype | None]] = []

    def keep_last(module: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor] | None:
        # A compiled model would keep this hook's doing for good.
        if torch.compiler.is_compiling() or len(args) != 1 or args[0].dim() != 3:
            return None
        kind = args[0].device.type
        enabled = torch.is_autocast_enabled(kind)
        seen.append((args[0], torch.get_autocast_dtype(kind) if enabled else None))
        return (args[0][:, -1:],)

    hook = head.register_forward_pre_hook(keep_last)
    try:
        last = model(**inputs).logits
    finally:
        hook.remove()
    if len(seen) != 1:
        return None
    found = _BeforeHead(head, *seen[0], last.dtype)
    with torch.no_grad():
        again = found.logits(found.hidden[:, -1:])
        same = torch.equal(again, last.to(again.device))
    return found if same else None
