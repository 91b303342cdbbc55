"""One run under guard, whatever its trainer is: begin, looks, requests, reports, end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from passk_guard.errors import reason_of, survived, warn
from passk_guard.gradients.adam_metric import check_adam
from passk_guard.guard import PassKGuard
from passk_guard.remedies.actions import Request
from passk_guard.remedies.anchors import AnchorTerm
from passk_guard.reporting.journal import Journal
from passk_guard.reporting.report import all_scalars, begin_run, end_run, publish
from passk_guard.reporting.sentences import start_message, stop_message, where_message
from passk_guard.runtime.processes import decided_by_first, everywhere
from passk_guard.runtime.schedule import wait_for_gpu
from passk_guard.session.state_file import take_up, whole_state
from passk_guard.session.trainer_adapter import TrainerAdapter


class Session:
    """The life of a run. A callback calls it as its trainer calls the callback.

    ====================  ====================  ===========================
    of the session        transformers, TRL     Lightning
    ====================  ====================  ===========================
    ``build``             ``on_train_begin``    ``on_fit_start``
    ``begin``             ``on_train_begin``    ``on_train_start``
    ``step_begins``       ``on_step_begin``     ``on_train_batch_start``
    ``remedy_at_work``    ``on_step_begin``     ``on_before_optimizer_step``
    ``before_update``     (TRL's alone)
    ``step_ended``        ``on_step_end``       ``on_train_batch_end``
    ``state``             ``on_save``           ``state_dict``
    ``end``               ``on_train_end``      ``on_train_end``
    ====================  ====================  ===========================

    A fault of the guard's own in an event costs that event, never the run.

    Args:
        adapter: the trainer.

    Attributes:
        anchors: pass@1 term beside a loss that the guard cannot reach into, where there is one.
    """

    def __init__(self, adapter: TrainerAdapter) -> None:
        self.adapter = adapter
        self.config = adapter.config
        self.anchors: AnchorTerm | None = None
        self._guard: PassKGuard | None = None
        self._hook: Any = None
        self._sensor: Any = None
        self._late = False
        self._waiting = False  # for the first look
        self._journal = Journal(None)
        self._complained = False
        self._seen = -1  # optimizer steps at the last look
        self._clock = 0.0
        self._remedy_seconds = 0.0

    @property
    def guard(self) -> PassKGuard:
        """The guard, once it is built."""
        if self._guard is None:
            raise no_guard_yet()
        return self._guard

    def build(self) -> None:
        """Make the guard, in the place of an earlier run's."""
        parts = self.adapter.build()
        if self._hook is not None:
            self._hook.remove()  # still there where a run was cut short
        self._guard = parts.guard
        self.anchors = parts.anchors
        self._hook = parts.hook
        self._sensor = parts.sensor
        self._late = parts.late

    def begin(
        self,
        step: int,
        total_steps: int | None,
        load: Callable[[], Mapping[str, Any] | None] | None = None,
    ) -> None:
        """Training is about to begin, or to go on: check, and look at the policy as it is.

        Args:
            step: optimizer steps done.
            total_steps: length of the run, where known.
            load: gives the state in the checkpoint that is resumed from; ``None`` where the run
                begins anew.
        """
        guard, adapter = self.guard, self.adapter
        if self.config.metric == "adam":
            check_adam(adapter.optimizer())
        guard.total_steps = total_steps
        adapter.say(start_message(self.config, len(guard.pool), total_steps))
        self._journal = Journal(None if self.config.journal is False else adapter.folder)
        adapter.say(where_message(self._journal.path, adapter.hint))
        if load is not None:
            take_up(load, guard, self.anchors, self._journal)
        if adapter.is_main:
            begin_run(guard, self._journal, step, adapter.name)
        if self._hook is not None:
            self._hook.install()
        self._waiting = self._late
        if not self._waiting:
            self._look(step)
        self._seen = step
        self._clock = time.perf_counter()

    def step_begins(self, step: int) -> None:
        """Take the look that waited for something trainable, before that is trained."""
        with self._survived():
            if self.guard.waiting:
                self._late_look(step)

    def before_update(self, step: int) -> None:
        """Take the first look now, if it has waited for training's first batch."""
        with self._survived():
            if self._waiting:
                self._waiting = False
                self._late_look(step)

    def _late_look(self, step: int) -> None:
        began = time.perf_counter()
        self._look(step)
        self._clock += time.perf_counter() - began

    def step_ended(self, step: int) -> None:
        """Look when it is time. At the same step again, as in accumulation, nothing is done.

        Args:
            step: optimizer steps done.
        """
        if step == self._seen:
            return
        with self._survived():
            schedule, now = self.guard.schedule, time.perf_counter()
            schedule.trained(now - self._clock - self._remedy_seconds, step - self._seen)
            schedule.also(self._remedy_seconds, remedy=True)
            self._remedy_seconds = 0.0
            self._seen, before = step, schedule.spent
            if self._sensor is not None:
                with survived(self.config.strict, self._blind_to_training):
                    self._sensor.observe()
            now += self._look(step)
            self._clock = time.perf_counter()
            schedule.also(self._clock - now - (schedule.spent - before))
            self._grant_requests(step)

    def look(self, step: int) -> None:
        """Look, if it is time, where the run goes on elsewhere and has no time here.

        Args:
            step: optimizer steps done.
        """
        with self._survived():
            self._look(step)

    def end(self, step: int) -> None:
        """Training has ended: give the trainer its own advantages back, and sum the run up."""
        with self._survived():
            if self._hook is not None:
                self._hook.remove()
            self.guard.end()
            if self.adapter.is_main:
                end_run(self.guard, self._journal, step)
            self.adapter.terminal.conclude(self.guard, self._journal)

    def state(self) -> dict[str, Any]:
        """For a checkpoint, see :mod:`passk_guard.session.state_file`; empty before the guard."""
        return {} if self._guard is None else whole_state(self._guard, self.anchors)

    @contextmanager
    def remedy_at_work(self) -> Iterator[None]:
        """Within, time counts as the remedy's."""
        began = time.perf_counter()
        with self._survived():
            yield
        self._remedy_seconds += time.perf_counter() - began

    def _survived(self) -> AbstractContextManager[None]:
        return survived(self.config.strict, self._complain)

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            warn(
                "the guard failed (this warning is shown once). Training goes on, possibly "
                f"unguarded: please report it. {reason_of(error)}"
            )

    def _look(self, step: int) -> float:
        """Look, if it is time; seconds spent waiting for the GPU, which are the step's own."""
        guard = self.guard
        task = guard.due(step)
        if guard.schedule.timed:
            task = decided_by_first(task)  # process 0's clock decides for all
        if task is None:
            return 0.0
        waited = wait_for_gpu()
        guard.schedule.trained(waited, 0)
        hook = self._hook
        if hook is not None and any(everywhere(lambda: hook.failed)):
            hook.failed = True
            guard.objective = None  # the trainer's own advantages are in force
        found = guard.run(task, step)
        if found is not None:
            self.adapter.tell(all_scalars(found, guard))
        if self.adapter.is_main:
            publish(found, guard, self._journal, self.adapter.send)
        return waited

    def _grant_requests(self, step: int) -> None:
        requests, self.guard.requests = self.guard.requests, set()
        if not requests:
            return
        where = self.adapter.save(step)
        if Request.STOP in requests:
            self.adapter.stop()
            self.adapter.say(stop_message(step, where))

    def _blind_to_training(self, error: Exception) -> None:
        self._sensor = None
        self.adapter.say(
            "passk-guard: pass@1 on the training batches can no longer be read "
            f"({reason_of(error)}). No alarm rests on it."
        )


def no_guard_yet() -> RuntimeError:
    """What ``callback.guard`` raises too early."""
    return RuntimeError(
        "PassKGuardCallback has no guard yet. It is made as training begins, or at once where the "
        "trainer is its first argument."
    )


def another_trainer() -> ValueError:
    """What a callback raises at any trainer but its first: a guard measures one model."""
    return ValueError(
        "This PassKGuardCallback guards another trainer, and would go on measuring that one's "
        "model. Make a new PassKGuardCallback for each trainer."
    )
