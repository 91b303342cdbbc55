"""Counts of a policy, sampled now; and another one's rollouts, scored under it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from passk_guard.checkpoints.arguments import check_policy, checked_verifier, policy_name
from passk_guard.checkpoints.held_out_run import HeldOutRun
from passk_guard.counts import Counts, PromptCount, gather
from passk_guard.prompts.identity import prompt_text
from passk_guard.prompts.rows import rows_from
from passk_guard.rollouts.batching import PassSize
from passk_guard.rollouts.group import RolloutGroup
from passk_guard.rollouts.policy import Policy
from passk_guard.rollouts.scores import score_all
from passk_guard.rollouts.verifier import verifier_name
from passk_guard.statistics.common_rollouts import CommonRollouts, common_rollouts

_SAMPLING = ("temperature", "max_completion_length")
_READ_OTHERWISE = (
    "The two differ in vocabulary, chat template or length of answers, so that neither can score "
    "the other one's rollouts: counts decide."
)


@dataclass(frozen=True)
class LazyPolicy:
    """A policy that is loaded when it is its turn, and let go after: two models need not fit.

    Attributes:
        name: what it is called.
        load: gives it.
        journal: file that its rollouts go to; ``None``: nowhere.
    """

    name: str
    load: Callable[[], Policy]
    journal: Path | None = None


@dataclass(frozen=True)
class Sampled:
    """A policy's rollouts.

    Attributes:
        counts: of them.
        groups: the ``m`` prompts' rollouts that have a verdict.
        scores: ``m`` log-probs under the policy itself, or under the one beside it.
        reads: what its tokens mean, how long answers may be, and the tokens of each prompt.
    """

    counts: Counts
    groups: list[RolloutGroup]
    scores: list[Tensor]
    reads: tuple[Any, ...]


def is_policy(side: Any) -> bool:
    """Whether a side of a comparison has to be sampled."""
    return isinstance(side, LazyPolicy) or hasattr(side, "generate")


class Sampler:
    """Samples policies on the same rows in the same way."""

    def __init__(
        self,
        prompts: Any,
        verifier: Any,
        settings: dict[str, Any],
        num_prompts: int | None,
        micro_batch: int | None,
    ) -> None:
        self._prompts, self._verifier = prompts, verifier
        self._settings, self._most, self._micro_batch = settings, num_prompts, micro_batch

    def sample(self, side: Any) -> Sampled:
        """Sample a policy."""
        return self._sampled(side, None)

    def sample_beside(self, side: Any, other: Sampled) -> tuple[Sampled, CommonRollouts | None]:
        """Sample a policy, and score the other one's rollouts under it.

        ``None`` where the same text is not the same to both: another vocabulary, or another chat
        template, under which the second one would be asked what nobody will ask it.
        """
        found = self._sampled(side, other)
        if found.reads != other.reads:
            remarks = (*found.counts.remarks, _READ_OTHERWISE)
            return replace(found, counts=replace(found.counts, remarks=remarks)), None
        return found, common_rollouts(other.groups, other.scores, found.scores)

    def _sampled(self, side: Any, other: Sampled | None) -> Sampled:
        """With log-probs of its own rollouts, or of the other one's."""
        lazy = side if isinstance(side, LazyPolicy) else LazyPolicy(policy_name(side), lambda: side)
        if self._prompts is None:
            raise ValueError("prompts is missing: a policy is sampled on held-out prompts.")
        rows = rows_from(self._prompts)
        verifier = checked_verifier(self._verifier, rows[0])
        policy = lazy.load()
        check_policy(policy, verifier)
        run = HeldOutRun(policy, verifier, rows, journal=lazy.journal, **self._settings)
        sampled = run.sample_upto(self._most or len(rows))
        groups = [group for group in (one.scorable() for one in sampled) if group.n > 1]
        reads, scores, size = _reads(policy, sampled), [], PassSize(self._micro_batch)
        if other is None or reads == other.reads:
            self._settings["progress"]("scoring", 0, 0)
            with run.isolated(3):
                whose = groups if other is None else other.groups
                scores = score_all(run.policy, whose, size)
            if size.said:
                run.remarks.append(f"Rollouts were scored{size.said}, as memory allows.")
        counts = _counted(lazy.name, policy, run, sampled, verifier)
        return Sampled(counts, groups, scores, reads)


def _counted(
    name: str, policy: Policy, run: HeldOutRun, groups: Sequence[RolloutGroup], verifier: Any
) -> Counts:
    labels: Sequence[str | None] = run.labels(groups) or [None] * len(groups)
    own: Mapping[str, Any] = getattr(policy, "settings", {})
    return gather(
        name,
        (
            PromptCount(
                run.prompt_id(group.row),
                group.correct,
                group.scorable().n,
                label,
                prompt_text(run.rows[group.row]),
            )
            for group, label in zip(groups, labels, strict=True)
        ),
        verifier=None if verifier is None else verifier_name(verifier),
        settings={key: own[key] for key in _SAMPLING if key in own},
        remarks=run.remarks,
    )


def _reads(policy: Any, groups: Sequence[RolloutGroup]) -> tuple[Any, ...]:
    """Of two policies with the same, each can score what the other says."""
    tokenizer: Any = getattr(policy, "tokenizer", None)
    known = tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else type(policy).__name__
    longest = getattr(policy, "settings", {}).get("max_completion_length")
    return known, longest, {group.row: _prompt_tokens(group) for group in groups}


def _prompt_tokens(group: RolloutGroup) -> list[int]:
    """What stands before the first token that was sampled."""
    sampled = group.completion_mask.bool().any(0)
    end = int(sampled.int().argmax()) if bool(sampled.any()) else 0
    prompt: list[int] = group.input_ids[0, :end].tolist()
    return prompt
