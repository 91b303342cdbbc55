"""The held-out rows, checked before training starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from passk_guard.actions import warn
from passk_guard.config import PassKGuardConfig
from passk_guard.pool import rows_from

__all__ = ["held_out_rows"]


def held_out_rows(
    prompts: Any, config: PassKGuardConfig, *, training: Any, is_main: bool
) -> Sequence[Mapping[str, Any]]:
    """The held-out rows.

    Args:
        prompts: what the user passed, or the trainer's eval dataset.
        config: settings.
        training: the training set.
        is_main: whether this process is the one that warns.

    Raises:
        ValueError: there are none, or they have no prompt or hold images.
    """
    if prompts is None:
        raise ValueError(
            "prompts is missing and the trainer has no eval_dataset. Pass held-out prompts: "
            "PassKGuardCallback(..., prompts=held_out)."
        )
    rows = rows_from(prompts)
    if {"image", "images"} & set(rows[0]):
        raise ValueError("prompts holds images, which passk-guard cannot score yet: text only.")
    if not is_main:
        return rows
    if prompts is training:
        warn("prompts is the training set. Held-out prompts tell what production will see.")
    wanted = 8 * config.prompts_per_probe
    if len(rows) < wanted:
        warn(
            f"the pool has {len(rows)} prompts, and verdicts are about the pool. With fewer than "
            f"{wanted} (8 x prompts_per_probe) false alarms become more frequent than "
            "false_alarms says: pass more held-out prompts."
        )
    return rows
