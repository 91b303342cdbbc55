"""The held-out rows, checked before training starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from passk_guard.config import PassKGuardConfig
from passk_guard.errors import warn
from passk_guard.prompts.identity import fingerprint, trained_on
from passk_guard.prompts.rows import rows_from

Rows = Sequence[Mapping[str, Any]]

_MOST_COMPARED = 200_000  # rows of a pool
_ENOUGH_PROMPTS = 512
_COSTLY = 4  # times the default number of rollouts


def held_out_rows(
    prompts: Any,
    config: PassKGuardConfig,
    *,
    instead: Any,
    training: Any,
    is_main: bool,
    stand_in: Any = None,
) -> Rows:
    """The held-out rows.

    Args:
        prompts: what the user passed.
        config: settings.
        instead: the trainer's eval dataset, taken where the user passed nothing.
        training: the training set.
        is_main: whether this process is the one that warns.
        stand_in: the prompt of rows that have none; ``None`` where each needs one.

    Raises:
        ValueError: there are none, or they have no prompt or hold images.
    """
    if prompts is None and instead is None:
        raise ValueError(
            "prompts is missing and the trainer has no eval_dataset. Pass held-out prompts: "
            "PassKGuardCallback(..., prompts=held_out)."
        )
    if prompts is None:
        try:
            rows = rows_from(instead, "trainer.eval_dataset", stand_in)
        except ValueError as error:
            raise ValueError(
                "no prompts were passed, and the trainer's eval_dataset cannot stand in for them: "
                f"{error} Or pass PassKGuardCallback(..., prompts=held_out)."
            ) from None
    else:
        rows = rows_from(prompts, stand_in=stand_in)
    if {"image", "images"} & set(rows[0]):
        raise ValueError("prompts holds images, which passk-guard cannot score yet: text only.")
    if is_main:
        if rows[0]["prompt"] is not stand_in:
            _warn_of_shared(rows, training, "training prompts")
            _warn_of_duplicates(rows)
        _warn_of_small_pool(rows, config)
        _warn_of_cost(config)
    return rows


def anchor_rows(anchors: Any, held_out: Rows, *, is_main: bool) -> Rows:
    """The anchor prompts: for training, so they must not be held-out prompts.

    Raises:
        ValueError: there are none, they have no prompt, or they are the held-out rows.
    """
    rows = rows_from(anchors, "anchor_prompts")
    if len(rows) == len(held_out) and _counted(rows) == _counted(held_out):
        raise ValueError(
            "anchor_prompts and prompts are the same: held-out prompts are measured on, never "
            "trained on. Pass training prompts as anchor_prompts."
        )
    if is_main:
        _warn_of_shared(held_out, [row["prompt"] for row in rows], "anchor prompts")
    return rows


def _warn_of_shared(rows: Rows, training: Any, what: str) -> None:
    shared = trained_on((row["prompt"] for row in islice(rows, _MOST_COMPARED)), training)
    if shared:
        warn(
            f"{shared} of the {len(rows)} held-out prompts are also {what}. Held-out prompts "
            "predict production only if they are not trained on. Remove them from one of the two "
            "sets."
        )


def _warn_of_duplicates(rows: Rows) -> None:
    different = len(_counted(rows))
    if different < 0.99 * min(len(rows), _MOST_COMPARED):
        warn(
            f"the pool has {len(rows)} prompts, but only {different} different rows: the same "
            "prompt with the same answer counts as two, and intervals come out too narrow. Drop "
            "the duplicates; use weight_by to give a row more weight."
        )


def _warn_of_small_pool(rows: Rows, config: PassKGuardConfig) -> None:
    if len(rows) < min(_ENOUGH_PROMPTS, config.reference_prompts):
        warn(
            f"the pool has {len(rows)} prompts, and verdicts are about the pool. With fewer than "
            f"{_ENOUGH_PROMPTS} false alarms become more frequent than false_alarms says: pass "
            "more held-out prompts."
        )


def _warn_of_cost(config: PassKGuardConfig) -> None:
    usual = PassKGuardConfig(k=config.k).n
    if config.n >= _COSTLY * usual:
        warn(
            f"num_generations={config.n} makes the first look about {config.n / usual:.0f} times "
            f"as expensive as the default of {usual} rollouts per prompt (3k/2), and adds little "
            "precision; more prompts add more. Leave it out, or raise reference_prompts instead."
        )


def _counted(rows: Rows) -> Counter[int]:
    return Counter(fingerprint(row) for row in islice(rows, _MOST_COMPARED))
