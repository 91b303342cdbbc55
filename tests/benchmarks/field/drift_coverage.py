"""How honest paired drift is on long completions, and how long old rollouts last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from field.rollout_banks import Later, N
from torch import Tensor

from passk_guard.rollouts.group import RolloutGroup
from passk_guard.statistics.interval import Z95
from passk_guard.statistics.paired_drift import paired_change

PROMPTS = 64
BINS = 4

Scores = Sequence[Tensor]


def sequence_shift(groups: Sequence[RolloutGroup], before: Scores, after: Scores) -> Tensor:
    """``(prompts, n)`` log-ratio of each rollout."""
    return torch.stack(
        [
            ((new - old).double() * group.completion_mask).sum(-1)
            for group, old, new in zip(groups, before, after, strict=True)
        ]
    )


def true_change(
    success: Tensor, shift: Tensor, own_success: Tensor, own_shift: Tensor
) -> tuple[float, float]:
    """Change of pass@1 on exactly these prompts, from what both policies sampled, and its error.

    Each rollout counts ``(ρ - 1) / (α + (1 - α) ρ) (r - r̄)``, α being the start's share of the
    rollouts and r̄ the mean of the prompt's others: the balance heuristic of Veach and Guibas
    (1995). It is the importance-sampling estimate with a baseline where the policies are close,
    becomes the difference of what they sampled where they are not, and no weight is above
    ``1 / (1 - α)``. The error is that of sampling; the prompts are all there are.

    Args:
        success: ``(m, n)`` of the start's rollouts.
        shift: ``(m, n)`` their log-ratios.
        own_success: ``(m, n')`` of the later policy's.
        own_shift: ``(m, n')`` their log-ratios.
    """
    (m, n), (_, fresh) = success.shape, own_success.shape
    total, share = n + fresh, n / (n + fresh)
    r = torch.cat([success, own_success], 1).double()
    log_ratio = torch.cat([shift, own_shift], 1)
    # (ρ - 1) / (α + (1 - α) ρ), of which neither side overflows.
    up, down = log_ratio.clamp(max=0).exp(), (-log_ratio).clamp(max=0).exp()
    weight = (up - down) / (share * down + (1 - share) * up)
    values = weight * (r - r.mean(1, keepdim=True)) * total / (total - 1)
    parts = values.split([n, fresh], 1)
    variance = sum(part.shape[1] * part.var(1) for part in parts) / total**2
    return float(values.mean()), float(variance.sum().sqrt() / m)


def measured(
    groups: Sequence[RolloutGroup],
    before: Scores,
    after: Scores,
    draws: int,
    rng: np.random.Generator,
) -> list[Any]:
    """Simulated measurements: 64 prompts with replacement, 16 rollouts of each without.

    With replacement the prompts at hand *are* the population, and ``se``, which is about a sample
    of prompts from a large one, is right. Without, 64 of 192 would vary by less than it says. Of
    the rollouts, one that is drawn twice would be its own baseline. That 16 of 128 vary less
    than 16 new ones is made up for: the bank's prompts differ by their own noise, too.
    """
    slim = [replace(group, completions=None, rewards=None) for group in groups]
    prompts, found = min(PROMPTS, max(len(groups) // 3, 4)), []
    for _ in range(draws):
        some: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
        for i in rng.integers(len(groups), size=prompts).tolist():
            which = torch.from_numpy(rng.permutation(groups[i].n)[:N])
            old, new = before[i][which], after[i][which]
            # In single precision what is sampled from is what is scored.
            group = replace(slim[i].those(which), sampling_log_probs=old)
            old, new = (part if group.correct else None for part in (old, new))
            for part, value in zip(some, (group, old, new), strict=True):
                part.append(value)
        found.append(paired_change(*some))
    return found


def coverage(
    groups: Sequence[RolloutGroup], before: Scores, later: Later, draws: int, seed: int
) -> dict[str, float]:
    """Of one later policy: the truth, and how measurements of it fare."""
    success = torch.stack([group.success for group in groups])
    shift = sequence_shift(groups, before, later.after)
    truth, truth_se = true_change(success, shift, later.success, later.shift)
    values = later.success.double().mean(1) - success.double().mean(1)
    noise = [part.double().var(1) for part in (success, later.success)]
    error = sum(v / part.shape[1] for v, part in zip(noise, (success, later.success), strict=True))
    found = measured(groups, before, later.after, draws, np.random.default_rng(seed))
    usable = [one for one in found if one.usable]
    change = np.array([one.change for one in usable])
    se = np.array([one.se for one in usable])
    typical = float(np.sqrt((se**2).mean())) if len(usable) else float("nan")
    return {
        "truth": truth,
        "truth_se": truth_se,
        "sampled": float(values.mean()),
        "sampled_se": float(error.sum().sqrt() / len(groups)),
        "sampled_again_se": probe_error(values, error, sum(noise) / N),
        "usable": len(usable) / len(found),
        "mean": float(change.mean()) if len(usable) else float("nan"),
        "se": typical,
        "se_over_sd": typical / float(change.std(ddof=1)) if len(usable) > 1 else float("nan"),
        "bias_over_se": (float(change.mean()) - truth) / typical if len(usable) else float("nan"),
        "inside": float((np.abs(change - truth) <= Z95 * se).mean())
        if len(usable)
        else float("nan"),
        "draws": draws,
    }


def probe_error(values: Tensor, error: Tensor, noise: Tensor) -> float:
    """Standard error that 64 prompts x 16 rollouts would have.

    Args:
        values: ``(m,)`` change of each prompt as the bank has it.
        error: ``(m,)`` variance of these for want of more rollouts.
        noise: ``(m,)`` variance that 16 rollouts would have.
    """
    between = (values.var() - error.mean()).clamp(min=0)
    return float(((between + noise.mean()) / PROMPTS).sqrt())


def effective_size(log_ratio: Tensor) -> float:
    """As a share, ``(Σρ)² / (n Σρ²)``, as in paired drift."""
    ratio = (log_ratio - log_ratio.max()).exp()
    return float(ratio.sum() ** 2 / (len(ratio) * (ratio**2).sum()))


def spread(groups: Sequence[RolloutGroup], before: Scores, later: Later) -> dict[str, Any]:
    """Effective sample size of the start's rollouts under a later policy, and what makes it.

    Per token: the mean square of the log-ratio, and its mean with the sign turned, which estimates
    the Kullback-Leibler divergence. Tokens' ratios are a martingale's, so the variance of a
    rollout's log-ratio is about tokens times the mean square, v, and the effective sample size
    about ``exp(-tokens v)`` as long as the log-ratio is about normal.
    """
    signal = [
        (group, (new - old).double() * group.completion_mask)
        for group, old, new in zip(groups, before, later.after, strict=True)
        if group.has_signal
    ]
    shift = torch.cat([s.sum(-1) for _, s in signal])
    square = torch.cat([(s**2).sum(-1) for _, s in signal])
    tokens = torch.cat([group.completion_mask.sum(-1) for group, _ in signal]).double()
    extreme = torch.cat([(s.abs() > np.log(5)).sum(-1) for _, s in signal]).double()
    per_token = float(square.sum() / tokens.sum())

    def part(which: Tensor) -> dict[str, float]:
        return {
            "tokens": float(tokens[which].mean()),
            "rollouts": int(which.sum()),
            "size": effective_size(shift[which]),
            "variance": float(shift[which].var()),
            "per_token": float(square[which].sum() / tokens[which].sum()),
        }

    edges = torch.quantile(tokens, torch.linspace(0, 1, BINS + 1, dtype=torch.float64))
    edges[-1] += 1
    bins = [(tokens >= low) & (tokens < high) for low, high in pairwise(edges)]
    return {
        **part(torch.ones_like(tokens, dtype=torch.bool)),
        "kl_per_token": -float(shift.sum() / tokens.sum()),
        "extreme": float(extreme.sum() / tokens.sum()),
        "of_two_tokens": float(np.exp(-2 * per_token)),
        "bins": [part(which) for which in bins if which.any()],
    }
