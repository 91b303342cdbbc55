"""One look at the policy: sample, verify, differentiate, weigh, decide."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from passk_guard.config import PassKGuardConfig
from passk_guard.detection.alarm import Alarm, AlarmKind
from passk_guard.detection.detector import Detector, LookEvidence
from passk_guard.detection.episodes import ConflictDetector
from passk_guard.detection.verifier_check import VerifierCheck
from passk_guard.gradients.engine import EngineSettings
from passk_guard.look import Probe, Rescore
from passk_guard.objectives.live import LiveObjective
from passk_guard.objectives.training_weight import TrainingGroups
from passk_guard.prompts.pool import HeldOutPool, row_labels
from passk_guard.rollouts.batching import PassSize
from passk_guard.rollouts.group import counts, enough_signal, reward_range
from passk_guard.rollouts.policy import Policy
from passk_guard.rollouts.sampling import Sampler
from passk_guard.rollouts.scores import score_all
from passk_guard.rollouts.verified_again import without_completions
from passk_guard.runtime.progress import Progress
from passk_guard.statistics.alignment import Alignment
from passk_guard.statistics.cosine import Cosine
from passk_guard.statistics.diagnostics import diagnose
from passk_guard.statistics.evidence import (
    WeightsInForce,
    alignment_evidence,
    sampled_pass_at_k,
)
from passk_guard.statistics.first_test import FirstTest, first_test
from passk_guard.statistics.kept_batches import KeptBatches
from passk_guard.statistics.levels import Levels, Reading
from passk_guard.statistics.probe_gradients import ProbeGradients
from passk_guard.statistics.rollout_store import Drift

_SAMPLING = "sampling and verifying"


class Prober:
    """Turns the policy of the moment into a :class:`Probe` or a :class:`Rescore`.

    Args:
        policy: samples, verifies and scores.
        pool: held-out prompts.
        config: settings.
        passes: size of a forward and backward.
        optimizer: gives the run's optimizer, for ``metric="adam"``.
        training_pass_at_1: gives pass@1 on recent training batches, or ``None``.
        progress: told where a look stands.
        training: the groups that the run trains on, where they are known.
        references: ``f(first, more)`` that gives the number of reference batches, from the seconds
            that the first look has taken so far, and those that each further batch will take.
        describe: puts an alarm into words.

    Attributes:
        levels: pass@1 over the run.
        detector: raises alarms.
        verifier: sees whether it is still the same.
        gradients: takes them.
    """

    def __init__(
        self,
        policy: Policy,
        pool: HeldOutPool,
        config: PassKGuardConfig,
        passes: PassSize,
        optimizer: Callable[[], Any] | None,
        training_pass_at_1: Callable[[], float | None],
        progress: Progress,
        training: TrainingGroups | None,
        references: Callable[[float, float], int],
        describe: Callable[[Alarm], str],
    ) -> None:
        self._training, self._references, self._describe = training, references, describe
        self._policy, self._pool, self._config = policy, pool, config
        self._passes = passes
        self._training_pass_at_1, self._progress = training_pass_at_1, progress
        size = min(config.prompts_per_probe, len(pool))
        settings = EngineSettings(
            config.parameters, passes, config.memory_limit, size, None, progress
        )
        self.gradients = ProbeGradients(
            policy, config.engine, settings, optimizer if config.metric == "adam" else None
        )
        labels = None if config.group_by is None else row_labels(pool.rows, config.group_by)
        label_of = None if labels is None else labels.__getitem__
        self._sampler = Sampler(policy, pool, size, config.n, config.k)
        self.levels = Levels(
            policy, config.k, passes, label_of, config.floor, progress, pool.sizes(labels)
        )
        groups = len(set(labels or []))
        chance, relative = config.false_alarms, isinstance(config.floor, str)
        self.detector = ConflictDetector(
            chance, config.pass1_tolerance, groups, config.detectors, relative=relative
        )
        self._kept = KeptBatches()
        self._cosine: Cosine | None = None  # as of the last probe
        self.verifier = VerifierCheck(policy, pool.rows, config.strict)
        self._opposing: tuple[int, ...] = ()  # row ids, as of the last probe

    def probe(self, step: int, objective: LiveObjective | None) -> Probe:
        """Fresh prompts, and stored rollouts again.

        Args:
            step: optimizer steps done.
            objective: the live one that the run trains on, where the guard installed one.
        """
        start = time.perf_counter()
        k, seed = self._config.k, (self._config.seed, step)
        weigh = WeightsInForce(k, objective, self._config.watch, self._training)
        self._progress(_SAMPLING, 0, 0)
        groups, drawn, cut = self._sampler.batch()
        verifier, groups = self.verifier.look(step, groups), without_completions(groups)
        self._progress("scoring", 0, 0)
        batch, given = self.gradients.take(groups, seed)
        scores = self.levels.score(groups, given)
        one_batch = time.perf_counter() - start
        evidence = alignment_evidence(batch, groups, k, weigh)
        self._progress("scoring", 0, 0)
        never = [group for group in groups if group.correct == 0]
        unscored = iter(score_all(self._policy, never, self._passes))
        log_probs = [next(unscored) if s is None else s for s in scores]
        diagnostics = diagnose(groups, log_probs, k, evidence.weights, evidence.update)
        rows = tuple(group.row for group in groups)
        served = None
        if self._config.report_temperature is not None:
            self._progress(_SAMPLING, 0, 0)
            served = self._sampler.served(list(rows), self._config.report_temperature)
        # Where nothing can be compared yet, a reference would be costly and empty.
        began = time.perf_counter()
        is_first = not self.levels.has_rollouts and enough_signal(groups)
        more, first, tested = [], None, batch
        if is_first:
            count = self._references(began - start, one_batch) - 1
            for i in range(count):
                self._progress("reference batches", i, count)
                more.append(
                    without_completions(self._sampler.batch(self._config.reference_n).groups)
                )
        self._progress("scoring", 0, 0)
        batches, scored = [*more, groups], None
        if is_first:
            tested, scored = self.gradients.take_reference(batches, (batch, given), seed)
            first = first_test(tested.gramian, weigh(tested), self._config.false_alarms)
            batch = tested if self.gradients.euclidean else batch
        known = [None] * len(more) if scored is None else scored[:-1]
        scored = [*map(self.levels.score, more, known), scores]
        seen = tested is None or weigh.sees(tested)
        only_once = time.perf_counter() - began
        kept = self._kept.by(self.gradients.parameters)
        scale = kept.scale(weigh, len(groups))
        if batch is not None and evidence.update is not None:
            kept = kept.plus(batch)
        cosine = kept.cosine(weigh)
        # fresh() scores before it changes anything, and nothing fails after: the filters see a
        # probe whole or not at all.
        reading = self.levels.fresh(step, batches, scored, reference=is_first)
        self._kept, self._cosine = kept, cosine
        fired, cleared = self._judge(reading, evidence.update, scale, first if seen else None)
        self._opposing = tuple(rows[i] for i in evidence.opposing)
        correct, n = counts(groups)
        pass_at_k, pass_at_k_se = sampled_pass_at_k(groups, k)
        return Probe(
            step=step,
            pass_at_1=float(np.mean(np.array(correct) / np.array(n))),
            pass_at_k=pass_at_k,
            pass_at_k_se=pass_at_k_se,
            served_pass_at_1=served,
            training_pass_at_1=self._training_pass_at_1(),
            verifier=verifier,
            reading=reading,
            curve=evidence.curve,
            alignment=evidence.target,
            update_alignment=evidence.update,
            cosine=self._cosine,
            first=first,
            update_seen=seen,
            no_signal=float(np.mean([not group.has_signal for group in groups])),
            diagnostics=diagnostics,
            alarm=self._alarm(step, fired, reading),
            conflicts=self._conflicts(),
            cause=self.detector.cause,
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
            truncation=cut,
            gramian=evidence.gramian,
            seconds=time.perf_counter() - start,
            only_once=only_once,
        )

    def rescore(self, step: int) -> Rescore:
        """Stored rollouts again, forward passes only."""
        start = time.perf_counter()
        reading = self.levels.again(step)
        fired, cleared = self._judge(reading)
        return Rescore(
            step=step,
            reading=reading,
            alarm=self._alarm(step, fired, reading),
            conflicts=self._conflicts(),
            cause=self.detector.cause,
            cleared=cleared,
            seconds=time.perf_counter() - start,
        )

    def _judge(
        self,
        reading: Reading,
        update: Alignment | None = None,
        scale: float | None = None,
        first: FirstTest | None = None,
    ) -> tuple[tuple[AlarmKind, ...], bool]:
        evidence = LookEvidence(
            update=update,
            track=reading.track,
            groups=reading.groups,
            scale=scale,
            drift=reading.drift,
            steps=reading.steps,
            first=first,
            pace=reading.pace,
        )
        return self.detector.update(evidence, self._cosine)

    def _conflicts(self) -> tuple[AlarmKind, ...]:
        return tuple(sorted(self.detector.active))

    def _alarm(self, step: int, fired: tuple[AlarmKind, ...], reading: Reading) -> Alarm | None:
        if not fired:
            return None
        labels = {kind.group for kind in fired}
        groups = {label: track for label, track in reading.groups.items() if label in labels}
        assert self.detector.cause is not None, "an alarm is open"
        alarm = Alarm(
            step=step,
            fired=fired,
            track=reading.track,
            groups=groups,
            cause=self.detector.cause,
            cosine=self._cosine,
            pace=reading.pace,
            prompts=self._opposing,
        )
        return replace(alarm, message=self._describe(alarm))

    def visible_loss(self, drift: Drift, probes: int | None) -> float | None:
        """The smallest loss of pass@1 that the level alarm can be sure of; ``None`` without one.

        Args:
            drift: a usable increment, taken as typical.
            probes: in the run; the loss at its end. After ten where ``None``.
        """
        tolerance, size = self._config.pass1_tolerance, self._sampler.size
        if self.detector.level_z is None:
            return None
        return self.levels.visible_loss(
            drift, (probes or 10) - 1, self.detector.level_z, tolerance, size
        )

    @property
    def _alignment_detector(self) -> Detector | None:
        return self.detector.detectors.get("alignment")

    def alignment_state(self) -> dict[str, Any]:
        """What the alignment alarm rests on, and what is shown of it."""
        detector = self._alignment_detector
        return {
            "cusum": {} if detector is None else detector.state_dict(),
            "kept": self._kept.state_dict(),
            "shown": None if self._cosine is None else dict(vars(self._cosine)),
            "carriers": list(self._opposing),
        }

    def load_alignment(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`alignment_state` gave."""
        kept, shown = KeptBatches(), state["shown"]
        kept.load_state_dict(state["kept"])
        if self._alignment_detector is not None and state["cusum"]:
            self._alignment_detector.load_state_dict(state["cusum"])
        self._kept, self._cosine = kept, None if shown is None else Cosine(**shown)
        self._opposing = tuple(state["carriers"])
