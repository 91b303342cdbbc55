"""What a probe found."""

from __future__ import annotations

from dataclasses import dataclass, field

from passk_guard.alignment import Alignment
from passk_guard.cosine import Cosine
from passk_guard.detection import Alarm
from passk_guard.rollout_store import Drift
from passk_guard.track import Track

__all__ = ["Failure", "Probe"]


@dataclass(frozen=True)
class Probe:
    """One look at the policy on a fresh batch of held-out prompts.

    Attributes:
        step: optimizer steps done.
        pass_at_1: sampled on this batch.
        pass_at_k: sampled on this batch, at the k in force.
        track: filtered pass@1 with its interval, and its change since the reference.
        curve: alignment for k = 1 to n-1; empty without signal.
        alignment: the pass@k diagnostic at the target k; ``None`` without signal.
        update_alignment: of the update in force, which is what the alarm tests.
        cosine: of the update in force, pooled over probes, with interval.
        drift: paired change of pass@1 since the last probe; ``None`` at the first.
        no_signal: share of prompts with no or only right rollouts.
        alarm: set on the probe that raises it.
        conflict: whether a conflict is open.
        cleared: whether one ended with this probe.
        k: that the objective uses.
        pass1_weight: λ that the objective uses.
        prompts: measured.
        rollouts: scored.
        unscorable: rollouts that the verifier could not score.
        row_ids: of the prompts, in the order of ``alignment.agreement``.
        seconds: what the probe took.
    """

    step: int
    pass_at_1: float
    pass_at_k: float
    track: Track
    curve: list[Alignment] = field(repr=False)
    alignment: Alignment | None
    update_alignment: Alignment | None
    cosine: Cosine | None
    drift: Drift | None
    no_signal: float
    alarm: Alarm | None
    conflict: bool
    cleared: bool
    k: int
    pass1_weight: float
    prompts: int
    rollouts: int
    unscorable: int
    row_ids: tuple[int, ...] = field(repr=False)
    seconds: float

    @property
    def exploration_gap(self) -> float:
        """Sampled pass@k less pass@1: what exploration still has to offer."""
        return self.pass_at_k - self.pass_at_1


@dataclass(frozen=True)
class Failure:
    """A probe that was lost, and why. Training went on."""

    step: int
    reason: str
