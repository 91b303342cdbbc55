"""Has the verifier changed? Fixed rollouts are verified again and again (arXiv 2606.15474).

A verifier that changes, such as a judge model behind a service, looks like a change of pass@1.
Verdicts on the *same* rollouts cannot change for any other reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CHANCE = 0.01  # of naming a steady verifier, per run, however many looks it has
_MORE = np.array([0.02, 0.05, 0.1, 0.2, 0.4])  # disagreement beyond the baseline that is looked for


@dataclass(frozen=True)
class Recheck:
    """Fixed rollouts, verified again at one look, against their first verdicts.

    Attributes:
        step: optimizer steps done.
        rollouts: with a verdict.
        lost: right at first, wrong now.
        won: wrong at first, right now.
    """

    step: int
    rollouts: int
    lost: int
    won: int

    @property
    def others(self) -> int:
        """Verdicts that are not the first ones."""
        return self.lost + self.won


@dataclass(frozen=True)
class VerifierDrift:
    """Whether verdicts differ from the first ones more often than they did.

    Attributes:
        rollouts: verified again at this look.
        since: step of the look from which on they most likely do.
        disagreement: share of other verdicts since then.
        baseline: before: verifiers may disagree with themselves.
        points: what that does to pass@1 by itself, as a change of pass@1 (-0.04: 4 points less).
        evidence: its logarithm; above ``sure`` it happens to a steady verifier in 1 % of runs.
        sure: what the evidence has to reach.
    """

    rollouts: int
    since: int
    disagreement: float
    baseline: float
    points: float
    evidence: float
    sure: float = math.log(2 / CHANCE)

    @property
    def surely(self) -> bool:
        """Whether the verifier has surely changed."""
        return self.evidence >= self.sure


def verifier_drift(looks: Sequence[Recheck]) -> VerifierDrift | None:
    """Test whether the disagreement with the first verdicts has risen at any look.

    Whatever a steady verifier's noise, and however it differs between rollouts, the counts of all
    looks have one mean. For each look ``s`` at which a change may have come, the looks before it
    bound the rate of disagreement from above (Chernoff), missing it with chance ``w_s / 200``; the
    looks from ``s`` on have a likelihood ratio against that bound, averaged over higher rates. The
    ratios, averaged with the weights ``w_s = 1 / (s (s - 1))``, whose sum is 1, are a martingale at
    most, so that they ever reach 200 with chance 1/200 (Ville 1939; detectors made of such parts:
    Shin, Ramdas and Rinaldo 2022, arXiv 2203.03532). Together: 1 % per run, over any number of
    looks. The baseline grows with each look before the change, and its error is counted.

    Args:
        looks: oldest first; the first is the baseline, taken right after the first verdicts.

    Returns:
        ``None`` with fewer than two looks that have verdicts.
    """
    looks = [look for look in looks if look.rollouts]
    if len(looks) < 2:
        return None
    n, x = (np.array([getattr(k, name) for k in looks], float) for name in ("rollouts", "others"))
    before_n, before_x = n.cumsum()[:-1], x.cumsum()[:-1]
    after_n, after_x = n.sum() - before_n, x.sum() - before_x
    s = np.arange(2, len(looks) + 1)
    weight = 1 / (s * (s - 1.0))
    bound = _upper(before_x / before_n, np.log(2 / (CHANCE * weight)) / before_n)[:, None]
    higher = np.minimum(bound + _MORE, 0.5 + bound / 2)  # a rate, whatever the bound
    ratio = after_x[:, None] * np.log(higher / bound)
    ratio += (after_n - after_x)[:, None] * np.log((1 - higher) / (1 - bound))
    parts = ratio + np.log(weight / len(_MORE))[:, None]
    ahead = 1 - weight.sum()  # of the changes that are still to come: a ratio of 1 each
    evidence = float(np.logaddexp.reduce([*parts.ravel(), math.log(ahead)]))
    change = int(np.logaddexp.reduce(parts, axis=1).argmax()) + 1
    before, after = looks[:change], looks[change:]
    return VerifierDrift(
        rollouts=looks[-1].rollouts,
        since=looks[change].step,
        disagreement=float(after_x[change - 1] / after_n[change - 1]),
        baseline=float(before_x[change - 1] / before_n[change - 1]),
        points=_net(after) - _net(before),
        evidence=evidence,
    )


def _upper(rate: np.ndarray, divergence: np.ndarray) -> np.ndarray:
    """The largest rate ``θ`` whose Kullback-Leibler divergence from the one seen is no more."""
    low, high = rate, np.full_like(rate, 1 - 1e-9)
    for _ in range(50):
        middle = (low + high) / 2
        seen = rate * np.log(np.maximum(rate, 1e-300) / middle)
        seen += (1 - rate) * np.log(np.maximum(1 - rate, 1e-300) / (1 - middle))
        inside = seen <= divergence
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return np.asarray(high)


def _net(looks: Sequence[Recheck]) -> float:
    """Pass@1 by the verdicts of these looks less by the first ones."""
    return sum(k.won - k.lost for k in looks) / sum(k.rollouts for k in looks)
