"""Where pass@1 stands, over all prompts and within each group: stored rollouts and their tracks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from passk_guard.rollouts.batching import PassSize
from passk_guard.rollouts.group import RolloutGroup, counts
from passk_guard.rollouts.policy import Policy
from passk_guard.rollouts.scores import score
from passk_guard.runtime.progress import Progress, silent
from passk_guard.runtime.stored import Stored
from passk_guard.statistics.floor import Floor
from passk_guard.statistics.pace import Pace, PaceKeeper
from passk_guard.statistics.rollout_store import Drift, RolloutStore
from passk_guard.statistics.stored_batch import PASS_AT_1, PASS_AT_K
from passk_guard.statistics.track import Level, Pass1Track, Track, sampled_level
from passk_guard.statistics.turnover import PromptCounts, Turnover


@dataclass(frozen=True)
class Reading:
    """Pass@1 as known at one step.

    Attributes:
        track: over all prompts.
        groups: by label, with ``group_by``; those seen so far.
        drift: paired change of pass@1 since the last reading; ``None`` at the first.
        drift_at_k: the same of pass@k.
        group_drifts: paired changes by label, with ``group_by``; of those that were measured.
        pace: change of pass@1 per ten steps at present, where it is known.
        steps: optimizer steps since the last reading.
        turnover: prompts lost and won since they were first drawn; ``None`` where none was drawn
            again, and at a re-scoring.
    """

    track: Track
    groups: Mapping[str, Track]
    drift: Drift | None
    drift_at_k: Drift | None
    group_drifts: Mapping[str, Drift] = field(default_factory=dict)
    pace: Pace | None = None
    steps: int = 0
    turnover: Turnover | None = None


class Levels(Stored):
    """The filters of pass@1, fed by fresh batches and by stored rollouts that are scored again.

    Args:
        policy: scores rollouts.
        k: of the pass@k drift.
        size: of a forward.
        label_of: group of a row, or ``None``.
        floor: under pass@1 of all prompts, see
            :class:`~passk_guard.statistics.floor.Floor`; each group's is where it began.
        progress: told where scoring again stands.
        pool: prompts that batches are drawn from without replacement, by group and, under ``None``,
            in all; empty where there is no such number.

    Attributes:
        floor: under pass@1 of all prompts.
    """

    # Floor and groups rest on other settings.
    _stored = ("_store", "_track", "_pace", "_last_step", "_counts")

    def __init__(
        self,
        policy: Policy,
        k: int,
        size: PassSize | None,
        label_of: Callable[[int], str] | None = None,
        floor: str | float = "start",
        progress: Progress = silent,
        pool: Mapping[str | None, int] | None = None,
    ) -> None:
        self._policy, self._size, self._label_of = policy, size, label_of
        self._progress = progress
        self._pool = pool or {}
        self._store = RolloutStore(k, label_of, self._pool.get(None))
        self._track, self._pace, self._counts = Pass1Track(), PaceKeeper(), PromptCounts()
        self.floor = Floor(floor)
        self._groups: dict[str, Pass1Track] = {}
        self._last_step = 0

    @property
    def has_rollouts(self) -> bool:
        """Whether there is anything to score again."""
        return len(self._store) > 0

    def fresh(
        self,
        step: int,
        batches: Sequence[Sequence[RolloutGroup]],
        scored: Sequence[Sequence[Tensor | None]],
        *,
        reference: bool,
    ) -> Reading:
        """Score stored rollouts again, then take in what was just sampled.

        Args:
            step: optimizer steps done.
            batches: fresh prompts with their rollouts.
            scored: their log-probs, from :func:`~passk_guard.rollouts.scores.score`.
            reference: keep them as reference.
        """
        drifts = self._store.measure(self._policy, self._size, self._progress)
        # Nothing can fail from here on: the filters see a probe whole or not at all.
        self._store.add(list(zip(batches, scored, strict=True)), reference=reference)
        everything = [group for batch in batches for group in batch]
        reading = self._update(step, drifts, everything)
        return replace(reading, turnover=self._counts.add(everything))

    def score(
        self, groups: Sequence[RolloutGroup], known: Sequence[Tensor | None] | None = None
    ) -> list[Tensor | None]:
        """Log-probs of a batch under the present weights, some of them known."""
        return score(self._policy, groups, self._size, known)

    def again(self, step: int) -> Reading:
        """Score stored rollouts again: forward passes only."""
        drifts = self._store.measure(self._policy, self._size, self._progress)
        return self._update(step, drifts, [])

    def _update(
        self, step: int, drifts: Mapping[str, Drift], fresh: Sequence[RolloutGroup]
    ) -> Reading:
        steps, self._last_step = step - self._last_step, step
        drift = drifts.get(PASS_AT_1)
        track = self._track.update(self._level(fresh), drift, steps)
        assert track is not None, "a fresh batch comes first"
        by_label: dict[str, list[RolloutGroup]] = {}
        if self._label_of is not None:
            for group in fresh:
                by_label.setdefault(self._label_of(group.row), []).append(group)
        tracks, own_drifts = {}, {}
        for label in sorted({*self._groups, *by_label}):
            filter_ = self._groups.setdefault(label, Pass1Track())
            own = drifts.get(label)
            if own is None and drift is not None and not drift.usable:
                own = drift  # it says why there is none
            if own is not None:
                own_drifts[label] = own
            level = self._level(by_label.get(label, []), label)
            if (now := filter_.update(level, own, steps)) is not None:
                tracks[label] = now
        return Reading(
            track=self.floor.under(track),
            groups=tracks,
            drift=drift,
            drift_at_k=drifts.get(PASS_AT_K),
            group_drifts=own_drifts,
            pace=self._pace.update(drift, steps, track.pass_at_1),
            steps=steps,
        )

    def _level(self, groups: Sequence[RolloutGroup], label: str | None = None) -> Level | None:
        return sampled_level(*counts(groups), self._pool.get(label)) if groups else None

    def visible_loss(
        self, drift: Drift, updates: int, z: float, tolerance: float, prompts: int
    ) -> float:
        """The loss at which the level alarm would fire after ``updates`` more probes like these.

        Args:
            drift: a typical increment.
            updates: probes to come.
            z: standard errors that the alarm asks for.
            tolerance: loss that is no alarm.
            prompts: per probe.
        """
        se = self._track.forecast(
            drift.added_variance, prompts, max(updates, 1), self._pool.get(None)
        )
        return tolerance + z * se

    def groups_state(self) -> dict[str, Any]:
        """The tracks of the groups."""
        return {label: track.state_dict() for label, track in self._groups.items()}

    def load_groups(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`groups_state` gave, once the rollouts are there."""
        groups = {label: Pass1Track() for label in state}
        for label, track in groups.items():
            track.load_state_dict(state[label])
        self._groups = groups

    def forget_groups(self) -> None:
        """Other groups than before: what was summed up for them is void, the rollouts are not."""
        self._store.forget(lambda name: name in (PASS_AT_1, PASS_AT_K))

    def forget_pass_at_k(self) -> None:
        """Another k than before."""
        self._store.forget(lambda name: name != PASS_AT_K)
