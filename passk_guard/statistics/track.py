"""Pass@1 over the run: a two-state filter over sampled levels and paired increments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from passk_guard.runtime.stored import Stored
from passk_guard.statistics.interval import Z95
from passk_guard.statistics.rollout_store import Drift

# Without an increment, for want of signal: healthy runs wander by about a point per ten steps.
_PRIOR_VARIANCE_PER_STEP = 0.01**2 / 10
# Where the policy has moved too far to be scored again, only sampled levels tell.
_MOVED_VARIANCE = 0.2**2
_SPREAD_DECAY = 0.15
_SURPRISE = 4.0  # standard errors


@dataclass(frozen=True)
class Level:
    """Sampled pass@1 of one batch of prompts.

    Attributes:
        mean: over prompts.
        spread: variance of one prompt's success rate around it.
        prompts: in the batch.
        within: how much of it is sampling noise, which a whole pool would have, too; all of it
            where not known.
        pool: prompts that the batch was drawn from without replacement, where they are that few.
    """

    mean: float
    spread: float
    prompts: int
    within: float | None = None
    pool: int | None = None


@dataclass(frozen=True)
class Track:
    """Filtered pass@1.

    Attributes:
        pass_at_1: now.
        se: its standard error.
        low, high: its 95 % interval.
        reference: pass@1 where the run began, as known now.
        change: ``pass_at_1 - reference``.
        change_se: its standard error; smaller than the levels', which share their errors.
    """

    pass_at_1: float
    se: float
    low: float
    high: float
    reference: float
    change: float
    change_se: float


def sampled_level(correct: Sequence[int], n: Sequence[int], pool: int | None = None) -> Level:
    """Mean success rate over prompts, one at least, and their spread.

    The spread has a floor of the binomial kind, so that a batch in which nothing is solved does not
    count as certain.

    Args:
        correct: right rollouts per prompt.
        n: rollouts per prompt.
        pool: prompts that the batch was drawn from without replacement; ``None`` for any number.
    """
    c, total = np.asarray(correct, float), np.asarray(n, float)
    rates = c / total
    smoothed = (c.sum() + 0.5) / (total.sum() + 1.0)
    floor = smoothed * (1 - smoothed) / total.mean()
    spread = float(rates.var(ddof=1)) if len(rates) > 1 else 0.25
    spread = max(spread, float(floor))
    # c(n-c) / (n²(n-1)) is unbiased for p(1-p)/n; smoothed, or certainty is taken for knowledge.
    noise = rates * (1 - rates) / np.maximum(total - 1, 1)
    within = min(max(float(noise.mean()), float(floor) / len(rates)), spread)
    return Level(float(rates.mean()), spread, len(rates), within, pool)


def _within(level: Level) -> float:
    return level.spread if level.within is None else level.within


class Pass1Track(Stored):
    """Kalman filter on (pass@1 at the reference, pass@1 now).

    The process noise is the variance that the paired increment adds, and nothing else, so with
    precise increments every new batch sharpens the reference too. Without a usable increment a
    stated prior variance takes its place. A level is weighed by the spread seen in *past* batches:
    by its own, low levels, whose spread is small, would count for more than high ones. A level far
    from what the increments foretell says that they have missed something, as they do where prompts
    fail whose stored rollouts were all right: then the levels count.
    """

    _stored = ("_mean", "_cov", "_spread", "_within")

    def __init__(self) -> None:
        self._spread = self._within = 0.0
        self._mean: np.ndarray | None = None
        self._cov = np.zeros((2, 2))

    def update(self, level: Level | None, drift: Drift | None, steps: int) -> Track | None:
        """Move on by ``steps`` training steps and take in a sampled level.

        Args:
            level: of the batch just sampled; ``None`` where nothing was. The first one sets both
                states.
            drift: paired increment since the last update; ``None`` where there is none.
            steps: optimizer steps since the last update.

        Returns:
            The present estimate; ``None`` before the first level.
        """
        if self._mean is None:
            if level is not None:
                self._mean = np.array([level.mean, level.mean])
                self._spread, self._within = level.spread, _within(level)
                self._cov = np.full((2, 2), self._error(level))
            return self.now()
        if drift is not None and drift.usable:
            self._mean = self._mean + np.array([0.0, drift.change])
            self._cov[1, 1] += drift.added_variance
        elif drift is not None and drift.extreme > 0:
            self._cov[1, 1] += _MOVED_VARIANCE
        else:
            self._cov[1, 1] += _PRIOR_VARIANCE_PER_STEP * max(steps, 1)
        if level is not None:
            surprise, error = float(level.mean - self._mean[1]), self._error(level)
            # Batches without replacement differ by more than each does from the pool.
            if surprise**2 > _SURPRISE**2 * (self._cov[1, 1] + self._spread / level.prompts):
                self._cov[1, 1] = surprise**2 - error
            gain = self._cov[:, 1] / (self._cov[1, 1] + error)
            self._spread += _SPREAD_DECAY * (level.spread - self._spread)
            self._within += _SPREAD_DECAY * (_within(level) - self._within)
            self._mean = self._mean + gain * (level.mean - self._mean[1])
            self._cov = self._cov - np.outer(gain, self._cov[1])
        return self.now()

    def now(self) -> Track | None:
        """The present estimate; ``None`` before the first level."""
        if self._mean is None:
            return None
        # Increments are no probabilities: their sum may pass what pass@1 can be.
        reference, present = (min(max(float(v), 0.0), 1.0) for v in self._mean)
        se = math.sqrt(max(float(self._cov[1, 1]), 0.0))
        half = Z95 * se
        change_var = self._cov[0, 0] + self._cov[1, 1] - 2 * self._cov[0, 1]
        return Track(
            pass_at_1=present,
            se=se,
            low=max(0.0, present - half),
            high=min(1.0, present + half),
            reference=reference,
            change=present - reference,
            change_se=math.sqrt(max(float(change_var), 0.0)),
        )

    def _error(self, level: Level) -> float:
        """Variance of a level's mean: what differs between prompts is known once all were drawn."""
        left = 1.0 if level.pool is None else max(1 - level.prompts / level.pool, 0.0)
        return ((self._spread - self._within) * left + self._within) / level.prompts

    def forecast(
        self, added_variance: float, prompts: int, updates: int, pool: int | None = None
    ) -> float:
        """Standard error of the change after more updates like the ones so far.

        Args:
            added_variance: of each increment.
            prompts: in each sampled level.
            updates: how many.
            pool: prompts that they are drawn from.
        """
        ahead = Pass1Track()
        ahead.load_state_dict(self.state_dict())
        drift = Drift(0.0, 0.0, added_variance, prompts, 0.0, usable=True)
        now = self.now()
        assert now is not None, "update() comes first"
        for _ in range(updates):
            level = Level(now.pass_at_1, self._spread, prompts, self._within, pool)
            now = ahead.update(level, drift, 1) or now
        return now.change_se
