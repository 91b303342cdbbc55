"""Counts of a policy, sampled now; and another one's rollouts, scored under it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from passk_guard.runtime.progress import Progress

_SAMPLING = ("temperature", "max_completion_length")


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
    """Counts, rollouts with a verdict, their log-probs, and how the policy reads the prompts."""

    counts: Counts
    groups: list[RolloutGroup]
    scores: list[Tensor]
    reads: tuple[Any, ...]


def is_policy(side: Any) -> bool:
    """Whether a side of a comparison has to be sampled."""
    return isinstance(side, LazyPolicy) or hasattr(side, "generate")


def sample_policy(
    side: Any,
    other: Sampled | None = None,
    *,
    prompts: Any,
    verifier: Any,
    num_prompts: int | None,
    micro_batch: int | None,
    progress: Progress,
    **settings: Any,
) -> Sampled:
    """Sample a policy, and score its own rollouts, or the other one's if it reads as that does.

    Args:
        side: a policy, or a :class:`LazyPolicy`.
        other: the one that was sampled before.
        prompts: held-out rows.
        verifier: ``None`` where the policy verifies by itself.
        num_prompts: at most; ``None``: all.
        micro_batch: rollouts per forward.
        progress: told where it stands.
        **settings: of :class:`~passk_guard.checkpoints.held_out_run.HeldOutRun`.

    Raises:
        ValueError: an argument is unusable.
    """
    lazy = side if isinstance(side, LazyPolicy) else LazyPolicy(policy_name(side), lambda: side)
    if prompts is None:
        raise ValueError("prompts is missing: a policy is sampled on held-out prompts.")
    rows = rows_from(prompts)
    verifier = checked_verifier(verifier, rows[0])
    policy = lazy.load()
    check_policy(policy, verifier)
    run = HeldOutRun(policy, verifier, rows, journal=lazy.journal, progress=progress, **settings)
    sampled = run.sample_upto(num_prompts or len(rows))
    groups = [group for group in (one.scorable() for one in sampled) if group.n > 1]
    reads = _reads(policy, sampled)
    scores: list[Tensor] = []
    if other is None or reads == other.reads:
        progress("scoring", 0, 0)
        size = PassSize(micro_batch)
        with run.isolated(3):
            scores = score_all(run.policy, groups if other is None else other.groups, size)
        if size.said:
            run.remarks.append(f"Rollouts were scored{size.said}, as memory allows.")
    return Sampled(_counted(lazy.name, policy, run, sampled, verifier), groups, scores, reads)


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
