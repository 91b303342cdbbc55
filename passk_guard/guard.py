"""The guard: when due, probe the policy, weigh the evidence, raise an alarm, act."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

from passk_guard.actions import run_actions, warn
from passk_guard.config import PassKGuardConfig
from passk_guard.cosine import Cosine, PooledCosine
from passk_guard.detection import Alarm, ConflictDetector
from passk_guard.drift import score
from passk_guard.errors import ProbeError
from passk_guard.evidence import (
    AlignmentEvidence,
    alignment_evidence,
    enough_signal,
    sampled_pass_at_k,
    usable_groups,
)
from passk_guard.gradients import check_memory, prompt_gramian, select_parameters
from passk_guard.objectives import PassKObjective
from passk_guard.pool import HeldOutPool
from passk_guard.probe import Failure, Probe
from passk_guard.reporting.message import alarm_message, no_signal_message
from passk_guard.rollout_store import RolloutStore
from passk_guard.rollouts import Policy, RolloutGroup, counts
from passk_guard.schedule import Schedule
from passk_guard.track import Pass1Track, Track, sampled_level

__all__ = ["PassKGuard"]

logger = logging.getLogger("passk_guard")


class PassKGuard:
    """Watches pass@1 while something else is optimised. Knows no trainer.

    Args:
        policy: samples, verifies and scores; see :class:`~passk_guard.rollouts.Policy`.
        pool: held-out prompts.
        config: settings.
        isolation: ``isolation(seed)`` gives a context in which a probe may sample and
            differentiate without leaving a trace; see :func:`~passk_guard.isolation.isolated`.
        objective: the live objective where the run trains on one; its k and λ are read.
        micro_batch: rollouts per forward and backward; all of a prompt's where ``None``.
        say: takes messages that are no warnings: no signal, a conflict that has cleared.
        is_main: whether this process is the one that warns.

    Attributes:
        history: completed probes, oldest first.
        failures: lost probes, with their reason.
    """

    def __init__(
        self,
        policy: Policy,
        pool: HeldOutPool,
        config: PassKGuardConfig,
        *,
        isolation: Callable[[int], AbstractContextManager[None]],
        objective: PassKObjective | None = None,
        micro_batch: int | None = None,
        say: Callable[[str], None] = logger.info,
        is_main: bool = True,
    ) -> None:
        if len(pool) < 4:
            raise ValueError(
                f"prompts must hold at least 4 rows, best 512 or more, got {len(pool)}."
            )
        self.policy = policy
        self.pool = pool
        self.config = config
        self.objective = objective
        self.history: list[Probe] = []
        self.failures: list[Failure] = []
        self.schedule = Schedule(config.every, config.max_overhead)
        self.is_main = is_main
        self._isolation = isolation
        self._micro_batch = micro_batch
        self._say = say
        self._parameters = select_parameters(policy.parameters(), config.parameters)
        check_memory(
            self._parameters, min(config.prompts_per_probe, len(pool)), config.memory_limit
        )
        self._detector = ConflictDetector(config.false_alarms, config.pass1_tolerance)
        self._track = Pass1Track()
        self._cosine = PooledCosine()
        self._store = RolloutStore()
        self._last_step = 0
        self._silent = False  # the last probe had no signal

    @property
    def k(self) -> int:
        """The k in force."""
        return self.config.k if self.objective is None else self.objective.k

    @property
    def pass1_weight(self) -> float:
        """The λ in force."""
        return 0.0 if self.objective is None else self.objective.pass1_weight

    def due(self, step: int) -> bool:
        """Whether a probe should run now that ``step`` optimizer steps are done."""
        return self.schedule.due(step)

    def probe(self, step: int) -> Probe | None:
        """Probe the policy now, and act on an alarm.

        Whatever goes wrong inside costs this probe only: it is noted in ``failures`` and said, and
        ``None`` is returned. Ctrl-C passes through, with the training run's state restored.
        """
        start = time.perf_counter()
        seed = int(np.random.SeedSequence([self.config.seed, step]).generate_state(1)[0])
        probe = None
        try:
            with self._isolation(seed):
                probe = self._probe(step, start)
        except Exception as error:
            self._lost(step, error)
        self.schedule.probed(step, time.perf_counter() - start)
        if probe is not None:
            self.history.append(probe)
            if probe.cleared:
                self._say(f"passk-guard: step {step}: the conflict has cleared.")
            silent = probe.alignment is None
            if silent and not self._silent:
                self._say(no_signal_message(probe))
            self._silent = silent
            if probe.alarm is not None:
                run_actions(self.config.actions, probe, self)
        return probe

    def _probe(self, step: int, start: float) -> Probe:
        groups = self._sample()
        drawn = sum(group.n for group in groups)
        groups = usable_groups(groups, self.k)
        gramian = prompt_gramian(
            self.policy, groups, self._parameters, rollouts_per_backward=self._micro_batch
        )
        # Where nothing can be compared yet, a reference would be costly and empty.
        first = not len(self._store) and enough_signal(groups)
        batches = [*(self._reference() if first else []), groups]
        scored = [(batch, score(self.policy, batch, self._micro_batch)) for batch in batches]
        evidence = alignment_evidence(
            gramian,
            groups,
            k=self.k,
            pass1_weight=self.pass1_weight,
            passk_objective=self.objective is not None,
            watch=self.config.watch,
        )
        drift = self._store.measure(self.policy, self._micro_batch)
        # Nothing can fail from here on: the filters see a probe whole or not at all.
        for batch, scores in scored:
            self._store.add(batch, scores, reference=first)
        level = sampled_level(*counts([group for batch in batches for group in batch]))
        track = self._track.update(level, drift, step - self._last_step)
        self._last_step = step
        cosine = None if evidence.update is None else self._cosine.update(evidence.update)
        fired, cleared = self._detector.update(evidence.update, track)
        alarm = self._alarm(step, fired, track, evidence, cosine, groups) if fired else None
        correct, n = counts(groups)
        return Probe(
            step=step,
            pass_at_1=float(np.mean(np.array(correct) / np.array(n))),
            pass_at_k=sampled_pass_at_k(groups, self.k),
            track=track,
            curve=evidence.curve,
            alignment=evidence.target,
            update_alignment=evidence.update,
            cosine=cosine,
            drift=drift,
            no_signal=1 - sum(group.has_signal for group in groups) / len(groups),
            alarm=alarm,
            conflict=bool(self._detector.active),
            cleared=cleared,
            k=self.k,
            pass1_weight=self.pass1_weight,
            prompts=len(groups),
            rollouts=sum(n),
            unscorable=drawn - sum(n),
            row_ids=tuple(group.row for group in groups),
            seconds=time.perf_counter() - start,
        )

    def _sample(self) -> list[RolloutGroup]:
        """A fresh batch of held-out prompts with verified rollouts."""
        ids = self.pool.draw(self.config.prompts_per_probe)
        groups = self.policy.generate([self.pool.rows[i] for i in ids], ids, self.config.n)
        if len(groups) != len(ids):
            raise ProbeError(f"{len(ids)} prompts went in, {len(groups)} came back")
        return groups

    def _reference(self) -> list[list[RolloutGroup]]:
        """Further batches, only sampled and scored, that settle where pass@1 starts from."""
        return [usable_groups(self._sample(), self.k) for _ in range(self.config.references - 1)]

    def _alarm(
        self,
        step: int,
        fired: tuple[str, ...],
        track: Track,
        evidence: AlignmentEvidence,
        cosine: Cosine | None,
        groups: list[RolloutGroup],
    ) -> Alarm:
        prompts: tuple[int, ...] = ()
        if evidence.update is not None:
            contribution = evidence.update.agreement * evidence.weights
            worst = [i for i in np.argsort(contribution)[:10] if contribution[i] < 0]
            prompts = tuple(groups[i].row for i in worst)
        message = alarm_message(
            step, fired, track, cosine, self.k, prompts, self.pool.rows, self.config
        )
        return Alarm(step, fired, message, (-track.change, track.change_se), prompts)

    def _lost(self, step: int, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"
        self.failures.append(Failure(step, reason))
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self.is_main:
            warn(
                f"step {step}: this probe is lost ({len(self.failures)} so far), training goes on. "
                f"Reason: {reason}"
            )

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on after a resume, for ``torch.save``."""
        return {
            "pool": self.pool.state_dict(),
            "schedule": self.schedule.state_dict(),
            "detector": self._detector.state_dict(),
            "track": self._track.state_dict(),
            "cosine": self._cosine.state_dict(),
            "store": self._store.state_dict(),
            "last_step": self._last_step,
            "k": self.k,
            "pass1_weight": self.pass1_weight,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        self.pool.load_state_dict(state["pool"])
        self.schedule.load_state_dict(state["schedule"])
        self._detector.load_state_dict(state["detector"])
        self._track.load_state_dict(state["track"])
        self._cosine.load_state_dict(state["cosine"])
        self._store.load_state_dict(state["store"])
        self._last_step = state["last_step"]
        if self.objective is not None:
            self.objective.k, self.objective.pass1_weight = state["k"], state["pass1_weight"]
