"""One look at the policy: sample, verify, differentiate, weigh, decide."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
from passk_guard.rollouts.group import reward_range
from passk_guard.rollouts.policy import Policy
from passk_guard.rollouts.sampling import Sampler
from passk_guard.rollouts.scores import score, score_all
from passk_guard.rollouts.verified_again import without_completions
from passk_guard.runtime.progress import Progress
from passk_guard.statistics.alignment import Alignment
from passk_guard.statistics.cosine import Cosine
from passk_guard.statistics.diagnostics import diagnose
from passk_guard.statistics.evidence import (
    SeenWeights,
    WeightsInForce,
    alignment_evidence,
    look_batch,
    reference_batch,
)
from passk_guard.statistics.exploration import pass_at_k_since_start
from passk_guard.statistics.first_test import FirstTest, first_test
from passk_guard.statistics.kept_batches import Foretold, KeptBatches
from passk_guard.statistics.levels import Levels, Reading
from passk_guard.statistics.probe_gradients import ProbeGradients
from passk_guard.statistics.track import Drift

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
        reference: ``f(wanted, seconds)`` that gives the number of chunks of prompts that the
            reference may have, from the seconds that sampling the first one took.
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
        reference: Callable[[int, float], int],
        describe: Callable[[Alarm], str],
    ) -> None:
        self._training, self._plan_reference, self._describe = training, reference, describe
        self._policy, self._pool, self._config = policy, pool, config
        self._passes = passes
        self._training_pass_at_1, self._progress = training_pass_at_1, progress
        size = min(config.reference_prompts, len(pool))
        settings = EngineSettings(
            config.parameters, passes, config.memory_limit, size, None, progress
        )
        self.gradients = ProbeGradients(
            policy, config.engine, settings, optimizer if config.metric == "adam" else None
        )
        labels = None if config.group_by is None else row_labels(pool.rows, config.group_by)
        label_of = None if labels is None else labels.__getitem__
        self._sampler = Sampler(policy, pool, size, config.k)
        self.levels = Levels(policy, passes, label_of, config.floor, progress, pool.sizes(labels))
        groups = len(set(labels or []))
        chance, relative = config.false_alarms, isinstance(config.floor, str)
        self.detector = ConflictDetector(
            chance, config.pass1_tolerance, groups, config.detectors, relative=relative
        )
        self._kept, self._seen = KeptBatches(), SeenWeights(np.zeros(0), training)
        self._cosine: Cosine | None = None  # as of the last probe
        self.verifier = VerifierCheck(policy, pool.rows, config.strict)
        self._opposing: tuple[int, ...] = ()  # row ids, as of the last probe

    def probe(self, step: int, objective: LiveObjective | None) -> Probe:
        """The reference's prompts again, at first the reference itself; and stored rollouts.

        Args:
            step: optimizer steps done.
            objective: the live one that the run trains on, where the guard installed one.
        """
        start = time.perf_counter()
        k, seed = self._config.k, (self._config.seed, step)
        weigh = WeightsInForce(k, objective, self._config.watch, self._training)
        counts, earlier = self.levels.counts, None
        if counts is None:
            drawn = self._sampler.reference(self._config.n, self._chunks(start))
        else:
            self._progress(_SAMPLING, 0, 0)
            drawn = self._sampler.again(counts.rows, self._config.rollouts(len(counts)))
        weights = drawn.weights if counts is None else self.levels.weights
        verifier = self.verifier.look(step, drawn.groups)
        groups = without_completions(drawn.groups)
        if counts is not None:
            earlier = counts.recent()
            rates, places = earlier[0] / earlier[1], counts.places(groups)
            pairs = zip(groups, rates[places].tolist(), strict=True)
            groups = [replace(group, baseline=rate) for group, rate in pairs]
        self._progress("scoring", 0, 0)
        gramian, given = self.gradients.take(groups, seed, first=counts is None)
        scores = score(self._policy, groups, self._passes, given)
        self._progress("scoring", 0, 0)
        silent = [group for group, found in zip(groups, scores, strict=True) if found is None]
        unscored = iter(score_all(self._policy, silent, self._passes))
        log_probs = [next(unscored) if s is None else s for s in scores]
        served = None
        if self._config.report_temperature is not None:
            self._progress(_SAMPLING, 0, 0)
            rows = [group.row for group in groups]
            served = self._sampler.served(rows, self._config.report_temperature)
        seen = self._seen
        if counts is None or earlier is None:
            seen = SeenWeights.on(groups, self._training)
            batch = reference_batch(_laid_out(gramian, len(groups), None, weights), groups)
            places = np.arange(len(groups))
        else:
            places = counts.places(groups)
            each = self._config.rollouts(len(counts))
            whole = _laid_out(gramian, len(counts), places, weights)
            batch = look_batch(whole, earlier, seen, each)
        measured = gramian is not None
        evidence = alignment_evidence(batch, k, self._config.n - 1, weigh, measured=measured)
        first = None
        if counts is None and evidence.update is not None:
            first = first_test(batch.gramian, evidence.weights, self._config.false_alarms)
        update_seen = weigh.sees(batch)
        kept = self._kept.by(self.gradients.parameters)
        foretold = kept.foretold(weigh, batch.rollouts)
        if evidence.update is not None and (counts is not None or self.gradients.euclidean):
            kept = kept.plus(batch)
        cosine = kept.cosine(weigh)
        # The levels score stored rollouts before they change anything, and nothing fails after: the
        # filters see a look whole or not at all.
        if counts is None:
            reading = self.levels.begin(step, groups, scores, weights)
        else:
            reading = self.levels.look(step, groups, scores)
        counts = self.levels.counts
        assert counts is not None, "the levels have begun"
        self._kept, self._seen, self._cosine = kept, seen, cosine
        evident = first if update_seen else None
        fired, cleared = self._judge(reading, evidence.update, foretold, evident)
        self._opposing = tuple(counts.rows[i] for i in evidence.opposing)
        right, n = counts.recent()
        each = self._config.rollouts(len(counts))
        diagnostics = diagnose(
            [group.first(each) for group in groups],
            [found[:each] for found in log_probs],
            (right, n),
            k,
            evidence.weights,
            evidence.update,
        )
        share = weights[places] / weights[places].sum()
        solved = np.array([group.correct / group.n for group in groups])
        scored = sum(group.n for group in groups)
        seconds = time.perf_counter() - start
        look = each * len(counts)
        return Probe(
            step=step,
            pass_at_1=float(share @ solved),
            solved_in_k=pass_at_k_since_start(counts, weights, k),
            served_pass_at_1=served,
            training_pass_at_1=self._training_pass_at_1(),
            verifier=verifier,
            reading=reading,
            curve=evidence.curve,
            alignment=evidence.target,
            update_alignment=evidence.update,
            cosine=self._cosine,
            first=first,
            update_seen=update_seen,
            no_signal=float(np.mean((right == 0) | (right == n))),
            diagnostics=diagnostics,
            alarm=self._alarm(step, fired, reading),
            conflicts=self._conflicts(),
            cause=self.detector.cause,
            cleared=cleared,
            k=k if objective is None else objective.k,
            pass1_weight=0.0 if objective is None else objective.pass1_weight,
            rollouts=scored,
            unscorable=drawn.drawn - scored,
            row_ids=counts.rows,
            correct=tuple(right.tolist()),
            scored=tuple(n.tolist()),
            weights=evidence.weights,
            rewards=reward_range(groups),
            truncation=drawn.truncation,
            gramian=evidence.gramian,
            seconds=seconds,
            # The first look also samples the reference: the next ones will cost what is left.
            only_once=seconds * max(1 - look / drawn.drawn, 0.0),
        )

    def _chunks(self, start: float) -> Callable[[int, int], int]:
        """Tells progress, and how many chunks of prompts the run has time for."""
        allowed: list[int] = []

        def chunks(done: int, of: int) -> int:
            if done == 1:
                allowed.append(self._plan_reference(of, time.perf_counter() - start))
            self._progress("sampling the reference", done, of)
            return min([of, *allowed])

        return chunks

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
        foretold: Foretold | None = None,
        first: FirstTest | None = None,
    ) -> tuple[tuple[AlarmKind, ...], bool]:
        evidence = LookEvidence(
            update=update,
            track=reading.track,
            groups=reading.groups,
            foretold=foretold,
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

    def visible_loss(self, drift: Drift, interval: float, probes: int | None) -> float | None:
        """The smallest loss of pass@1 that the level alarm can be sure of; ``None`` without one.

        Args:
            drift: since the last look, taken as typical.
            interval: steps between looks.
            probes: in the run; the loss at its end. After ten where ``None``.
        """
        z, counts = self.detector.level_z, self.levels.counts
        if z is None or counts is None:
            return None
        each, tolerance = self._config.rollouts(len(counts)), self._config.pass1_tolerance
        return self.levels.visible_loss(drift, (probes or 10) - 1, interval, z, tolerance, each)

    @property
    def _alignment_detector(self) -> Detector | None:
        return self.detector.detectors.get("alignment")

    def alignment_state(self) -> dict[str, Any]:
        """What the alignment alarm rests on, and what is shown of it."""
        detector = self._alignment_detector
        return {
            "cusum": {} if detector is None else detector.state_dict(),
            "kept": self._kept.state_dict(),
            "seen": self._seen.state_dict(),
            "shown": None if self._cosine is None else dict(vars(self._cosine)),
            "carriers": list(self._opposing),
        }

    def load_alignment(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`alignment_state` gave."""
        kept, shown = KeptBatches(), state["shown"]
        kept.load_state_dict(state["kept"])
        seen = SeenWeights.load(state["seen"], self._training)
        if self._alignment_detector is not None and state["cusum"]:
            self._alignment_detector.load_state_dict(state["cusum"])
        self._kept, self._seen = kept, seen
        self._cosine = None if shown is None else Cosine(**shown)
        self._opposing = tuple(state["carriers"])


def _laid_out(
    gramian: Tensor | None, m: int, places: np.ndarray | None, weights: np.ndarray
) -> Tensor:
    """The Gramian of all ``m`` prompts, each gradient times its prompt's weight; 0 if not taken."""
    whole = torch.zeros(m, m, dtype=torch.float64, device="cpu")
    if gramian is not None:
        at = torch.arange(m, device="cpu") if places is None else torch.from_numpy(places)
        whole[at[:, None], at] = gramian
    scale = torch.from_numpy(weights)
    return whole * scale[:, None] * scale
