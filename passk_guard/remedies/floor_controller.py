"""Integral control of the share λ of pass@1: it steers pass@1 back towards its floor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from passk_guard.remedies.controller import ControlReading, register_controller
from passk_guard.runtime.stored import flag, maybe, number, whole

__all__ = ["FloorController"]

_LEAST_KP = 3.0
_FASTEST, _RELEASE = 0.2, 0.05  # per update: most that λ rises, or falls


class FloorController:
    """PID-Lagrangian control (Stooke et al. 2020, arXiv 2007.03964) of the constraint on pass@1.

    With D the filtered change of pass@1 against its floor, ``err = -tolerance - D``,
    ``I ← clip(I + Ki err, 0, 1)`` and ``λ = clip(Kp err + I, 0, 1)``. A rule without memory does
    not guard: it lets pass@1 slide to the pass@k optimum, where the gradients agree again.

    * Gate: λ and I stay 0 until an alarm, and again once the conflict has cleared and λ is back at
      0, so a healthy run is untouched.
    * While a leading alarm is open, before anything is lost, err is at least the tolerance.
    * I does not wind up: λ rises by 0.2 per update at most, and falls by 0.05.
    * Kp is halved after every two changes of err's sign.

    Args:
        tolerance: how far pass@1 may fall below its floor.
        proportional: Kp, λ per unit of pass@1.
        integral: Ki, the same per ten training steps.
    """

    def __init__(self, tolerance: float, proportional: float = 12.0, integral: float = 1.5) -> None:
        self._tolerance = tolerance
        self._ki = integral
        self._engaged = False
        self._integral = 0.0
        self._value = 0.0
        self._kp = proportional
        self._sign = 0
        self._changes = 0
        self._step: int | None = None

    @property
    def value(self) -> float:
        """λ."""
        return self._value

    def take_over(self, share: float) -> None:
        """Start at a λ that another controller left behind."""
        self._value = self._integral = share
        self._engaged = share > 0

    def update(self, reading: ControlReading) -> float:
        """Take in a look; returns the λ to use from here on. Of groups it knows nothing."""
        track, step, conflicts = reading.track, reading.step, reading.conflicts
        # Training that begins anew on the same trainer counts from 0 again.
        steps = 0 if self._step is None else max(step - self._step, 0)
        self._step = step
        if conflicts and not self._engaged:
            self._engaged = True
            steps = 0  # the integral starts now
        if not self._engaged:
            return self._value
        error = -self._tolerance - track.change
        if any(kind.leading for kind in conflicts):
            error = max(error, self._tolerance)
        self._damp(error)
        self._integral = min(max(self._integral + self._ki * error * steps / 10, 0.0), 1.0)
        wanted = min(max(self._kp * error + self._integral, 0.0), 1.0)
        self._value = min(max(wanted, self._value - _RELEASE), self._value + _FASTEST)
        if self._value == 0.0 and not conflicts:
            self._engaged, self._integral = False, 0.0
        return self._value

    def _damp(self, error: float) -> None:
        sign = 1 if error > 0 else -1
        if self._sign and sign != self._sign:
            self._changes += 1
            if self._changes % 2 == 0:
                self._kp = max(self._kp / 2, _LEAST_KP)
        self._sign = sign

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on after a resume."""
        return {
            "engaged": self._engaged,
            "integral": self._integral,
            "value": self._value,
            "kp": self._kp,
            "sign": self._sign,
            "changes": self._changes,
            "step": self._step,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave.

        Raises:
            Unfit: it is not whole.
        """
        engaged, kp = flag(state, "engaged"), number(state, "kp", 0)
        integral, value = number(state, "integral", 0, 1), number(state, "value", 0, 1)
        sign, changes = whole(state, "sign", -1), whole(state, "changes")
        self._step = maybe(whole, state, "step")
        self._engaged, self._integral, self._value, self._kp = engaged, integral, value, kp
        self._sign, self._changes = sign, changes


register_controller("integral", FloorController)
