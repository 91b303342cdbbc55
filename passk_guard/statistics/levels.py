"""Where pass@1 stands on the reference's prompts, over all of them and within each group."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from passk_guard.rollouts.batching import PassSize
from passk_guard.rollouts.group import RolloutGroup
from passk_guard.rollouts.policy import Policy
from passk_guard.runtime.progress import Progress, silent
from passk_guard.runtime.stored import Unfit
from passk_guard.statistics.lost_prompts import ChangedPrompts, changed_prompts
from passk_guard.statistics.pace import Pace, PaceKeeper
from passk_guard.statistics.prompt_counts import Counts, PromptCounts
from passk_guard.statistics.stored_rollouts import StoredRollouts
from passk_guard.statistics.track import Drift, Fix, Floor, Increment, PairedTrack, Track

_MEMORY = 0.3  # of a look, in the spread of the prompts' changes


@dataclass(frozen=True)
class Reading:
    """Pass@1 as known at one step.

    Attributes:
        track: over all prompts.
        groups: by label, with ``group_by``.
        drift: change of pass@1 since the last reading; ``None`` at the first, and where a
            re-scoring told nothing.
        group_drifts: the same by label.
        pace: change of pass@1 per ten steps at present, where it is known.
        steps: optimizer steps since the last reading.
        turnover: prompts lost and won since the start, by row id; ``None`` at the first, and at a
            re-scoring.
    """

    track: Track
    groups: Mapping[str, Track]
    drift: Drift | None
    group_drifts: Mapping[str, Drift] = field(default_factory=dict)
    pace: Pace | None = None
    steps: int = 0
    turnover: ChangedPrompts | None = None


class Levels:
    """The filters of pass@1, fed by looks and by stored rollouts that are scored again.

    Args:
        policy: scores rollouts.
        size: of a forward.
        label_of: group of a row, or ``None``.
        floor: under pass@1 of all prompts, see
            :class:`~passk_guard.statistics.track.Floor`; each group's is where it began.
        progress: told where scoring again stands.
        pool: rows in the pool by group and, under ``None``, in all; empty where any number.

    Attributes:
        counts: of the reference's prompts; ``None`` before the first look.
        floor: under pass@1 of all prompts.
        weights: ``(m,)`` of the reference's prompts, 1 on the mean.
    """

    def __init__(
        self,
        policy: Policy,
        size: PassSize | None,
        label_of: Callable[[int], str] | None = None,
        floor: str | float = "start",
        progress: Progress = silent,
        pool: Mapping[str | None, int] | None = None,
    ) -> None:
        self._policy, self._size, self._label_of = policy, size, label_of
        self._progress, self._pool = progress, pool or {}
        self.floor = Floor(floor)
        self.counts: PromptCounts | None = None
        self.weights = np.zeros(0)
        self._reference: StoredRollouts | None = None
        self._last: StoredRollouts | None = None
        self._tracks: dict[str | None, PairedTrack] = {}
        self._spread: dict[str | None, float] = {}
        self._pace = PaceKeeper()
        self._last_step = 0

    @property
    def can_rescore(self) -> bool:
        """Whether stored rollouts may tell anything."""
        return self._reference is not None or (self._last is not None and not self._last.measured)

    def begin(
        self,
        step: int,
        groups: Sequence[RolloutGroup],
        scores: Sequence[Tensor | None],
        weights: np.ndarray,
    ) -> Reading:
        """Take in the reference.

        Args:
            step: optimizer steps done.
            groups: ``m`` prompts with their rollouts.
            scores: their log-probs.
            weights: ``(m,)`` of the prompts, 1 on the mean.
        """
        self.counts, self.weights = PromptCounts(groups), weights
        self._reference, self._last = StoredRollouts(groups, scores), None
        self._tracks, self._spread = {}, {}
        self._last_step = step
        self._make_tracks()
        return self._reading({}, 0)

    def _make_tracks(self, but: Sequence[str | None] = ()) -> None:
        assert self.counts is not None
        right, n = self.counts.right, self.counts.n
        for label, at in self._members().items():
            if label not in but:
                self._tracks[label] = PairedTrack(
                    self._mean(right / n, at), self._sampling((right, n), n, at)
                )

    def look(
        self, step: int, groups: Sequence[RolloutGroup], scores: Sequence[Tensor | None]
    ) -> Reading:
        """Score stored rollouts again, then take in a look at the reference's prompts.

        Args:
            step: optimizer steps done.
            groups: of some or all of them; each with its baseline.
            scores: their log-probs.
        """
        assert self.counts is not None, "begin() comes first"
        increments = self._increments()
        # Nothing can fail from here on: the filters see a look whole or not at all.
        own = self.counts.add(groups)
        fixes = {label: self._fix(own, at) for label, at in self._members().items()}
        self._last = StoredRollouts(groups, scores)
        if self._reference is None:
            for label, at in self._members().items():
                self._note_spread(label, own, at)
        right, n = self.counts.since_start()
        there = n > 0
        first = self.counts.right[there], self.counts.n[there]
        changed = changed_prompts(*first, right[there], n[there])
        rows = np.array(self.counts.rows)[there]
        reading = self._update(step, increments, fixes)
        return _with_rows(reading, changed, rows)

    def again(self, step: int) -> Reading:
        """Score stored rollouts again, between two looks."""
        return self._update(step, self._increments(), {})

    def _increments(self) -> dict[str | None, Increment]:
        """By label; empty where stored rollouts say too little by now."""
        for stored in (self._reference, self._last):
            # The latest look's rollouts tell of one interval, as long as nothing else told a part.
            if stored is None or (stored is self._last and stored.measured):
                continue
            self._progress("scoring again", 0, 0)
            found = stored.measure(self._policy, self._size)
            if found is None:
                if stored is self._reference:
                    self._reference = None
                continue
            before, now, change = found
            stored.note(change)
            if self._last is not None:
                self._last.measured = True
            assert self.counts is not None
            places = self.counts.places(stored.groups)
            if stored is self._reference:
                for label, at in self._members().items():
                    self._spread[label] = _spread(change.per_prompt, change.noise, at[places])
            return {
                label: self._increment(before.numpy(), now.numpy(), places, at)
                for label, at in self._members().items()
            }
        return {}

    def _increment(
        self, before: np.ndarray, now: np.ndarray, places: np.ndarray, at: np.ndarray
    ) -> Increment:
        of = at[places]
        share = self.weights[places][of]
        share = share / share.sum()
        change, noise, covariance, _ = (now - before)[:, of]
        missed = _missed(share, now[3, of]) - _missed(share, before[3, of])
        return Increment(
            float(share @ change),
            max(float(share**2 @ noise) + missed, 0.0),
            float(share**2 @ covariance),
            float(share**2 @ (change - share @ change) ** 2),
        )

    def _members(self) -> dict[str | None, np.ndarray]:
        """By label, and under ``None`` in all: ``(m,)`` which prompts."""
        assert self.counts is not None
        found: dict[str | None, np.ndarray] = {None: np.ones(len(self.counts), bool)}
        if self._label_of is not None:
            labels = np.array([self._label_of(row) for row in self.counts.rows])
            found |= {str(label): labels == label for label in np.unique(labels)}
        return found

    def _mean(self, values: np.ndarray, at: np.ndarray) -> float:
        return float(self.weights[at] @ values[at] / self.weights[at].sum())

    def _sampling(self, known: Counts, n: np.ndarray, at: np.ndarray) -> float:
        """Variance of the mean of ``n`` rollouts of each prompt, by the counts that are known.

        ``c (n - c) / (n (n - 1))`` is unbiased for p (1 - p). It has a floor, as if half a rollout
        of all were another: a look at which nothing is solved does not count as certain.
        """
        at = at & (n > 0)
        if not at.any():
            return math.inf
        right, of = (values[at] for values in known)
        w = self.weights[at]
        each = right * (of - right) / (of * np.maximum(of - 1, 1))
        least = 0.5 / (of.sum() + 1.0) / n[at].sum()
        return float(max(w**2 @ (each / n[at]) / w.sum() ** 2, least))

    def _fix(self, own: Counts, at: np.ndarray) -> Fix | None:
        """A look's mean change since the start, over the prompts that it saw."""
        assert self.counts is not None
        right, n = own
        at = at & (n > 0)
        if not at.any():
            return None
        change = right / np.maximum(n, 1) - self.counts.right / self.counts.n
        return Fix(self._mean(change, at), self._sampling(self.counts.recent(), n, at))

    def _note_spread(self, label: str | None, own: Counts, at: np.ndarray) -> None:
        """Variance of the prompts' true changes around their mean, from each look a little: where
        the reference's own rollouts no longer tell it.
        """
        assert self.counts is not None
        right, n = own
        at = at & (n > 0)
        if at.sum() < 2:
            return
        change = (right / np.maximum(n, 1) - self.counts.right / self.counts.n)[at]
        recent = self.counts.recent()
        noise = [
            self._sampling(counts, of, at) * at.sum()
            for counts, of in ((recent, n), ((self.counts.right, self.counts.n), self.counts.n))
        ]
        now = max(float(change.var(ddof=1) - sum(noise)), 0.0)
        before = self._spread.get(label, now)
        self._spread[label] = before + _MEMORY * (now - before)

    def _between(self, label: str | None, at: np.ndarray) -> float:
        """Variance by which the pool's change may differ from the reference prompts'."""
        m, pool = int(at.sum()), self._pool.get(label)
        left = 1.0 if pool is None else max(1 - m / pool, 0.0)
        return self._spread.get(label, 0.0) * left / m

    def _update(
        self,
        step: int,
        increments: Mapping[str | None, Increment],
        fixes: Mapping[str | None, Fix | None],
    ) -> Reading:
        # Training that begins anew on the same trainer counts from 0 again.
        steps = max(step - self._last_step, 0)
        self._last_step = step
        drifts = {}
        for label, track in self._tracks.items():
            drift = track.update(increments.get(label), fixes.get(label), steps)
            if drift is not None:
                drifts[label] = drift
        return self._reading(drifts, steps)

    def _reading(self, drifts: Mapping[str | None, Drift], steps: int) -> Reading:
        tracks = {
            label: self._tracks[label].now(self._between(label, at))
            for label, at in self._members().items()
        }
        drift, track = drifts.get(None), tracks.pop(None)
        return Reading(
            track=self.floor.under(track),
            groups={str(label): track for label, track in tracks.items()},
            drift=drift,
            group_drifts={str(k): v for k, v in drifts.items() if k is not None},
            pace=self._pace.update(drift, steps, track.pass_at_1),
            steps=steps,
        )

    def visible_loss(
        self, drift: Drift, updates: int, steps: float, z: float, tolerance: float, rollouts: int
    ) -> float:
        """The loss at which the level alarm would fire after ``updates`` more looks like these.

        Args:
            drift: a typical one.
            updates: looks to come.
            steps: between two.
            z: standard errors that the alarm asks for.
            tolerance: loss that is no alarm.
            rollouts: of each prompt at a look.
        """
        assert self.counts is not None
        at = self._members()[None]
        fix = self._sampling(self.counts.recent(), np.full(len(at), rollouts), at)
        told = Increment(drift.change, drift.variance) if drift.rescored else None
        variance = self._tracks[None].forecast(told, fix, max(updates, 1), steps)
        return tolerance + z * math.sqrt(variance + self._between(None, at))

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on after a resume, for ``torch.save``."""
        stored = {"reference": self._reference, "last": self._last}
        return {
            "counts": None if self.counts is None else self.counts.state_dict(),
            "weights": self.weights.tolist(),
            **{name: None if one is None else one.state_dict() for name, one in stored.items()},
            "track": self._tracks[None].state_dict() if None in self._tracks else None,
            "spread": self._spread.get(None, 0.0),
            "pace": self._pace.state_dict(),
            "last_step": self._last_step,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave: all but floor and groups.

        Raises:
            Unfit: a piece is of another shape, or not finite; nothing is taken over.
        """
        pace = PaceKeeper()
        pace.load_state_dict(state["pace"])
        if state["counts"] is None:
            return
        counts, track = PromptCounts.load(state["counts"]), PairedTrack(0.0, 0.0)
        track.load_state_dict(state["track"])
        stored = [
            None if state[name] is None else StoredRollouts.load(state[name])
            for name in ("reference", "last")
        ]
        spread, step, weights = state["spread"], state["last_step"], np.array(state["weights"])
        if len(weights) != len(counts):
            raise Unfit(f"weights must have {len(counts)} entries, got {len(weights)}")
        self._reference, self._last = stored
        self.counts, self.weights = counts, weights
        self._tracks, self._spread = {None: track}, {None: spread}
        self._pace, self._last_step = pace, step
        self._make_tracks(but=[None])

    def groups_state(self) -> dict[str, Any]:
        """The tracks of the groups."""
        return {
            label: {**track.state_dict(), "spread": self._spread.get(label, 0.0)}
            for label, track in self._tracks.items()
            if label is not None
        }

    def load_groups(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`groups_state` gave, once the counts are there."""
        for label, stored in state.items():
            self._tracks[label] = PairedTrack(0.0, 0.0)
            self._tracks[label].load_state_dict(stored)
            self._spread[label] = stored["spread"]


def _missed(share: np.ndarray, unseen: np.ndarray) -> float:
    """Variance of a change for what stored rollouts cannot show.

    A mean probability ratio below 1 means that the policy now gives other rollouts than the stored
    ones that share of its samples. How many of those are right is not known: half, give or take
    half, of what exceeds its own standard error.

    Args:
        share: ``(b,)`` weights of the prompts, 1 in all.
        unseen: ``(b,)`` 1 - mean ratio of each.
    """
    mean = share @ unseen
    se = math.sqrt(share**2 @ (unseen - mean) ** 2)
    return float(0.5 * max(mean - se, 0.0)) ** 2


def _spread(change: Tensor, noise: Tensor, at: np.ndarray) -> float:
    """Variance of the prompts' true changes, from estimates with so much noise."""
    which = torch.from_numpy(at)
    if which.sum() < 2:
        return 0.0
    return max(float(change[which].var() - noise[which].mean()), 0.0)


def _with_rows(reading: Reading, changed: ChangedPrompts, rows: np.ndarray) -> Reading:
    """Prompts by row id instead of by place."""
    lost, won = (tuple(int(rows[i]) for i in which) for which in (changed.lost, changed.won))
    return replace(reading, turnover=replace(changed, lost=lost, won=won))
