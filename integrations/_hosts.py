"""What each kind of trainer has to offer the guard."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from passk_guard.reporting.terminal import Terminal
from passk_guard.session.hosted_guard import Host

__all__ = ["module_host", "samples_per_step", "trainer_host"]


def samples_per_step(trainer: Any) -> int:
    """Sequences that an optimizer step of a ``transformers.Trainer`` trains on."""
    args = trainer.args
    each: int = args.per_device_train_batch_size * args.gradient_accumulation_steps
    return each * int(trainer.accelerator.num_processes)


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
        samples_per_step=lambda: samples_per_step(trainer),
        why_no_mix=why_no_mix,
    )


def _batch(trainer: Any) -> int | None:
    """Samples that an optimizer step of a Lightning trainer trains on, where its loader tells."""
    size = getattr(trainer.train_dataloader, "batch_size", None)
    if not isinstance(size, int):
        return None
    return size * int(trainer.accumulate_grad_batches) * int(trainer.world_size)


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
        samples_per_step=lambda: _batch(trainer),
        autocast=getattr(trainer.precision_plugin, "forward_context", nullcontext),
    )
