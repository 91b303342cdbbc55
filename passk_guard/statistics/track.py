"""Pass@1 over the run: fixes of the reference's prompts, and paired increments between them.

Every look solves the reference's prompts again. Their change since the start is known from that
look alone, whatever happened on the way: a *fix*, ``y = mean(c/r) - mean(c_0/n_0)``. Its error has
two parts: the look's own sampling, new at every look, and the reference's, which is the same at
all of them. Stored rollouts that are scored again tell the change between two looks with less
noise, as long as their probability ratios last. A Kalman filter on (the reference's error, the
change) takes in both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from passk_guard.runtime.stored import Stored
from passk_guard.statistics.interval import Z95

# What a policy may move by in ten steps where no increment tells, until fixes have shown it: wide,
# since stored rollouts fail where policies move fast.
_PRIOR_WANDER = 0.1**2
_LEAST_WANDER = 0.002**2
_PRIOR_LOOKS = 1.0
_DECAY = 0.9
_SURPRISE = 4.0  # standard errors


@dataclass(frozen=True)
class Track:
    """Filtered pass@1.

    Attributes:
        pass_at_1: now, on the reference's prompts.
        se: its standard error; the prompts are taken as they are.
        low, high: its 95 % interval.
        reference: pass@1 of the same prompts where the run began, as known now.
        change: ``pass_at_1 - reference``.
        change_se: its standard error. Where the pool has more prompts than the reference, it counts
            that these may change by something else: it is the change of the pool that is meant.
    """

    pass_at_1: float
    se: float
    low: float
    high: float
    reference: float
    change: float
    change_se: float


class Floor(Stored):
    """Re-reads a track against the floor that the user wants kept.

    Args:
        kind: ``"start"``: pass@1 where the run began; ``"best"``: the best so far, by its lower
            95 % bound, or noise would ratchet it up, and never below the start; or a number.
    """

    _stored = ("_best",)

    def __init__(self, kind: str | float) -> None:
        self._kind = kind
        self._best = 0.0

    def under(self, track: Track) -> Track:
        """The track with reference, change and its error as seen from the floor."""
        if not isinstance(self._kind, str):
            return _against(track, float(self._kind))
        if self._kind == "best":
            self._best = max(self._best, track.pass_at_1 - Z95 * track.se)
            if self._best > track.reference:
                return _against(track, self._best)
        return track


def _against(track: Track, level: float) -> Track:
    return replace(track, reference=level, change=track.pass_at_1 - level, change_se=track.se)


@dataclass(frozen=True)
class Drift:
    """Change of pass@1 since the last look.

    Attributes:
        change: the estimate.
        variance: of what is new in it.
        rescored: whether stored rollouts have told it; else the look's own have, as far as the
            filter follows them.
    """

    change: float
    variance: float
    rescored: bool = True

    @property
    def se(self) -> float:
        """Its standard error."""
        return math.sqrt(self.variance)


@dataclass(frozen=True)
class Increment:
    """Change since the last measurement, on stored rollouts.

    Attributes:
        change: of pass@1.
        variance: by how much it raises that of all increments' sum: it may be less than its own
            where the same rollouts served before.
        covariance: by how much it raises their sum's covariance with the reference's error.
        own_variance: of this increment by itself, over prompts.
    """

    change: float
    variance: float
    covariance: float = 0.0
    own_variance: float = 0.0


@dataclass(frozen=True)
class Fix:
    """Change since the start, by a look's own rollouts.

    Attributes:
        change: ``mean(c/r) - mean(c_0/n_0)``.
        variance: that the look's sampling adds, without the reference's error.
    """

    change: float
    variance: float


class PairedTrack(Stored):
    """Kalman filter on (error of the reference's level, change since).

    Args:
        level: sampled pass@1 of the reference.
        variance: of its sampling.

    Attributes:
        wander: variance per ten steps that the policy moves by, learnt from successive fixes, for
            where no increment tells.
    """

    _stored = ("_level", "_mean", "_cov", "_moved", "_tens", "_since", "_before")

    def __init__(self, level: float, variance: float) -> None:
        self._level = level
        self._mean, self._cov = np.zeros(2), np.diag([variance, 0.0])
        self._moved, self._tens = _PRIOR_LOOKS * _PRIOR_WANDER, _PRIOR_LOOKS
        self._before: list[float] | None = None  # change and variance of the last fix
        self._since = 0.0  # tens of steps since the last fix

    @property
    def wander(self) -> float:
        """See the class."""
        return max(self._moved / self._tens, _LEAST_WANDER)

    def update(self, increment: Increment | None, fix: Fix | None, steps: int) -> Drift | None:
        """Move on by ``steps`` training steps.

        Args:
            increment: since the last update; ``None`` where there is none.
            fix: of the look; ``None`` where nothing was sampled.
            steps: optimizer steps since the last update.

        Returns:
            The increment where there is one, else what the fix has moved the filter by; ``None``
            where there is neither.
        """
        before, tens = float(self._mean[1]), max(steps, 0) / 10
        self._since += tens
        if increment is not None:
            self._mean[1] += increment.change
            self._cov[1, 1] += increment.variance
            self._cov[0, 1] -= increment.covariance
            self._cov[1, 0] = self._cov[0, 1]
            # A covariance that is estimated, too, must be one.
            most = 0.95 * math.sqrt(max(self._cov[0, 0] * self._cov[1, 1], 0.0))
            self._cov[0, 1] = self._cov[1, 0] = min(max(self._cov[0, 1], -most), most)
        else:
            self._cov[1, 1] += self.wander * tens
        new = 0.0
        if fix is not None:
            new = self._take(fix)
            self._learn(fix)
        if increment is not None:
            # A step back takes variance from the sum of all increments; it is no surer for that.
            error = max(increment.variance, increment.own_variance)
            return Drift(increment.change, error)
        return None if fix is None else Drift(float(self._mean[1]) - before, new, rescored=False)

    def _take(self, fix: Fix) -> float:
        """Returns the variance of the filter's move."""
        seen = np.array([-1.0, 1.0])
        surprise = fix.change - float(seen @ self._mean)
        error = float(seen @ self._cov @ seen) + fix.variance
        # Increments miss what stored rollouts never said: then the fix counts.
        if surprise**2 > _SURPRISE**2 * error:
            self._cov[1, 1] += surprise**2 - error
            error = surprise**2
        if error <= 0:
            return 0.0
        gain = self._cov @ seen / error
        self._mean = self._mean + gain * surprise
        self._cov = self._cov - np.outer(gain, gain) * error
        return float(gain[1] ** 2 * error)

    def _learn(self, fix: Fix) -> None:
        """What two fixes differ by beyond their errors is what the policy moves by."""
        if self._before is not None and self._since > 0:
            change, variance = self._before
            moved = (fix.change - change) ** 2 - fix.variance - variance
            self._moved = _DECAY * self._moved + moved
            self._tens = _DECAY * self._tens + self._since
        self._before, self._since = [fix.change, fix.variance], 0.0

    def now(self, between: float = 0.0) -> Track:
        """The present estimate.

        Args:
            between: variance by which the pool's change may differ from these prompts'.
        """
        error, change = (float(v) for v in self._mean)
        # Increments are no probabilities: their sum may pass what pass@1 can be.
        reference = min(max(self._level - error, 0.0), 1.0)
        present = min(max(self._level - error + change, 0.0), 1.0)
        var = self._cov[0, 0] + self._cov[1, 1] - 2 * self._cov[0, 1]
        se = math.sqrt(max(float(var), 0.0))
        return Track(
            pass_at_1=present,
            se=se,
            low=max(0.0, present - Z95 * se),
            high=min(1.0, present + Z95 * se),
            reference=reference,
            change=min(max(change, -1.0), 1.0),
            change_se=math.sqrt(max(float(self._cov[1, 1]), 0.0) + between),
        )

    def forecast(
        self, increment: Increment | None, fix: float, updates: int, steps: float
    ) -> float:
        """Variance of the change after more looks like the ones so far.

        Args:
            increment: of each, ``None`` where there will be none.
            fix: variance of each.
            updates: how many.
            steps: between two.
        """
        cov, seen = self._cov.copy(), np.array([-1.0, 1.0])
        added = self.wander * steps / 10 if increment is None else increment.variance
        for _ in range(updates):
            cov[1, 1] += added
            gain = cov @ seen / (float(seen @ cov @ seen) + fix)
            cov = cov - np.outer(gain, seen @ cov)
        return max(float(cov[1, 1]), 0.0)
