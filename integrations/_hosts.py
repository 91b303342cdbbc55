"""What each kind of trainer has to offer the guard."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from passk_guard.integrations._hosted import Host
from passk_guard.integrations._terminal import Terminal

__all__ = ["module_host", "trainer_host"]


def trainer_host(trainer: Any, terminal: Terminal, why_no_mix: str | None = None) -> Host:
    """A ``transformers.Trainer``."""
    return Host(
        name=type(trainer).__name__,
        module=trainer.model,
        model=trainer.model,
        tokenizer=trainer.processing_class,
        optimizer=lambda: trainer.optimizer,
        say=terminal.say,
        progress=terminal.progress,
        prompts=trainer.eval_dataset,
        training_prompts=trainer.train_dataset,
        reward_funcs=getattr(trainer, "reward_funcs", None),
        micro_batch=trainer.args.per_device_train_batch_size,
        autocast=trainer.accelerator.autocast,
        state=trainer.state,
        why_no_mix=why_no_mix,
    )


def module_host(trainer: Any, module: Any, terminal: Terminal) -> Host:
    """A ``LightningModule`` in its trainer."""
    return Host(
        name=type(module).__name__,
        module=module,
        model=getattr(module, "model", None),
        tokenizer=getattr(module, "tokenizer", None),
        optimizer=lambda: trainer.optimizers[0],
        say=terminal.say,
        progress=terminal.progress,
        autocast=getattr(trainer.precision_plugin, "forward_context", nullcontext),
    )
