"""What one look at the policy found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from passk_guard.detection.alarm import Alarm, AlarmKind
from passk_guard.detection.cause import Cause
from passk_guard.detection.verifier_drift import VerifierDrift
from passk_guard.rollouts.group import Truncation
from passk_guard.statistics.alignment import Alignment
from passk_guard.statistics.cosine import Cosine
from passk_guard.statistics.diagnostics import Diagnostics
from passk_guard.statistics.exploration import PassAtK
from passk_guard.statistics.first_test import FirstTest
from passk_guard.statistics.inference_mismatch import InferenceMismatch
from passk_guard.statistics.levels import Reading
from passk_guard.statistics.lost_prompts import ChangedPrompts
from passk_guard.statistics.pace import Pace
from passk_guard.statistics.track import Drift, Track


@dataclass(frozen=True, kw_only=True)
class Look:
    """What every look knows: where pass@1 stands, and which alarms are open.

    Attributes:
        step: optimizer steps done.
        reading: pass@1 as known now; see ``track``, ``groups``, ``drift``,
            ``turnover``.
        alarm: set where one is raised here.
        conflicts: alarms that are open.
        cause: of them; ``None`` where none is open.
        cleared: whether the conflict ended here.
        seconds: what it took.
    """

    step: int
    reading: Reading = field(repr=False)
    alarm: Alarm | None
    conflicts: tuple[AlarmKind, ...]
    cause: Cause | None
    cleared: bool
    seconds: float

    @property
    def track(self) -> Track:
        """Filtered pass@1 with its interval, and its change since the start."""
        return self.reading.track

    @property
    def groups(self) -> Mapping[str, Track]:
        """The same for each group of prompts, with ``group_by``."""
        return self.reading.groups

    @property
    def drift(self) -> Drift | None:
        """Change of pass@1 since the last probe or re-scoring; ``None`` at the first."""
        return self.reading.drift

    @property
    def pace(self) -> Pace | None:
        """Change of pass@1 per ten optimizer steps at present, with its interval."""
        return self.reading.pace

    @property
    def turnover(self) -> ChangedPrompts | None:
        """Prompts lost and won since the start; ``None`` at a re-scoring and at the first look."""
        return self.reading.turnover

    @property
    def conflict(self) -> bool:
        """Whether a conflict is open."""
        return bool(self.conflicts)


@dataclass(frozen=True, kw_only=True)
class Rescore(Look):
    """Stored rollouts scored again under the present weights: forward passes only."""


@dataclass(frozen=True, kw_only=True)
class Probe(Look):
    """Fresh rollouts of the reference's prompts; stored ones are scored again, too.

    Attributes:
        pass_at_1: sampled at this look.
        solved_in_k: pass@k at the target k and what exploration has to offer, now and since the
            start.
        served_pass_at_1: sampled at ``report_temperature``, where that is set.
        training_pass_at_1: on the training batches since the last probe, where they are seen. No
            alarm rests on it.
        verifier: whether it still gives the verdicts that it gave; ``None`` at the first probe, and
            where it cannot be asked.
        curve: alignment for k = 1 to n-1; empty without signal.
        alignment: the pass@k diagnostic at the target k; ``None`` without signal.
        update_alignment: of the update in force, which is what the alarm tests.
        cosine: of the update in force, with interval and z, from the last probes' gradients under
            the weights of this one.
        first: the test of the reference's gradients, on the probe that took them.
        update_seen: whether ``update_alignment`` has the update's own weights; where a loss is out
            of reach the target k's stand in.
        no_signal: share of prompts whose rollouts of the last looks are all right or all wrong.
        diagnostics: entropy, top-1 mass, weights.
        k: that the objective uses; lower than the target while ``adjust_k`` holds it down.
        pass1_weight: λ that the objective uses.
        rollouts: scored at this look.
        unscorable: rollouts that the verifier could not score.
        row_ids: of the ``m`` prompts, in the order of what follows.
        correct: ``(m,)`` right rollouts at the last looks together.
        scored: ``(m,)`` rollouts that have a verdict at the last looks together.
        weights: ``(m,)`` prompt weights in force.
        rewards: lowest and highest score that the verifier gave, where they are seen.
        truncation: how many rollouts the length limit cut, and at how many tokens, where known.
        gramian: ``(m, m)`` inner products of per-prompt gradients: the interference kernel.
        only_once: seconds that went into the reference, once per run.
    """

    pass_at_1: float
    solved_in_k: PassAtK
    served_pass_at_1: float | None
    training_pass_at_1: float | None
    verifier: VerifierDrift | None = None
    curve: list[Alignment] = field(repr=False)
    alignment: Alignment | None
    update_alignment: Alignment | None
    cosine: Cosine | None
    first: FirstTest | None
    update_seen: bool
    no_signal: float
    diagnostics: Diagnostics = field(repr=False)
    k: float
    pass1_weight: float
    rollouts: int
    unscorable: int
    row_ids: tuple[int, ...] = field(repr=False)
    correct: tuple[int, ...] = field(repr=False)
    scored: tuple[int, ...] = field(repr=False)
    weights: np.ndarray = field(repr=False)
    rewards: tuple[float, float] | None = field(repr=False)
    truncation: Truncation | None = field(default=None, repr=False)
    gramian: np.ndarray | None = field(repr=False)
    only_once: float = field(repr=False)

    @property
    def prompts(self) -> int:
        """Prompts measured."""
        return len(self.row_ids)

    @property
    def blind(self) -> bool:
        """Whether nothing could be compared: fewer than two prompts with right and wrong ones."""
        signal = [0 < c < n for c, n in zip(self.correct, self.scored, strict=True)]
        return sum(signal) < 2

    @property
    def pass_rates(self) -> np.ndarray:
        """``(m,)`` share of right rollouts."""
        return np.asarray(np.divide(self.correct, self.scored))

    @property
    def inference(self) -> InferenceMismatch | None:
        """How far the engine that samples is from the model, where there is one that tells."""
        return self.diagnostics.inference

    @property
    def pass_at_k(self) -> float:
        """At the target k, by the rollouts of the last looks together."""
        return self.solved_in_k.value

    @property
    def exploration_gap(self) -> float:
        """pass@k less pass@1: what exploration still has to offer."""
        return self.solved_in_k.gap


@dataclass(frozen=True)
class Failure:
    """A probe that was lost, and why. Training went on."""

    step: int
    reason: str
