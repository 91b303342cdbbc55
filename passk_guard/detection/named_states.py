"""Named states of a run that are no conflict: said once, as information, never as an alarm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from passk_guard.look import Probe

__all__ = ["EXPLORATION_COLLAPSE", "VANISHING_SIGNAL", "StateWatch"]

VANISHING_SIGNAL, EXPLORATION_COLLAPSE = "vanishing signal", "exploration collapse"

_VANISHED, _BACK = 0.9, 0.8  # share of prompts without signal: enter, leave
_COLLAPSED, _RECOVERED = 0.5, 0.75  # of the gap at the start: enter, leave
_DECAY = 0.3
_SURE = 3.0
_NOTHING_LEFT = 0.95  # pass@k from which a closing gap just means that all is solved


class StateWatch:
    """Keeps the gap of the start in mind, and says which states begin with a probe.

    *Vanishing signal*: 9 prompts in 10 or more are solved never or always, so that neither pass@1
    nor pass@k has much of a gradient. *Exploration collapse*: pass@k less pass@1 is surely (3
    standard errors) below half of what it was, while the likeliest rollouts have gained
    probability and not everything is solved within k tries (Yu 2025, arXiv 2511.16231).
    """

    def __init__(self) -> None:
        self.active: set[str] = set()
        self._start: dict[str, float] | None = None
        self._gap = self._variance = 0.0

    def update(self, probe: Probe) -> tuple[str, ...]:
        """Take in a probe; returns the states that begin with it."""
        gap, gap_se = probe.diagnostics.gap, probe.diagnostics.gap_se
        no_signal, pass_at_k = probe.no_signal, probe.pass_at_k
        top_log_prob = probe.diagnostics.top_log_prob
        before = set(self.active)
        self._set(VANISHING_SIGNAL, on=no_signal >= _VANISHED, off=no_signal < _BACK)
        if self._start is None:
            self._start = {"gap": gap, "variance": gap_se**2, "top": top_log_prob}
            self._gap, self._variance = gap, gap_se**2
        else:
            self._gap += _DECAY * (gap - self._gap)
            self._variance = (1 - _DECAY) ** 2 * self._variance + _DECAY**2 * gap_se**2
            start, spread = self._start["gap"], self._start["variance"]
            less = self._gap - _COLLAPSED * start
            sure = less + _SURE * (self._variance + _COLLAPSED**2 * spread) ** 0.5 < 0
            concentrated = top_log_prob > self._start["top"]
            self._set(
                EXPLORATION_COLLAPSE,
                on=sure and concentrated and pass_at_k < _NOTHING_LEFT,
                off=self._gap > _RECOVERED * start or pass_at_k >= _NOTHING_LEFT,
            )
        return tuple(sorted(self.active - before))

    @property
    def gap_at_start(self) -> float:
        """Pass@k less pass@1 at the first probe."""
        return 0.0 if self._start is None else self._start["gap"]

    def _set(self, name: str, *, on: bool, off: bool) -> None:
        if on:
            self.active.add(name)
        elif off:
            self.active.discard(name)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on after a resume."""
        return {
            "active": sorted(self.active),
            "start": self._start,
            "gap": self._gap,
            "variance": self._variance,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        self.active, self._start = set(state["active"]), state["start"]
        self._gap, self._variance = state["gap"], state["variance"]
