"""One run under guard, whoever its trainer is: begin, looks, requests, reports, end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from passk_guard.config import PassKGuardConfig
from passk_guard.errors import reason_of, survived
from passk_guard.gradients.adam_metric import check_adam
from passk_guard.guard import PassKGuard
from passk_guard.remedies.actions import Request
from passk_guard.remedies.anchors import AnchorTerm
from passk_guard.reporting.journal import Journal
from passk_guard.reporting.report import Report, all_scalars, begin_run, end_run, publish
from passk_guard.reporting.sentences import start_message, stop_message, where_message
from passk_guard.reporting.terminal import Terminal
from passk_guard.runtime.processes import decided_by_first, everywhere
from passk_guard.runtime.schedule import wait_for_gpu
from passk_guard.session.harmless import Harmless, harmless
from passk_guard.session.state_file import take_up, whole_state


class TrainerSide(Protocol):
    """What a run needs of its trainer; an adapter gives it."""

    @property
    def name(self) -> str:
        """Of the trainer, for the journal."""
        ...

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that warns and writes."""
        ...

    @property
    def folder(self) -> str | None:
        """Of the run; ``None`` where nothing is to be written."""
        ...

    @property
    def hint(self) -> str:
        """What is missing for curves and pictures; empty where nothing is."""
        ...

    def shows_progress(self) -> bool:
        """Whether the trainer shows a progress bar, on this process."""
        ...

    def optimizer(self) -> Any:
        """The run's optimizer."""
        ...

    def send(self, report: Report) -> None:
        """Take a report to the trainer's loggers, on the main process."""
        ...

    def tell(self, scalars: Mapping[str, float]) -> None:
        """Make a look's scalars known within the trainer, on every process."""
        ...

    def save(self, step: int) -> str | None:
        """Save a checkpoint, or ask for one; where it will be, if that is known."""
        ...

    def stop(self) -> None:
        """End training after this step."""
        ...


class ObjectiveHook(Protocol):
    """Puts a live objective into the trainer.

    Attributes:
        failed: whether the trainer's own advantages are back for good.
    """

    failed: bool

    def install(self) -> None:
        """Start replacing the trainer's advantages."""
        ...

    def remove(self) -> None:
        """Give the trainer its own advantages back."""
        ...


class TrainingSensor(Protocol):
    """Reads pass@1 off the training batches."""

    def observe(self) -> None:
        """Take in the batch that the last step was trained on."""
        ...


class Session(Harmless):
    """The life of a run. An adapter calls it as its trainer calls the adapter.

    ====================  ====================  ===========================
    of the session        transformers, TRL     Lightning
    ====================  ====================  ===========================
    ``meet``, ``attach``  ``on_init_end``       ``on_fit_start``
    ``begin``             ``on_train_begin``    ``on_train_start``
    ``step_begins``       ``on_step_begin``     ``on_train_batch_start``
    ``remedy_at_work``    ``on_step_begin``     ``on_before_optimizer_step``
    ``before_update``     (TRL's alone)
    ``step_ended``        ``on_step_end``       ``on_train_batch_end``
    ``state``             ``on_save``           ``state_dict``
    ``end``               ``on_train_end``      ``on_train_end``
    ====================  ====================  ===========================

    Args:
        config: settings.
        side: what the trainer gives.

    Attributes:
        terminal: shows progress where the trainer does.
        say: takes messages.
        anchors: the pass@1 term beside a loss that the guard cannot reach into, where there is one.
    """

    def __init__(self, config: PassKGuardConfig, side: TrainerSide) -> None:
        self.config, self._side = config, side
        self.terminal = Terminal(side.shows_progress)
        self.say = self.terminal.say
        self._trainer: Any = None
        self._guard: PassKGuard | None = None
        self.anchors: AnchorTerm | None = None
        self._hook: ObjectiveHook | None = None
        self._sensor: TrainingSensor | None = None
        self._journal = Journal(None)
        self._late = self._waiting = False  # for the first look
        self._seen = -1  # optimizer steps at the last look
        self._clock = self._remedy_seconds = 0.0

    @property
    def guard(self) -> PassKGuard:
        """The guard, once it is built."""
        if self._guard is None:
            raise RuntimeError(
                "PassKGuardCallback has no guard yet. It is made as training begins, or at once "
                "where the trainer is its first argument."
            )
        return self._guard

    @property
    def built(self) -> bool:
        """Whether there is a guard."""
        return self._guard is not None

    def meet(self, trainer: Any) -> None:
        """Refuse any trainer but the first: a guard measures one model.

        Args:
            trainer: and whatever else is to be the same, such as a module.

        Raises:
            ValueError: it is another one.
        """
        if self._trainer is not None and not _same(self._trainer, trainer):
            raise ValueError(
                "This PassKGuardCallback guards another trainer, and would go on measuring that "
                "one's model. Make a new PassKGuardCallback for each trainer."
            )
        self._trainer = trainer

    def attach(
        self,
        guard: PassKGuard,
        anchors: AnchorTerm | None = None,
        hook: ObjectiveHook | None = None,
        sensor: TrainingSensor | None = None,
        late: bool = False,
    ) -> None:
        """Take the guard that the adapter has built, and what belongs to it.

        ``late``: the first look is taken just before the first update, of the same policy.
        """
        if self._hook is not None:
            self._hook.remove()  # still there where a run was cut short
        self._guard, self.anchors, self._hook, self._sensor = guard, anchors, hook, sensor
        self._late = late

    def begin(
        self,
        step: int,
        total_steps: int | None,
        load: Callable[[], Mapping[str, Any] | None] | None = None,
    ) -> None:
        """Training is about to begin, or to go on: check, and look at the policy as it is.

        Args:
            step: optimizer steps done.
            total_steps: of the run, where known.
            load: gives the state in the checkpoint that is resumed from; ``None`` where the run
                begins anew.
        """
        guard, side = self.guard, self._side
        if self.config.metric == "adam":
            check_adam(side.optimizer())
        guard.total_steps = total_steps
        self.say(start_message(self.config, len(guard.pool), total_steps))
        self._journal = Journal(None if self.config.journal is False else side.folder)
        self.say(where_message(self._journal.path, side.hint))
        if load is not None:
            take_up(load, guard, self.anchors, self._journal)
        if side.is_main:
            begin_run(guard, self._journal, step, side.name)
        if self._hook is not None:
            self._hook.install()
        self._waiting = self._late
        if not self._waiting:
            self._look(step)
        self._seen, self._clock = step, time.perf_counter()

    @harmless
    def step_begins(self, step: int) -> None:
        """Take the look that waited for something trainable, before that is trained.

        Args:
            step: optimizer steps done.
        """
        if self.guard.waiting:
            self._late_look(step)

    @harmless
    def before_update(self, step: int) -> None:
        """Take the first look now, if it has waited for training's first batch.

        Args:
            step: optimizer steps done.
        """
        if self._waiting:
            self._waiting = False
            self._late_look(step)

    def _late_look(self, step: int) -> None:
        began = time.perf_counter()
        self._look(step)
        self._clock += time.perf_counter() - began

    @harmless
    def step_ended(self, step: int) -> None:
        """Look when it is time; called again at the same step, as in accumulation, nothing is done.

        Args:
            step: optimizer steps done.
        """
        if step == self._seen:
            return
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

    @harmless
    def end(self, step: int) -> None:
        """Training has ended: give the trainer its own advantages back, and sum the run up."""
        if self._hook is not None:
            self._hook.remove()
        self.guard.end()
        if self._side.is_main:
            end_run(self.guard, self._journal, step)
        self.terminal.conclude(self.guard, self._journal)

    def state(self) -> dict[str, Any]:
        """For a checkpoint, see :mod:`passk_guard.session.state_file`; empty before the guard."""
        return {} if self._guard is None else whole_state(self._guard, self.anchors)

    @contextmanager
    def remedy_at_work(self) -> Iterator[None]:
        """Within, time counts as the remedy's, and a fault of the guard's own ends no run."""
        began = time.perf_counter()
        with survived(self.config.strict, self._complain):
            yield
        self._remedy_seconds += time.perf_counter() - began

    def _look(self, step: int) -> float:
        """Look, if it is time; seconds that the step before was waited for, which are its own."""
        guard, side = self.guard, self._side
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
            side.tell(all_scalars(found, guard))
        if side.is_main:
            publish(found, guard, self._journal, side.send)
        return waited

    def _grant_requests(self, step: int) -> None:
        requests, self.guard.requests = self.guard.requests, set()
        if not requests:
            return
        where = self._side.save(step)
        if Request.STOP in requests:
            self._side.stop()
            self.say(stop_message(step, where))

    def _blind_to_training(self, error: Exception) -> None:
        """Pass@1 on the training batches is only logged."""
        self._sensor = None
        self.say(
            "passk-guard: pass@1 on the training batches can no longer be read "
            f"({reason_of(error)}). No alarm rests on it."
        )


def _same(one: Any, other: Any) -> bool:
    pair = isinstance(one, tuple) and isinstance(other, tuple)
    return all(a is b for a, b in zip(one, other, strict=True)) if pair else one is other
