"""What pass@1 does per training step with and without the remedy, learnt from paired drifts."""

from __future__ import annotations

import math

import numpy as np

from passk_guard.runtime.stored import Stored

_WANDER = 0.0015**2  # variance per ten steps: of the drift itself, and of what a and b change by


class DriftModel(Stored):
    """Kalman filter on (a, b): drift per ten steps of effort ``= (1-λ) a + λ b + noise``.

    a is the drift of the objective alone, b that of pass@1 alone. Beforehand the one is taken to
    lose and the other to gain as much as ``typical``, give or take as much, at the largest
    learning rate that the run has seen. a and b wander.

    Kept in information form, the data apart from the prior, so that the data can follow the
    learning rate while the prior stays: ``Λ ← (Λ⁻¹ + Q)⁻¹``, written so that Λ may be singular,
    then ``Λ += x xᵀ/r``.

    Args:
        typical: drift of pass@1 per ten steps.
    """

    _stored = ("_information", "_vector")

    def __init__(self, typical: float) -> None:
        self._prior = np.array([-typical, typical])
        self._prior_information = np.eye(2) / typical**2
        self._information, self._vector = np.zeros((2, 2)), np.zeros(2)

    def scaled(self, growth: float) -> None:
        """The learning rate that efforts are counted in has grown: so has all drift per effort."""
        self._information, self._vector = self._information / growth**2, self._vector / growth

    def learn(self, share: float, effort: float, change: float, variance: float) -> None:
        """Take in a paired increment.

        Args:
            share: λ in force meanwhile.
            effort: tens of steps at the largest learning rate, above 0.
            change: of pass@1.
            variance: of its estimate.
        """
        wander = np.linalg.inv(np.eye(2) + self._information * _WANDER * effort)
        seen = np.array([1 - share, share]) * effort
        noise = variance + _WANDER * effort
        information = wander @ self._information
        self._information = (information + information.T) / 2 + np.outer(seen, seen) / noise
        self._vector = wander @ self._vector + seen * change / noise

    @property
    def drifts(self) -> tuple[float, float]:
        """a and b, posterior means, per ten steps of effort."""
        a, b = self._covariance @ (self._prior_information @ self._prior + self._vector)
        return float(a), float(b)

    @property
    def z(self) -> float:
        """By how many standard errors b is above a."""
        a, b = self.drifts
        across = np.array([-1.0, 1.0])
        return (b - a) / math.sqrt(across @ self._covariance @ across)

    @property
    def b_se(self) -> float:
        """Standard error of b."""
        return math.sqrt(self._covariance[1, 1])

    @property
    def _covariance(self) -> np.ndarray:
        return np.linalg.inv(self._prior_information + self._information)
