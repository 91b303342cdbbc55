"""What a run will see, and when it sees nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from passk_guard.config import PassKGuardConfig
from passk_guard.events import Blind, Event, FewProbes, Foreseen, Planned, ShortRun
from passk_guard.look import Probe
from passk_guard.runtime.processes import decided_by_first
from passk_guard.runtime.schedule import Schedule, plan_first_look

_FEW_PROBES = 10
_BLIND_LOOKS = 3
_WITH_GRADIENTS = 1.5  # times what sampling and verifying take


class Outlook:
    """Tells each thing once, where it is first known.

    Args:
        config: settings.
        schedule: knows costs.
        tell: takes events.
        rollouts: in a chunk of the reference.
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
        tell: Callable[[Event], None],
        rollouts: int = 1,
        rollouts_per_step: Callable[[], int | None] = lambda: None,
        threshold: float | None = None,
    ) -> None:
        self._config, self._schedule, self._tell = config, schedule, tell
        self._rollouts, self._rollouts_per_step = rollouts, rollouts_per_step
        self._threshold = threshold
        self.total_steps: int | None = None
        self._planned = self._said_short = False
        self._blind = 0  # looks without signal, in a row

    def reference(self, wanted: int, seconds: float) -> int:
        """How many chunks of prompts the reference may have, said where a run is short for it.

        Args:
            wanted: chunks.
            seconds: that sampling and verifying the first one took.
        """
        total = self.total_steps
        step = self._schedule.step_seconds
        if step is None:  # a rollout in a probe costs about what one in training does
            step = seconds * (self._rollouts_per_step() or self._rollouts) / self._rollouts
        budget = None if total is None else self._schedule.budget(step * total)
        if budget is None or total is None:
            return wanted
        look = decided_by_first(plan_first_look(_WITH_GRADIENTS * seconds, wanted, budget))
        if look.over or look.chunks < wanted:
            self._said_short = True
            self._tell(ShortRun(look, total))
        return look.chunks

    def stepped(self) -> None:
        """A step was timed: as soon as its cost is known, say that a run will hardly be seen."""
        if self._said_short or self._planned:
            return
        forecast, step = self._schedule.forecast(self.total_steps), self._schedule.step_seconds
        if forecast is None or forecast.probes is None or forecast.probes >= _FEW_PROBES:
            return
        self._said_short = True
        budget = self._schedule.budget((step or 0.0) * (self.total_steps or 0))
        times = None if not budget else self._schedule.spent / budget
        self._tell(FewProbes(forecast.probes, times))

    def plan(
        self, visible_loss: Callable[[float, int | None], float | None], gradients: str = ""
    ) -> None:
        """Costs and precision are known: what to expect of this run.

        Args:
            visible_loss: the smallest loss that looks at such an interval, so many of them, can be
                sure of.
            gradients: how they are taken.
        """
        self.stepped()
        forecast = None if self._planned else self._schedule.forecast(self.total_steps)
        if forecast is not None:
            self._planned = True
            visible = visible_loss(forecast.interval, forecast.probes)
            self._tell(Planned(forecast, visible, gradients))

    def looked(self, probe: Probe) -> None:
        """Say it where nothing could be compared for three looks in a row, and what to expect of an
        update that is out of sight.
        """
        if probe.first is not None and probe.first.opposed and not probe.update_seen:
            self._tell(Foreseen(probe))
        self._blind = self._blind + 1 if probe.blind else 0
        if self._blind == _BLIND_LOOKS:
            self._tell(Blind(probe, self._blind, self._threshold))

    def end(self, history: Sequence[Probe]) -> None:
        """The run is over: say it where it had few looks and none of them saw anything."""
        if 0 < self._blind == len(history) < _BLIND_LOOKS:
            self._tell(Blind(history[-1], self._blind, self._threshold))
