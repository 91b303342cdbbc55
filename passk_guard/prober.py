"""One look at the policy: sample, verify, differentiate, weigh, decide."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from passk_guard.config import PassKGuardConfig
from passk_guard.detection.alarm import Alarm
from passk_guard.detection.detector import ConflictDetector
from passk_guard.gradients.accumulators import exact_bytes
from passk_guard.gradients.adam_metric import adam_scales
from passk_guard.gradients.backward import prompt_gramian
from passk_guard.gradients.parameters import select_parameters
from passk_guard.look import Probe, Rescore
from passk_guard.objectives.live import LiveObjective
from passk_guard.objectives.training_weight import TrainingGroups
from passk_guard.prompts.pool import HeldOutPool, row_labels
from passk_guard.reporting.sentences import alarm_message
from passk_guard.resume_checks import checked_cusum
from passk_guard.rollouts.group import RolloutGroup, counts, enough_signal, reward_range
from passk_guard.rollouts.policy import Policy
from passk_guard.rollouts.sampling import Sampler
from passk_guard.rollouts.scores import score_all
from passk_guard.runtime.progress import Progress
from passk_guard.runtime.stored import mapping, row_ids
from passk_guard.statistics.cosine import PooledCosine
from passk_guard.statistics.diagnostics import diagnose
from passk_guard.statistics.evidence import alignment_evidence, sampled_pass_at_k
from passk_guard.statistics.levels import Levels, Reading
from passk_guard.statistics.rollout_store import Drift

__all__ = ["Prober"]

_SAMPLING = "sampling and verifying"


class Prober:
    """Turns the policy of the moment into a :class:`Probe` or a :class:`Rescore`.

    Args:
        policy: samples, verifies and scores.
        pool: held-out prompts.
        config: settings.
        micro_batch: rollouts per forward and backward.
        optimizer: gives the run's optimizer, for ``metric="adam"``.
        training_pass_at_1: gives pass@1 on recent training batches, or ``None``.
        progress: told where a look stands.
        training: the groups that the run trains on, where they are known.
        references: ``f(first, more)`` that gives the number of reference batches, from the seconds
            that the first look has taken so far, and those that each further batch will take.

    Attributes:
        levels: pass@1 over the run.
        detector: raises alarms.
        exact_bytes: what the gradients of a probe would take unsketched.
    """

    def __init__(
        self,
        policy: Policy,
        pool: HeldOutPool,
        config: PassKGuardConfig,
        micro_batch: int | None,
        optimizer: Callable[[], Any] | None,
        training_pass_at_1: Callable[[], float | None],
        progress: Progress,
        training: TrainingGroups | None,
        references: Callable[[float, float], int],
    ) -> None:
        self._training, self._references = training, references
        self._policy, self._pool, self._config = policy, pool, config
        self._micro_batch, self._optimizer = micro_batch, optimizer
        self._training_pass_at_1, self._progress = training_pass_at_1, progress
        size = min(config.prompts_per_probe, len(pool))
        self.exact_bytes = exact_bytes(self._parameters(), size)
        labels = None if config.group_by is None else row_labels(pool.rows, config.group_by)
        label_of = None if labels is None else labels.__getitem__
        self._sampler = Sampler(policy, pool, size, config.n, config.k)
        self.levels = Levels(policy, config.k, micro_batch, label_of, config.floor, progress)
        self.detector = ConflictDetector(
            config.false_alarms, config.pass1_tolerance, len(set(labels or []))
        )
        self._cosine = PooledCosine()
        self._carriers: tuple[int, ...] = ()  # rows behind a conflict, as of the last probe

    def probe(self, step: int, objective: LiveObjective | None) -> Probe:
        """Fresh prompts, and stored rollouts again.

        Args:
            step: optimizer steps done.
            objective: the live one that the run trains on, where the guard installed one.
        """
        start = time.perf_counter()
        k = self._config.k
        self._progress(_SAMPLING, 0, 0)
        groups, drawn = self._sampler.batch()
        self._progress("scoring", 0, 0)
        scores = self.levels.score(groups)
        one_batch = time.perf_counter() - start
        gramian = self._gramian(groups, step)
        evidence = alignment_evidence(
            gramian,
            groups,
            k=k,
            objective=objective,
            watch=self._config.watch,
            training=self._training,
        )
        self._progress("scoring", 0, 0)
        silent = [group for group in groups if not group.has_signal]
        unscored = iter(score_all(self._policy, silent, self._micro_batch))
        log_probs = [next(unscored) if s is None else s for s in scores]
        diagnostics = diagnose(groups, log_probs, k, evidence.weights, evidence.update)
        rows = tuple(group.row for group in groups)
        served = None
        if self._config.report_temperature is not None:
            self._progress(_SAMPLING, 0, 0)
            served = self._sampler.served(list(rows), self._config.report_temperature)
        # Where nothing can be compared yet, a reference would be costly and empty.
        began = time.perf_counter()
        first = not self.levels.has_rollouts and enough_signal(groups)
        count = self._references(began - start, one_batch) - 1 if first else 0
        more = []
        for i in range(count):
            self._progress("reference batches", i, count)
            more.append(self._sampler.batch()[0])
        self._progress("scoring", 0, 0)
        batches, scored = [*more, groups], [*map(self.levels.score, more), scores]
        only_once = time.perf_counter() - began
        # fresh() scores before it changes anything, and nothing fails after: the filters see a
        # probe whole or not at all.
        reading = self.levels.fresh(step, batches, scored, reference=first)
        cosine = None if evidence.update is None else self._cosine.update(evidence.update)
        fired, cleared = self.detector.update(evidence.update, reading.track, reading.groups)
        self._carriers = tuple(rows[i] for i in evidence.carriers)
        correct, n = counts(groups)
        pass_at_k, pass_at_k_se = sampled_pass_at_k(groups, k)
        return Probe(
            step=step,
            pass_at_1=float(np.mean(np.array(correct) / np.array(n))),
            pass_at_k=pass_at_k,
            pass_at_k_se=pass_at_k_se,
            served_pass_at_1=served,
            training_pass_at_1=self._training_pass_at_1(),
            reading=reading,
            curve=evidence.curve,
            alignment=evidence.target,
            update_alignment=evidence.update,
            cosine=cosine,
            no_signal=len(silent) / len(groups),
            diagnostics=diagnostics,
            alarm=self._alarm(step, fired, reading),
            conflicts=tuple(sorted(self.detector.active)),
            cleared=cleared,
            k=k if objective is None else objective.k,
            pass1_weight=0.0 if objective is None else objective.pass1_weight,
            rollouts=sum(n),
            unscorable=drawn - sum(n),
            row_ids=rows,
            correct=tuple(correct),
            scored=tuple(n),
            weights=evidence.weights,
            rewards=reward_range(groups),
            gramian=None if gramian is None else gramian.float().numpy(),
            seconds=time.perf_counter() - start,
            only_once=only_once,
        )

    def rescore(self, step: int) -> Rescore:
        """Stored rollouts again, forward passes only."""
        start = time.perf_counter()
        reading = self.levels.again(step)
        fired, cleared = self.detector.update(None, reading.track, reading.groups)
        return Rescore(
            step=step,
            reading=reading,
            alarm=self._alarm(step, fired, reading),
            conflicts=tuple(sorted(self.detector.active)),
            cleared=cleared,
            seconds=time.perf_counter() - start,
        )

    def _parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Looked up anew each time: a trainer may shard its model as training begins."""
        return select_parameters(self._policy.parameters(), self._config.parameters)

    def _gramian(self, groups: list[RolloutGroup], step: int) -> torch.Tensor | None:
        scales = None
        if self._optimizer is not None and self._config.metric == "adam":
            scales = adam_scales(self._optimizer(), self._parameters())
            if not scales:  # before the first step Adam has no metric yet
                return None
        return prompt_gramian(
            self._policy,
            groups,
            self._parameters(),
            rollouts_per_backward=self._micro_batch,
            scales=scales,
            memory_limit=self._config.memory_limit,
            seed=(self._config.seed, step),
            progress=self._progress,
        )

    def _alarm(self, step: int, fired: tuple[str, ...], reading: Reading) -> Alarm | None:
        if not fired:
            return None
        message = alarm_message(
            step,
            fired,
            reading,
            self._cosine.now(),
            self._carriers,
            self._pool.rows,
            self._config,
        )
        track = reading.track
        return Alarm(step, fired, message, (-track.change, track.change_se), self._carriers)

    def visible_loss(self, drift: Drift, probes: int | None) -> float:
        """The smallest loss of pass@1 that the level alarm can be sure of.

        Args:
            drift: a usable increment, taken as typical.
            probes: in the run; the loss at its end. After ten where ``None``.
        """
        return self.levels.visible_loss(
            drift, (probes or 10) - 1, self.detector.z, self.detector.tolerance, self._sampler.size
        )

    def alignment_state(self) -> dict[str, Any]:
        """What the alignment alarm rests on, and what is shown of it."""
        return {
            "cusum": self.detector.cusum.state_dict(),
            "cosine": self._cosine.state_dict(),
            "carriers": list(self._carriers),
        }

    def load_alignment(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`alignment_state` gave.

        Raises:
            Unfit: it is not whole; nothing is taken over.
        """
        cusum = checked_cusum(mapping(state, "cusum"))
        carriers = row_ids(state, "carriers", len(self._pool))
        self._cosine.load_state_dict(mapping(state, "cosine"))
        self.detector.cusum.load_state_dict(cusum)
        self._carriers = tuple(carriers)
