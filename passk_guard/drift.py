"""How far pass@1 has moved on stored rollouts that are scored again: no generation.

The same rollouts under the old and the new weights cancel most of the sampling noise: the paired
change's standard error is several times smaller than that of two sampled levels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from passk_guard.gradients import micro_batches
from passk_guard.processes import shared
from passk_guard.rollouts import Policy, RolloutGroup, stacked

__all__ = ["PairedChange", "paired_change", "score", "score_all"]

_EXTREME_RATIO = 5.0
_EXTREME_SHARE = 0.01
_EXACT_ABOVE = 0.5


@dataclass(frozen=True)
class PairedChange:
    """Change of pass@1 between two versions of the policy, on one batch of prompts.

    Attributes:
        change: estimate of ``J_1(now) - J_1(then)``.
        se: its standard error, from the spread over prompts.
        per_prompt: ``(m,)`` contributions, whose mean is ``change``.
        exact: whether the sequence ratio was used (else the estimate is first order in weights).
        effective_sample_size: of the sequence ratios, as a share of the rollouts.
        extreme: share of tokens whose ratio left [1/5, 5].
        usable: ``False`` when no prompt had a signal, or when the first-order form met more than
            1 % of extreme tokens.
    """

    change: float
    se: float
    per_prompt: Tensor = field(repr=False)
    exact: bool
    effective_sample_size: float
    extreme: float
    usable: bool


def paired_change(
    groups: Sequence[RolloutGroup],
    before: Sequence[Tensor | None],
    after: Sequence[Tensor | None],
) -> PairedChange:
    """``mean_x 1/n Σ_j (r_j - r̄_{-j}) Σ_t (ρ_t - 1)``, with ρ the per-token ratio.

    The leave-one-out baseline keeps scoring noise from biasing the estimate. Where the sequence
    ratios' effective sample size is above 1/2 they take the place of ``Σ_t (ρ_t - 1)``: exact
    (importance sampling with a baseline), no longer first order. Nothing is clipped.

    Args:
        groups: ``m`` prompts with their rollouts, sampled under the old weights.
        before: ``(n, L)`` log-probs per prompt under the old weights; ``None`` where there is no
            signal, where the change is zero by construction.
        after: the same under the new weights.
    """
    exact = torch.zeros(len(groups), dtype=torch.float64)
    first_order = torch.zeros(len(groups), dtype=torch.float64)
    ratios = []
    tokens = extreme = 0
    for i, (group, old, new) in enumerate(zip(groups, before, after, strict=True)):
        if old is None or new is None:
            continue
        mask = group.completion_mask.to("cpu").bool()
        shift = (new - old).double() * mask
        baseline = group.centred_success().double().cpu()
        sequence = shift.sum(-1).exp()
        exact[i] = (baseline * (sequence - 1)).mean()
        first_order[i] = (baseline * shift.expm1().sum(-1)).mean()
        ratios.append(sequence)
        tokens += int(mask.sum())
        extreme += int((shift.abs() > math.log(_EXTREME_RATIO)).sum())
    if not ratios:
        return PairedChange(0.0, 0.0, exact, True, 1.0, 0.0, usable=False)
    ratio = torch.cat(ratios)
    ess = float(ratio.sum() ** 2 / (len(ratio) * (ratio**2).sum()))
    use_exact = ess > _EXACT_ABOVE
    values = exact if use_exact else first_order
    share = extreme / max(tokens, 1)
    return PairedChange(
        change=float(values.mean()),
        se=float(values.std() / math.sqrt(len(values))),
        per_prompt=values,
        exact=use_exact,
        effective_sample_size=ess,
        extreme=share,
        usable=(use_exact or share <= _EXTREME_SHARE) and bool(values.isfinite().all()),
    )


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
