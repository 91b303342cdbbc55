"""Ways of running on many processes that the guard cannot serve, refused before training starts."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from packaging.version import Version

from passk_guard.config import PassKGuardConfig

__all__ = ["refuse_unsupported"]

# Before it, DeepSpeed's hooks on gradients cannot be set aside while a probe takes its own.
_DEEPSPEED = Version("0.16.9")


def refuse_unsupported(trainer: Any, config: PassKGuardConfig) -> None:
    """Refuse a ``transformers.Trainer`` that runs as the guard cannot, or not with these settings.

    Raises:
        ValueError: says what is and what is not possible.
    """
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if trainer.is_deepspeed_enabled:
        _check_deepspeed(config)
    if getattr(trainer, "is_tp_enabled", False):
        raise ValueError(
            "This trainer runs tensor parallel, which passk-guard does not support yet: one "
            "process, DDP and FSDP2 work."
        )


def _check_deepspeed(config: PassKGuardConfig) -> None:
    found = version("deepspeed")
    if Version(found) < _DEEPSPEED:
        raise ValueError(
            f"deepspeed {found} has hooks that passk-guard cannot set aside while it takes the "
            f"gradients of a probe. Install deepspeed>={_DEEPSPEED}."
        )
    if config.metric == "adam":
        raise ValueError(
            "metric='adam' reads the second moments of each parameter, which DeepSpeed keeps in "
            "one piece with others. Use metric='euclidean'."
        )
