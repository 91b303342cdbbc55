"""The guard: looks when it is time, lets no fault out, says what it found, acts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from passk_guard.config import PassKGuardConfig
from passk_guard.detection.named_states import NamedState, StateWatch
from passk_guard.errors import reason_of, survived
from passk_guard.events import (
    Cleared,
    Lost,
    Raised,
    RanOut,
    RemedyChanged,
    Resumed,
    Sketched,
    StateBegan,
    Waits,
)
from passk_guard.look import Failure, Probe, Rescore
from passk_guard.objectives.live import LiveObjective
from passk_guard.objectives.training_weight import TrainingGroups
from passk_guard.outlook import Outlook
from passk_guard.prober import Prober
from passk_guard.prompts.pool import HeldOutPool
from passk_guard.remedies.actions import Request, run_actions
from passk_guard.remedies.controller import CONTROLLERS
from passk_guard.remedies.remedy import Remedy
from passk_guard.reporting.narrator import Narrator
from passk_guard.resume import (
    RunIdentity,
    guard_pieces,
    guard_state,
    load_guard_state,
    run_settings,
)
from passk_guard.rollouts.batching import PassSize
from passk_guard.rollouts.policy import Policy
from passk_guard.rollouts.sampling import CHUNK
from passk_guard.runtime.progress import Progress, harmless, silent
from passk_guard.runtime.schedule import Schedule, Task
from passk_guard.runtime.stored import Piece, TakenUp

logger = logging.getLogger("passk_guard")


class PassKGuard:
    """Watches pass@1 while something else is optimised. Knows no trainer::

        from passk_guard import HeldOutPool, HFPolicy, PassKGuard, PassKGuardConfig
        from passk_guard.rollouts import VerifiedPolicy
        from passk_guard.runtime.isolation import isolated

        policy = VerifiedPolicy(HFPolicy(model, tokenizer, max_completion_length=2), verify)
        guard = PassKGuard(
            policy,
            HeldOutPool(held_out),
            PassKGuardConfig(k=4, every=10),
            isolation=lambda seed: isolated(model, seed=seed),
        )
        for step in range(100):
            if (task := guard.due(step)) is not None:
                guard.run(task, step)
            train_one_step()
        print(guard.history[-1].track)

    On several processes (``torch.distributed``) all of them call it alike, and share the work.

    Args:
        policy: samples, verifies and scores; see :class:`~passk_guard.rollouts.policy.Policy`.
        pool: held-out prompts.
        config: settings.
        isolation: ``isolation(seed)`` gives a context in which a probe leaves no trace; see
            :func:`~passk_guard.runtime.isolation.isolated`.
        objective: the live one, where the run trains on one; remedies set its k and λ.
        micro_batch: rollouts per forward and backward; by default as many as memory allows, up to
            16 384 tokens.
        optimizer: gives the run's optimizer, for ``metric="adam"`` and remedies.
        training_pass_at_1: gives pass@1 on training batches since last asked, or ``None``.
        say: takes messages that are no warnings.
        is_main: whether this process is the one that warns.
        progress: told where a look stands, see :data:`~passk_guard.runtime.progress.Progress`.
        sampling: whatever else decides what pass@1 means, by name, such as the verifier's name and
            the temperature: plain values. A run resumed with others starts its levels afresh.
        training: the groups of rollouts that the run trains on, where they are known.
        rollouts_per_step: gives those that an optimizer step trains on, where known: its cost.

    Attributes:
        history: completed probes, oldest first.
        rescores: stored rollouts scored again between probes, oldest first.
        failures: lost probes, with their reason.
        waiting: whether all parameters were frozen when a look was due.
        requests: what actions ask of the trainer, for it to see to and discard.
    """

    def __init__(
        self,
        policy: Policy,
        pool: HeldOutPool,
        config: PassKGuardConfig,
        *,
        isolation: Callable[[int], AbstractContextManager[None]],
        objective: LiveObjective | None = None,
        micro_batch: int | None = None,
        optimizer: Callable[[], Any] | None = None,
        training_pass_at_1: Callable[[], float | None] = lambda: None,
        say: Callable[[str], None] = logger.info,
        is_main: bool = True,
        progress: Progress = silent,
        sampling: Mapping[str, Any] | None = None,
        training: TrainingGroups | None = None,
        rollouts_per_step: Callable[[], int | None] = lambda: None,
    ) -> None:
        if len(pool) < 4:
            raise ValueError(f"prompts must hold at least 4 rows, best 512, got {len(pool)}.")
        if config.metric == "adam" and optimizer is None:
            raise ValueError("metric='adam' needs optimizer=, a function that gives the optimizer.")
        self.policy = policy
        self.pool = pool
        self.config = config
        self.objective = objective
        self.history: list[Probe] = []
        self.rescores: list[Rescore] = []
        self.failures: list[Failure] = []
        self.waiting = False
        self.schedule = Schedule(config.every, config.max_overhead)
        self.is_main = is_main
        self._isolation = isolation
        self._sampling = dict(sampling or {})
        narrator = Narrator(config, say, is_main, pool.rows)
        self._tell = narrator.tell
        self.passes = PassSize(micro_batch, lambda tokens: self._tell(RanOut(tokens)))
        self._progress = harmless(progress, config.strict)
        self._outlook = Outlook(
            config,
            self.schedule,
            tell=self._tell,
            rollouts=config.n * min(CHUNK, config.reference_prompts, len(pool)),
            rollouts_per_step=rollouts_per_step,
            threshold=self._sampling.get("success_threshold"),
        )
        self._prober = Prober(
            policy,
            pool,
            config,
            self.passes,
            optimizer,
            training_pass_at_1,
            self._progress,
            training,
            self._outlook.reference,
            narrator.describe,
        )
        self._sketched = False  # whether that was said
        self._states, self._run = StateWatch(), RunIdentity()
        self.requests: set[Request] = set()
        self._remedy = None
        if config.remedy is not None:
            made = CONTROLLERS.make(config.controller, config.pass1_tolerance)
            self._remedy = Remedy(config.remedy, objective, made, optimizer)
        _ = self._settings  # as the user wrote them, before anything steers the objective

    @property
    def total_steps(self) -> int | None:
        """Of the run, where known; for the plan that is said at the start."""
        return self._outlook.total_steps

    @total_steps.setter
    def total_steps(self, steps: int | None) -> None:
        self._outlook.total_steps = steps

    @property
    def run_id(self) -> str:
        """Of the run, over its resumes; state and journal carry it."""
        return self._run.id

    @property
    def began(self) -> str:
        """When the run began, in UTC, as ISO 8601 has it."""
        return self._run.began

    @property
    def k(self) -> float:
        """The k in force."""
        return self.config.k if self.objective is None else self.objective.k

    @property
    def pass1_weight(self) -> float:
        """The λ in force."""
        return 0.0 if self.objective is None else self.objective.pass1_weight

    @property
    def states(self) -> tuple[NamedState, ...]:
        """Named states that hold now and are no conflict."""
        return tuple(sorted(self._states.active))

    @property
    def overhead(self) -> float:
        """Share of the run's time so far that the guard took."""
        return self.schedule.share

    def due(self, step: int) -> Task | None:
        """What should be done now that ``step`` optimizer steps are done, if anything."""
        self._outlook.stepped()
        if self._remedy is not None:
            self._remedy.stepped(step)
        task = self.schedule.due(step)
        if task == "probe":
            waits = self._prober.gradients.parameters == ()
            if waits and not self.waiting:
                self._tell(Waits())
            self.waiting = waits
            return None if waits else task
        return task if self._prober.levels.can_rescore else None

    def run(self, task: Task, step: int) -> Probe | Rescore | None:
        """Do what is due."""
        return self.probe(step) if task == "probe" else self.rescore(step)

    def probe(self, step: int) -> Probe | None:
        """Solve the reference's prompts again now, and act on an alarm.

        Whatever goes wrong costs this probe only: it is noted in ``failures``, said, and ``None``
        returned (raised with ``on_error="raise"``). Ctrl-C passes through, the run restored.
        """
        start, limit = time.perf_counter(), self.config.memory_limit
        if not self._sketched and (needed := self._prober.gradients.exact_bytes) > limit:
            self._sketched = True
            self._tell(Sketched(needed, limit))
        probe: Probe | None = self._survive(step, lambda: self._prober.probe(step, self.objective))
        seconds = time.perf_counter() - start
        self.schedule.did("probe", step, seconds, seconds - (probe.only_once if probe else 0.0))
        if probe is not None:
            self.history.append(probe)
            seen = probe.no_signal, probe.solved_in_k, probe.diagnostics, probe.verifier
            for state in self._states.update(*seen):
                self._tell(StateBegan(state, probe))
            self._outlook.looked(probe)
            self._conclude(probe)
        return probe

    def rescore(self, step: int) -> Rescore | None:
        """Score stored rollouts again, forward only, and act on an alarm; faults as in a probe."""
        start = time.perf_counter()
        rescore: Rescore | None = self._survive(step, lambda: self._prober.rescore(step))
        self.schedule.did("rescore", step, time.perf_counter() - start)
        if rescore is not None:
            self.rescores.append(rescore)
            self._conclude(rescore)
        return rescore

    def _survive(self, step: int, look: Callable[[], Any]) -> Any:
        seed = int(np.random.SeedSequence([self.config.seed, step]).generate_state(1)[0])
        found = None
        with survived(self.config.strict, partial(self._lost, step)), self._isolation(seed):
            try:
                found = look()
            finally:
                self._progress("", 0, 0)
        return found

    def _conclude(self, found: Probe | Rescore) -> None:
        if found.cleared:
            self._tell(Cleared(found.step))
        if (drift := found.drift) is not None:
            prober = self._prober
            self._outlook.plan(partial(prober.visible_loss, drift), prober.gradients.said)
        if found.alarm is not None:
            self._tell(Raised(found))
            run_actions(self.config.actions, found, self, strict=self.config.strict)
        live = self.objective is not None  # else it has failed
        change = self._remedy.update(found) if live and self._remedy is not None else None
        if change is not None:
            self._tell(RemedyChanged(found.step, change))

    def end(self) -> None:
        """The run is over."""
        self._outlook.end(self.history)

    def _lost(self, step: int, error: Exception) -> None:
        self.failures.append(Failure(step, reason_of(error)))
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._tell(Lost(self.failures[-1], len(self.failures)))

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on after a resume, for ``torch.save``."""
        return guard_state(self._pieces(), self._settings)

    def load_state_dict(self, state: Mapping[str, Any]) -> TakenUp:
        """Take over what :meth:`state_dict` gave, as far as it rests on settings that still hold.

        What starts afresh, because a setting is another one or because the state is damaged, is
        said as a warning; nothing is raised.

        Returns:
            What became of each piece.
        """
        taken = load_guard_state(self._pieces(), self._settings, state)
        self._tell(Resumed(taken))
        return taken

    @cached_property
    def _settings(self) -> dict[str, Any]:
        """What pieces of the state may depend on."""
        return run_settings(self.config, self.pool, self.objective, self._sampling)

    def _pieces(self) -> list[Piece]:
        parts = (self._prober, self.schedule, self._states)
        return guard_pieces(*parts, self.objective, self._remedy, self._run, self._sampling)
