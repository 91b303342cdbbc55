"""What a user is told of a run beside its alarms: what it will see, and when it sees nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from passk_guard.config import PassKGuardConfig
from passk_guard.errors import warn
from passk_guard.reporting.sentences import (
    blind_message,
    few_probes_message,
    plan_message,
    short_run_message,
)
from passk_guard.runtime.processes import decided_by_first
from passk_guard.runtime.schedule import Schedule
from passk_guard.runtime.short_run import plan_first_look

if TYPE_CHECKING:
    from passk_guard.look import Probe

__all__ = ["Remarks"]

logger = logging.getLogger("passk_guard")

_FEW_PROBES = 10
_BLIND_LOOKS = 3


class Remarks:
    """Says each thing once, where it is first known.

    Args:
        config: settings.
        schedule: knows costs.
        say: takes messages that are no warnings.
        is_main: whether this process is the one that warns.
        rollouts: in a batch of a probe.
        rollouts_per_step: gives those that an optimizer step trains on, ``None`` where not known.
        threshold: score from which a rollout is right, where known.

    Attributes:
        total_steps: of the run, where known.
    """

    def __init__(
        self,
        config: PassKGuardConfig,
        schedule: Schedule,
        *,
        say: Callable[[str], None] = logger.info,
        is_main: bool = True,
        rollouts: int = 1,
        rollouts_per_step: Callable[[], int | None] = lambda: None,
        threshold: float | None = None,
    ) -> None:
        self._config, self._schedule, self._say, self._is_main = config, schedule, say, is_main
        self._rollouts, self._rollouts_per_step = rollouts, rollouts_per_step
        self._threshold = threshold
        self.total_steps: int | None = None
        self._planned = self._said_short = False
        self._blind = 0  # looks without signal, in a row

    def references(self, first: float, more: float) -> int:
        """How many reference batches the first look may take, said where a run is short for it.

        Args:
            first: seconds that the look has taken so far, with its first batch.
            more: seconds that each further batch will take.
        """
        wanted, total = self._config.references, self.total_steps
        step = self._schedule.step_seconds
        if step is None:  # a rollout in a probe costs about what one in training does
            step = first * (self._rollouts_per_step() or self._rollouts) / self._rollouts
        budget = None if total is None else self._schedule.budget(step * total)
        if budget is None or total is None:
            return wanted
        shrink = self._config.reference_batches is None
        look = decided_by_first(plan_first_look(first, more, wanted, budget, may_shrink=shrink))
        if self._is_main and (look.over or look.batches < wanted):
            self._said_short = True
            warn(short_run_message(look, total, self._config))
        return look.batches

    def stepped(self) -> None:
        """A step was timed: as soon as its cost is known, say that a run will hardly be seen."""
        if self._said_short or self._planned or not self._is_main:
            return
        forecast, step = self._schedule.forecast(self.total_steps), self._schedule.step_seconds
        if forecast is None or forecast.probes is None or forecast.probes >= _FEW_PROBES:
            return
        self._said_short = True
        budget = self._schedule.budget((step or 0.0) * (self.total_steps or 0))
        times = None if not budget else self._schedule.spent / budget
        warn(few_probes_message(forecast.probes, self._config, times))

    def plan(self, visible_loss: Callable[[int | None], float]) -> None:
        """Costs and precision are known: what to expect of this run.

        Args:
            visible_loss: the smallest loss that so many probes can be sure of.
        """
        self.stepped()
        forecast = None if self._planned else self._schedule.forecast(self.total_steps)
        if forecast is not None:
            self._planned = True
            self._say(plan_message(forecast, visible_loss(forecast.probes), self._config))

    def looked(self, probe: Probe) -> None:
        """Say it where nothing could be compared for three looks in a row."""
        self._blind = self._blind + 1 if probe.blind else 0
        if self._blind == _BLIND_LOOKS:
            self._say_blind(probe)

    def end(self, history: Sequence[Probe]) -> None:
        """The run is over: say it where it had few looks and none of them saw anything."""
        if 0 < self._blind == len(history) < _BLIND_LOOKS:
            self._say_blind(history[-1])

    def _say_blind(self, probe: Probe) -> None:
        if self._is_main:
            warn(blind_message(probe, self._blind, self._threshold))
