"""Ways of running on many processes that the guard cannot serve, refused before training starts."""

from __future__ import annotations

from typing import Any

__all__ = ["refuse_unsupported"]


def refuse_unsupported(trainer: Any) -> None:
    """Refuse a ``transformers.Trainer`` on DeepSpeed, FSDP1 or tensor parallelism.

    Raises:
        ValueError: says what is and what is not possible.
    """
    if trainer.is_deepspeed_enabled:
        raise ValueError(
            "This trainer runs on DeepSpeed, whose engine owns gradients and steps inside "
            "backward(): passk-guard cannot look at per-prompt gradients there without disturbing "
            "it, at any ZeRO stage. One process, DDP and FSDP2 (fsdp_version=2) work."
        )
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if plugin is not None and getattr(plugin, "fsdp_version", 1) != 2:
        raise ValueError(
            "This trainer runs on FSDP1, whose flattened parameters have no gradients of their "
            "own. Set fsdp_version=2 (FSDP2); one process and DDP work, too."
        )
    if getattr(trainer, "is_tp_enabled", False):
        raise ValueError(
            "This trainer runs tensor parallel, which passk-guard does not support yet: one "
            "process, DDP and FSDP2 work."
        )
