"""Parallel training that the guard does not support, refused before training starts."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from packaging.version import Version

from passk_guard.config import PassKGuardConfig

# Before it, DeepSpeed's hooks on gradients cannot be set aside while a probe takes its own.
_DEEPSPEED = Version("0.16.9")
_SPLITS = {"tp": "tensor", "cp": "context", "sp": "sequence"}


def check_trainer_parallelism(trainer: Any, config: PassKGuardConfig) -> None:
    """Refuse a ``transformers.Trainer`` that runs as the guard cannot, or not with these settings.

    Raises:
        ValueError: says what is and what is not possible.
    """
    if trainer.is_deepspeed_enabled:
        check_deepspeed(config)
    elif _on_fsdp1(trainer):
        _check_fsdp1(trainer.accelerator.state.fsdp_plugin, config)
    for short, name in _SPLITS.items():
        size = getattr(trainer, f"get_{short}_size", lambda: 1)()
        if size > 1 or getattr(trainer, f"is_{short}_enabled", False):
            raise ValueError(
                f"This trainer runs {name} parallel, which passk-guard does not support: one "
                "process, DDP, FSDP and DeepSpeed work."
            )


def check_deepspeed(config: PassKGuardConfig) -> None:
    """Refuse a release of DeepSpeed, or settings, that a probe cannot live with.

    Raises:
        ValueError: says which, and what to do.
    """
    found = version("deepspeed")
    if Version(found) < _DEEPSPEED:
        raise ValueError(
            f"deepspeed {found} has hooks that passk-guard cannot set aside while it takes the "
            f"gradients of a probe. Install deepspeed>={_DEEPSPEED}."
        )
    _check_metric(config, "DeepSpeed")


def why_no_anchors(trainer: Any) -> str | None:
    """Why a pass@1 term cannot be added to this trainer's gradients, where it cannot."""
    owner = "DeepSpeed" if trainer.is_deepspeed_enabled else "FSDP1" if _on_fsdp1(trainer) else None
    return owner and no_anchors(owner)


def no_anchors(owner: str) -> str:
    """Why: ``owner`` holds the gradients."""
    return (
        f"{owner} keeps the gradients, so that none can be added between two steps. Compute your "
        "loss with passk_guard.PassKObjective and pass that object as objective=: steering it "
        "needs no gradient. Or use action='warn', 'checkpoint' or 'stop'."
    )


def _on_fsdp1(trainer: Any) -> bool:
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    return plugin is not None and getattr(plugin, "fsdp_version", 1) != 2


def _check_fsdp1(plugin: Any, config: PassKGuardConfig) -> None:
    strategy = plugin.sharding_strategy or getattr(plugin, "reshard_after_forward", None)
    strategy = getattr(strategy, "name", str(strategy))
    if strategy not in ("FULL_SHARD", "SHARD_GRAD_OP"):
        raise ValueError(
            f"FSDP1 shares this model out by {strategy}, which passk-guard does not support. Use "
            "FULL_SHARD, SHARD_GRAD_OP, FSDP2 (fsdp_version=2) or DDP."
        )
    if config.parameters is not None:
        raise ValueError(
            f"parameters={config.parameters!r} chooses by name, but FSDP1 lays parameters end to "
            "end. Use FSDP2 (fsdp_version=2), or leave it out."
        )
    _check_metric(config, "FSDP1")


def _check_metric(config: PassKGuardConfig, owner: str) -> None:
    if config.metric == "adam":
        raise ValueError(
            f"metric='adam' reads the second moments of each parameter, which {owner} keeps end "
            "to end with others'. Use metric='euclidean'."
        )
