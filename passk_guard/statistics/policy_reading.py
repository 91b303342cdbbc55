"""What verified rollouts and their gradients tell of one policy, whoever trains it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

import numpy as np

from passk_guard.passk import pass_at_k, unbiased_prompt_weight
from passk_guard.rollouts.group import Truncation
from passk_guard.statistics.alignment import Alignment, alignment_curve, weighted_kernels
from passk_guard.statistics.cosine import Cosine, gradient_parts, profile_cosine
from passk_guard.statistics.first_test import FirstTest, first_test
from passk_guard.statistics.interval import interval
from passk_guard.statistics.mean_interval import mean_interval
from passk_guard.statistics.sign_test import prompts_needed
from passk_guard.statistics.variance import variance_parts

LEAST_SIGNAL = 4
"""Prompts with right and wrong rollouts: the variance of a U-statistic needs as many."""
_NIL = 0.01  # share of the prompts that a pass@k gradient must rest on


class Verdict(StrEnum):
    """Would a pass@k step lower pass@1 here?"""

    LOWERS = "would lower pass@1"
    RAISES = "would not lower pass@1"
    UNSURE = "not sure"
    NIL = "gradient nil"
    NO_SIGNAL = "no signal"


@dataclass(frozen=True)
class PassAtK:
    """Mean unbiased pass@k over the prompts, with its 95 % interval; prompts are the clusters."""

    k: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class GroupReading:
    """One group of prompts.

    Attributes:
        prompts: in it.
        pass_at_1, pass_at_k: of them, at the target k.
        inner, low, high, z: what a pass@k step *on all prompts* does to pass@1 of this group,
            ``⟨∇J_k, ∇J_1(group)⟩`` with its 95 % interval; ``None`` where nothing can be compared.
    """

    prompts: int
    pass_at_1: PassAtK
    pass_at_k: PassAtK
    inner: float | None
    low: float | None
    high: float | None
    z: float | None


@dataclass(frozen=True)
class PolicyReading:
    """A policy on ``m`` prompts.

    Attributes:
        k: the target.
        verdict: on a pass@k step.
        test: of its sign; ``None`` without signal.
        needed: prompts in all that would settle the sign, where that can be told.
        pass_at: for k = 1 to the smallest n less 1.
        curve: alignment for the same k; empty without signal.
        cosine: of the pass@k with the pass@1 gradient, at the target k, with its interval by
            profile likelihood; ``None`` without signal.
        groups: by label, with ``group_by``.
        no_signal: share of prompts whose rollouts are all right or all wrong.
        weighted: prompts that the pass@k gradient rests on.
        row_ids: ``(m,)`` rows of the pool.
        correct: ``(m,)`` right rollouts.
        n: ``(m,)`` rollouts with a verdict.
        rewards: lowest and highest score that the verifier gave, where they are seen.
        truncation: how many rollouts the length limit cut, where known.
        gramian: ``(m, m)`` inner products of per-prompt gradients; ``None`` where not taken.
        weights: ``(m,)`` of the pass@k gradient.
    """

    k: int
    verdict: Verdict
    test: FirstTest | None
    needed: int | None
    pass_at: tuple[PassAtK, ...] = field(repr=False)
    curve: list[Alignment] = field(repr=False)
    cosine: Cosine | None
    groups: Mapping[str, GroupReading] = field(repr=False)
    no_signal: float
    weighted: int
    row_ids: tuple[int, ...] = field(repr=False)
    correct: np.ndarray = field(repr=False)
    n: np.ndarray = field(repr=False)
    rewards: tuple[float, float] | None
    truncation: Truncation | None
    gramian: np.ndarray | None = field(repr=False)
    weights: np.ndarray = field(repr=False)

    @property
    def step(self) -> None:
        """Of no run: a checkpoint is read by itself."""

    @property
    def prompts(self) -> int:
        """Prompts read."""
        return len(self.row_ids)

    @property
    def rollouts(self) -> int:
        """Rollouts with a verdict."""
        return int(self.n.sum())

    @cached_property
    def pass_rates(self) -> np.ndarray:
        """``(m,)`` share of right rollouts."""
        rates: np.ndarray = self.correct / self.n
        return rates

    @property
    def alignment(self) -> Alignment | None:
        """At the target k; ``None`` without signal."""
        return self.curve[self.k - 1] if self.curve else None

    @property
    def update_alignment(self) -> Alignment | None:
        """The same: the update that is looked at is a pass@k step."""
        return self.alignment


def has_signal(correct: np.ndarray, n: np.ndarray) -> bool:
    """Whether gradients are worth taking: some prompts have both right and wrong rollouts."""
    return int(((correct > 0) & (correct < n)).sum()) >= LEAST_SIGNAL


def read_policy(
    correct: Sequence[int] | np.ndarray,
    n: Sequence[int] | np.ndarray | int,
    k: int,
    *,
    gramian: np.ndarray | None = None,
    chance: float = 0.05,
    row_ids: Sequence[int] | None = None,
    labels: Sequence[str] | None = None,
    rewards: tuple[float, float] | None = None,
    truncation: Truncation | None = None,
) -> PolicyReading:
    """Put together what counts and gradients tell.

    Args:
        correct: ``(m,)`` right rollouts per prompt.
        n: rollouts with a verdict, more than k of each: an int or ``(m,)``.
        k: the target.
        gramian: ``(m, m)`` of per-prompt leave-one-out gradients; ``None`` where not taken.
        chance: of a wrong sign that this look may spend.
        row_ids: of the prompts; by default 0 to m-1.
        labels: ``m`` groups.
        rewards: lowest and highest score.
        truncation: what the length limit cut.

    Raises:
        ValueError: fewer than 4 prompts, or a prompt with no more than k rollouts.
    """
    c, total = np.broadcast_arrays(np.asarray(correct), np.asarray(n))
    if len(c) < 4:
        raise ValueError(f"prompts must be at least 4, got {len(c)}. Best are 512 or more.")
    weights = np.asarray(unbiased_prompt_weight(c, total, k))
    signal = (c > 0) & (c < total)
    weights = np.where(signal, weights, 0.0)
    weighted = int((weights > 0).sum())
    ks = range(1, int(total.min()))
    seen = gramian is not None and has_signal(c, total)
    test, needed, curve, cosine = None, None, [], None
    if seen and gramian is not None:
        curve = alignment_curve(gramian, c, total, list(ks))
        test = first_test(gramian, weights, chance)
        cosine = profile_cosine(gradient_parts(weighted_kernels(np.asarray(gramian), weights)))
    verdict = _verdict(test, weighted, len(c))
    if verdict is Verdict.UNSURE and gramian is not None and test is not None:
        needed = prompts_needed(gramian, weights, test)
        if needed is not None and weighted < LEAST_SIGNAL:
            needed = max(needed, math.ceil(len(c) * LEAST_SIGNAL / weighted))
    return PolicyReading(
        k=k,
        verdict=verdict,
        test=test,
        needed=needed,
        pass_at=tuple(_pass_at(c, total, j) for j in ks),
        curve=curve,
        cosine=cosine,
        groups=_groups(c, total, k, gramian if seen else None, weights, labels),
        no_signal=float(1 - signal.mean()),
        weighted=weighted,
        row_ids=tuple(range(len(c)) if row_ids is None else row_ids),
        correct=c,
        n=total,
        rewards=rewards,
        truncation=truncation,
        gramian=gramian,
        weights=weights,
    )


def _verdict(test: FirstTest | None, weighted: int, prompts: int) -> Verdict:
    if test is None:
        return Verdict.NO_SIGNAL
    if weighted < max(1, _NIL * prompts):
        return Verdict.NIL
    if weighted < LEAST_SIGNAL:
        return Verdict.UNSURE
    if test.opposed:
        return Verdict.LOWERS
    return Verdict.RAISES if test.raises else Verdict.UNSURE


def _pass_at(correct: np.ndarray, n: np.ndarray, k: int) -> PassAtK:
    values = np.asarray(pass_at_k(correct, n, k))
    return PassAtK(k, float(values.mean()), *mean_interval(values))


def _groups(
    correct: np.ndarray,
    n: np.ndarray,
    k: int,
    gramian: np.ndarray | None,
    weights: np.ndarray,
    labels: Sequence[str] | None,
) -> dict[str, GroupReading]:
    found = {}
    names = np.array([] if labels is None else labels)
    for label in sorted(set(names.tolist())):
        mine = names == label
        c, total = correct[mine], n[mine]
        harm = None if gramian is None else _harm(gramian, weights, mine)
        found[label] = GroupReading(
            int(mine.sum()), _pass_at(c, total, 1), _pass_at(c, total, k), *(harm or (None,) * 4)
        )
    return found


def _harm(
    gramian: np.ndarray, weights: np.ndarray, mine: np.ndarray
) -> tuple[float, float, float, float] | None:
    """``Σ_{i≠j, j in group} W_i K_ij`` as a U-statistic: the inner product, interval and z."""
    share = mine / mine.mean()
    H = 0.5 * (np.outer(weights, share) + np.outer(share, weights)) * gramian
    np.fill_diagonal(H, 0.0)
    m, row = len(H), H.sum(1)
    se = math.sqrt(variance_parts(H, row).kept_at(m))
    if se == 0:
        return None
    inner = float(row.sum()) / (m * (m - 1))
    low, high = interval(H, row, se)
    return inner, low, high, inner / se
