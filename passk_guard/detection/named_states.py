"""Named states of a run that are no conflict: said once, as information, never as an alarm."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from passk_guard.detection.verifier_drift import VerifierDrift
from passk_guard.runtime.stored import Stored
from passk_guard.statistics.diagnostics import Diagnostics
from passk_guard.statistics.exploration import PassAtK


class NamedState(StrEnum):
    """A state of a run that is worth a word, and no conflict."""

    VANISHING_SIGNAL = "vanishing signal"
    EXPLORATION_COLLAPSE = "exploration collapse"
    VERIFIER_DRIFT = "verifier drift"
    INFERENCE_MISMATCH = "inference mismatch"


_VANISHED, _BACK = 0.9, 0.8  # share of prompts without signal: enter, leave
_RECOVERED = 0.75  # of the gap at the start: leave; half of it: enter
_SURE = 3.0
_NOTHING_LEFT = 0.95  # pass@k from which a closing gap just means that all is solved


class StateWatch(Stored):
    """Says which states begin with a probe.

    *Vanishing signal*: 9 prompts in 10 or more are solved never or always, so that neither pass@1
    nor pass@k has much of a gradient. *Exploration collapse*: pass@k less pass@1 is surely (3
    standard errors) below half of what it was, while the likeliest rollouts have gained
    probability and not everything is solved within k tries (Yu 2025, arXiv 2511.16231).
    *Verifier drift*: verdicts on the same rollouts surely differ more often than they did, see
    :func:`~passk_guard.detection.verifier_drift.verifier_drift`. *Inference mismatch*: the engine
    that samples is surely another distribution than the model, see
    :mod:`passk_guard.statistics.inference_mismatch`.

    Attributes:
        active: states that hold.
    """

    _stored = ("_top",)

    def __init__(self) -> None:
        self.active: set[NamedState] = set()
        self._top: float | None = None  # log-prob of the likeliest rollouts at the start

    def update(
        self,
        no_signal: float,
        solved: PassAtK,
        found: Diagnostics,
        verifier: VerifierDrift | None = None,
    ) -> tuple[NamedState, ...]:
        """Take in a probe; returns the states that begin with it.

        Args:
            no_signal: share of prompts that are solved never or always.
            solved: pass@k, and what exploration has to offer.
            found: the probe's diagnostics.
            verifier: whether it has changed, where that is known.
        """
        before = set(self.active)
        self._set(NamedState.VANISHING_SIGNAL, on=no_signal >= _VANISHED, off=no_signal < _BACK)
        if verifier is not None:
            # It stays: what was measured before and since cannot be compared in this run.
            self._set(NamedState.VERIFIER_DRIFT, on=verifier.surely, off=False)
        if (mismatch := found.inference) is not None:
            self._set(
                NamedState.INFERENCE_MISMATCH,
                on=mismatch.surely,
                off=mismatch.kl < mismatch.bound / 2,
            )
        if self._top is None:
            self._top = found.top_log_prob
        elif solved.above_half is not None and solved.above_half_se is not None:
            sure = solved.above_half + _SURE * solved.above_half_se < 0
            concentrated = found.top_log_prob > self._top
            nothing_left = solved.value >= _NOTHING_LEFT
            self._set(
                NamedState.EXPLORATION_COLLAPSE,
                on=sure and concentrated and not nothing_left,
                off=solved.gap > _RECOVERED * solved.gap_at_start or nothing_left,
            )
        return tuple(sorted(self.active - before))

    def _set(self, name: NamedState, *, on: bool, off: bool) -> None:
        if on:
            self.active.add(name)
        elif off:
            self.active.discard(name)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on after a resume."""
        return {**super().state_dict(), "active": sorted(map(str, self.active))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        super().load_state_dict(state)
        self.active = set(map(NamedState, state["active"]))
