"""Verified rollouts of held-out prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True)
class RolloutGroup:
    """The verified rollouts of one prompt, ``n`` of them, ``L`` tokens wide.

    Attributes:
        row: the prompt's row id in the held-out pool.
        input_ids: ``(n, L)`` prompt and completion.
        attention_mask: ``(n, L)``, 0 on padding (either side).
        completion_mask: ``(n, L)``, 1 on the tokens that the policy sampled.
        success: ``(n,)`` 1.0 right, 0.0 wrong. NaN marks an unscorable rollout, or one that was
            not verified yet.
        advantages: ``(n,)`` what the host trainer would give these rollouts, where that is known.
        rewards: ``(n,)`` what the verifier gave, NaN where it gave none; only to tell a user why
            nothing is right, or everything.
        completions: ``n`` of what a verifier sees: text, chat messages or anything else. Dropped
            soon after.
        baseline: the prompt's share of right rollouts at earlier looks; where ``None`` a rollout is
            compared with the others of its group, which must then be two or more.
        sampling_log_probs: ``(n, L)`` of the sampled tokens, as whatever sampled them has it (the
            model with a cache, or another program), at the temperature of the sampling; NaN where
            it told none, anything elsewhere.
        truncated: ``(n,)`` whether the length limit cut a rollout that had not ended; ``None``
            where that is not known.
    """

    row: int
    input_ids: Tensor
    attention_mask: Tensor
    completion_mask: Tensor
    success: Tensor
    advantages: Tensor | None = None
    rewards: Tensor | None = None
    completions: tuple[Any, ...] | None = None
    sampling_log_probs: Tensor | None = None
    truncated: Tensor | None = None
    baseline: float | None = None

    @property
    def tokens(self) -> tuple[Tensor, Tensor, Tensor]:
        """What a policy needs to score them: ids, attention mask, completion mask."""
        return self.input_ids, self.attention_mask, self.completion_mask

    @property
    def n(self) -> int:
        """Number of rollouts."""
        return len(self.success)

    @property
    def correct(self) -> int:
        """Number of right rollouts."""
        return int(self.success.nansum().item())

    @property
    def told(self) -> Tensor | None:
        """``(n, L)`` log-probs of what was sampled from, 0 elsewhere; ``None`` if not all known."""
        if self.sampling_log_probs is None:
            return None
        sampled = self.completion_mask.bool()
        found = self.sampling_log_probs.float().where(sampled, 0.0)
        return found if bool(found.isfinite().all()) else None

    @property
    def has_signal(self) -> bool:
        """Whether the pass@1 gradient of this prompt is not zero by construction."""
        if self.baseline is None:
            return 0 < self.correct < self.n
        return bool((self.success != self.baseline).any())

    def scorable(self) -> RolloutGroup:
        """Without the rollouts that the verifier could not score."""
        keep = ~self.success.isnan()
        return self if bool(keep.all()) else self.those(keep)

    def first(self, n: int) -> RolloutGroup:
        """The first ``n`` rollouts."""
        return self.those(slice(n))

    def on_cpu(self) -> RolloutGroup:
        """Where stored rollouts lie: they outlast the probe, and are read one by one."""
        parts: dict[str, Any] = {k: v for k, v in vars(self).items() if isinstance(v, Tensor)}
        if all(value.device.type == "cpu" for value in parts.values()):
            return self
        return replace(self, **{key: value.cpu() for key, value in parts.items()})

    def _kept_completions(self, keep: Tensor | slice) -> tuple[Any, ...] | None:
        if self.completions is None:
            return None
        which = torch.arange(self.n, device="cpu")[keep if isinstance(keep, slice) else keep.cpu()]
        return tuple(self.completions[i] for i in which.tolist())

    def those(self, keep: Tensor | slice) -> RolloutGroup:
        """Some of the rollouts: a mask, indices or a slice."""
        optional: dict[str, Any] = {
            name: None if getattr(self, name) is None else getattr(self, name)[keep]
            for name in ("advantages", "rewards", "sampling_log_probs", "truncated")
        }
        return replace(
            self,
            input_ids=self.input_ids[keep],
            attention_mask=self.attention_mask[keep],
            completion_mask=self.completion_mask[keep],
            success=self.success[keep],
            **optional,
            completions=self._kept_completions(keep),
        )

    def centred_success(self) -> Tensor:
        """``(n,)`` success less the mean of the others, ``r_j - r̄_{-j}``, or less the baseline."""
        r = self.success
        if self.baseline is not None:
            return r - self.baseline
        return (r - r.mean()) * (self.n / (self.n - 1))


def packed(
    prompts: Sequence[list[int]], completions: Sequence[list[int]], sampled: Sequence[list[int]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, attention mask and completion mask of rollouts, ``(n, L)`` each.

    Padded on the right: the prompt starts at 0, so every architecture's positions are right.

    Args:
        prompts: token ids.
        completions: token ids.
        sampled: of each completion, 1 where the policy sampled the token.
    """
    tokens = [_whole_numbers(p + c) for p, c in zip(prompts, completions, strict=True)]
    masks = [_whole_numbers([0] * len(p) + m) for p, m in zip(prompts, sampled, strict=True)]
    present = [torch.ones_like(t) for t in tokens]
    ids, attention, mask = (pad_sequence(t, batch_first=True) for t in (tokens, present, masks))
    return ids, attention, mask


def _whole_numbers(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64, device="cpu")


def beside(
    ids: Tensor, prompts: Sequence[list[int]], told: Sequence[list[float] | None]
) -> Tensor | None:
    """Numbers of sampled tokens where those lie among ``ids``, 0 elsewhere; ``(n, L)``.

    Args:
        ids: of :func:`packed`.
        prompts: token ids.
        told: of each completion's tokens; where any is ``None``, so is what is returned.
    """
    known = [values for values in told if values is not None]
    if len(known) < len(told):
        return None
    laid = torch.zeros(ids.shape, dtype=torch.float32, device="cpu")
    for i, (prompt, values) in enumerate(zip(prompts, known, strict=True)):
        laid[i, len(prompt) : len(prompt) + len(values)] = torch.tensor(
            values, dtype=torch.float32, device="cpu"
        )
    return laid


def stacked(groups: Sequence[RolloutGroup]) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, attention mask and completion mask of several prompts' rollouts, as one batch.

    Prompts need not be of one length: shorter ones are padded on the right.

    >>> import torch
    >>> one, two = torch.ones(1, 2), torch.ones(1, 3)
    >>> groups = [RolloutGroup(0, x, x, x, torch.ones(1)) for x in (one, two)]
    >>> stacked(groups)[0]
    tensor([[1., 1., 0.],
            [1., 1., 1.]])
    """
    ids, attention, mask = map(one_width, zip(*(group.tokens for group in groups), strict=True))
    return ids, attention, mask


def joined(groups: Sequence[RolloutGroup]) -> RolloutGroup:
    """Several groups of one prompt as one."""

    def together(name: str) -> Tensor | None:
        parts = [getattr(group, name) for group in groups]
        if any(part is None for part in parts):
            return None
        return torch.cat(parts) if parts[0].ndim == 1 else one_width(parts)

    told = [group.completions for group in groups]
    completions = None if None in told else tuple(c for part in told for c in part or ())
    names = [field.name for field in fields(RolloutGroup)]
    parts: dict[str, Any] = {name: together(name) for name in names[1:] if name != "completions"}
    return RolloutGroup(groups[0].row, **parts, completions=completions)


def one_width(tensors: Sequence[Tensor]) -> Tensor:
    """Rows of tensors of several widths, shorter ones padded with 0 on the right."""
    width = max(t.shape[1] for t in tensors)
    return torch.cat([pad(t, (0, width - t.shape[1])) for t in tensors])


def reward_range(groups: Sequence[RolloutGroup]) -> tuple[float, float] | None:
    """The lowest and the highest score that a verifier gave; ``None`` where none is known."""
    seen = [group.rewards for group in groups if group.rewards is not None]
    if not seen:
        return None
    scores = torch.cat(seen)
    scores = scores[~scores.isnan()]
    return (float(scores.min()), float(scores.max())) if len(scores) else None


class Truncation(NamedTuple):
    """What the length limit cut.

    Attributes:
        share: of the rollouts.
        tokens: sampled in the longest of those that were cut; 0 where none was.
    """

    share: float
    tokens: int


def truncation(groups: Sequence[RolloutGroup]) -> Truncation | None:
    """How many rollouts had not ended when they were cut; ``None`` where that is not known."""
    known = [(g.truncated, g.completion_mask.sum(-1)) for g in groups if g.truncated is not None]
    if not known:
        return None
    cut, lengths = (torch.cat(parts) for parts in zip(*known, strict=True))
    return Truncation(float(cut.double().mean()), int((lengths * cut).max()))


def counts(groups: Sequence[RolloutGroup]) -> tuple[list[int], list[int]]:
    """Right rollouts and all rollouts, per prompt."""
    return [group.correct for group in groups], [group.n for group in groups]
