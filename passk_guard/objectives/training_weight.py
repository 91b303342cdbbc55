"""Prompt weights of the update in force: what groups of G rollouts train on, seen from a probe's n.

A probe has n rollouts of a prompt, the training run groups of G. For two-valued rewards, and with
``A_R(c)``, ``A_W(c)`` the advantages of right and wrong rollouts in a group with c right ones, one
group moves the policy by

    mean_j A_j ∇log π(y_j),  in expectation  T(p) ∇p  with  T(p) = E[A_R(b+1) - A_W(b)],
    b ~ Binomial(G-1, p)

because a right rollout's score has mean ∇p/p, a wrong one's -∇p/(1-p). The weight ω(c) on the
probe's ĝ must have ``E[ω(b+1)] = T(p)`` for ``b ~ Binomial(n-2, p)``, see
:func:`~passk_guard.passk.unbiased_prompt_weight`. Both are Bernstein polynomials, so the answer is
one of hypergeometric means, exact and unique where ``n >= G + 1``:

    ω(c) = Σ_b H(b; n-2, c-1, G-1) [A_R(b+1) - A_W(b)]

Where advantages sum up to zero in each group T has one degree less, ``(G-1)/G (A_R - A_W)(b+1)``
with ``b ~ Binomial(G-2, p)`` takes the bracket's place, and ``n >= G`` is enough. Below that ω is a
plug-in: the exact weight of training in groups of n (n - 1 where not centred) instead of G. Its
bias is ``T_n(p) - T_G(p)``: none for PKPO at k < n, whose T has degree k - 1 whatever G is; up to
``Σ_{i=n}^{G-1} (1-p)^(i-1)`` for MaxRL, largest on the hardest prompts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from passk_guard.objectives.advantages import leave_one_out_advantages

_EPSILON = 1e-4  # that trainers add to a group's standard deviation


@dataclass(frozen=True)
class TrainingGroups:
    """The groups of rollouts that a run trains on.

    Attributes:
        size: rollouts per group, G.
        scaled: whether the trainer divides each group's advantages by the standard deviation of
            its rewards, as GRPO does with ``scale_rewards="group"``.
    """

    size: int
    scaled: bool = False


def training_prompt_weight(
    advantages: Callable[[Tensor], Tensor], training: TrainingGroups, correct: int, n: int
) -> float:
    """ω(c), the weight on ĝ of a prompt with ``correct`` of ``n`` rollouts right.

    Args:
        advantages: ``(groups, G)`` rewards in, advantages out, for every group size up to G.
        training: G, and the trainer's scale, which multiplies these advantages.
        correct: right rollouts of the probe, ``0 < correct < n``.
        n: rollouts of the probe.
    """
    marginal = _marginal(advantages, min(training.size, n), training.scaled)
    if len(marginal) > n - 1:  # not centred, and no room for its degree
        marginal = _marginal(advantages, min(training.size, n - 1), training.scaled)
    return float(hypergeometric(len(marginal) - 1, correct - 1, n - 2) @ marginal)


def trainer_prompt_weight(
    trainer_weight: float, training: TrainingGroups | None, correct: int, n: int
) -> float:
    """What the trainer's own pass@1 advantages weigh in groups of G, from those of a probe's n.

    Args:
        trainer_weight: their weight as seen in the probe; carries whatever else scales rewards.
        training: as far as known.
        correct: right rollouts of the probe.
        n: rollouts of the probe.
    """
    if training is None or not training.scaled:
        return trainer_weight
    own = training_prompt_weight(leave_one_out_advantages, training, correct, n)
    return unscaled(trainer_weight, training, correct, n) * own


def unscaled(trainer_weight: float, training: TrainingGroups, correct: int, n: int) -> float:
    """A weight seen in a probe without the scale that the trainer gave the probe's own groups."""
    return trainer_weight / float(scale_of(n)[correct]) if training.scaled else trainer_weight


def _marginal(advantages: Callable[[Tensor], Tensor], size: int, scaled: bool) -> np.ndarray:
    """The Bernstein coefficients of T, of degree ``size - 1``, or one less where centred."""
    rewards = torch.ones(size + 1, size, dtype=torch.float64, device="cpu").tril(
        -1
    )  # row c: c right ones
    values = advantages(rewards)
    right = (values * rewards).sum(-1) / rewards.sum(-1).clamp(min=1)
    wrong = (values * (1 - rewards)).sum(-1) / (1 - rewards).sum(-1).clamp(min=1)
    scale = scale_of(size) if scaled else np.ones(size + 1)
    at_right, at_wrong = right.numpy() * scale, wrong.numpy() * scale
    marginal: np.ndarray = at_right[1:] - at_wrong[:-1]
    if float(values.sum(-1).abs().max()) <= 1e-9 * float(values.abs().max()):
        marginal = (size - 1) / size * (at_right - at_wrong)[1:-1]
    return marginal


def scale_of(size: int) -> np.ndarray:
    """``(size + 1,)`` one over the sample standard deviation of 0/1 rewards, by right ones."""
    c = np.arange(size + 1)
    scale: np.ndarray = 1 / (np.sqrt(c * (size - c) / (size * (size - 1))) + _EPSILON)
    return scale


def hypergeometric(drawn: int, marked: int, total: int) -> np.ndarray:
    """``(drawn + 1,)`` chances of 0, 1, ... marked ones among ``drawn`` out of ``total``."""
    ways = math.comb(total, drawn)
    return np.array(
        [
            math.comb(marked, b) * math.comb(total - marked, drawn - b) / ways
            for b in range(drawn + 1)
        ]
    )
