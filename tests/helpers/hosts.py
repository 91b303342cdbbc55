"""One small real run on each trainer, behind one interface: what the contract tests go through.

A host trains a one-layer Llama with dropout, gradient accumulation, clipping and a scheduler. A new
integration enters by a class here under its module's name; a test fails while it has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import ambiguous_arithmetic as task
import lightning as L
import own_loss
import torch
from trl_runs import GUARD, held_out, losses, make_trainer, near_answer, weights

from passk_guard.integrations import lightning as for_lightning
from passk_guard.integrations import transformers as for_transformers
from passk_guard.integrations import trl as for_trl

SAVE = 4  # steps between checkpoints, where a run keeps any


@dataclass
class Result:
    """What a run left behind."""

    guard: Any
    weights: dict[str, torch.Tensor]
    losses: list[dict[str, Any]]


def model(dropout: float = 0.1) -> Any:
    return task.make_model(task.make_tokenizer(), hidden=32, layers=1, dropout=dropout)


def own_loss_settings() -> dict[str, Any]:
    return {"reward_funcs": near_answer, "max_completion_length": 2}


class Trl:
    """GRPOTrainer."""

    callback = for_trl.PassKGuardCallback
    mix: ClassVar[dict[str, Any]] = {"objective": "pkpo"}  # what mix needs here
    settings: ClassVar[dict[str, Any]] = {}

    def run(
        self,
        out,
        *,
        steps=6,
        guard=None,
        save=False,
        resume=None,
        verify=near_answer,
        before=(),
        at=(),
    ) -> Result:
        """Train; ``f(step, model)`` are called before and after the guard at each step's end."""
        trainer = make_trainer(
            out,
            steps=steps,
            dropout=0.1,
            gradient_accumulation_steps=2,
            max_grad_norm=0.1,
            lr_scheduler_type="cosine",
            reward_funcs=verify,
            save_strategy="steps" if save else "no",
            save_steps=SAVE,
        )
        return _train(trainer, self.callback, guard, resume, before, at)


class Transformers:
    """A Trainer with a ``compute_loss`` of its own."""

    callback = for_transformers.PassKGuardCallback
    mix: ClassVar[dict[str, Any]] = {"anchor_prompts": task.make_rows(64)}
    settings = own_loss_settings()

    def run(
        self,
        out,
        *,
        steps=6,
        guard=None,
        save=False,
        resume=None,
        verify=near_answer,
        before=(),
        at=(),
    ) -> Result:
        trainer = own_loss.make_trainer(
            model(),
            str(out),
            steps=steps,
            learning_rate=1e-3,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=2,
            max_grad_norm=0.1,
            lr_scheduler_type="cosine",
            disable_tqdm=True,
            logging_steps=1,
            save_strategy="steps" if save else "no",
            save_steps=SAVE,
        )
        trainer.verify = near_answer
        if guard is not None and verify is not near_answer:
            guard = {**guard, "reward_funcs": verify}
        return _train(trainer, self.callback, guard, resume, before, at)


class Lightning:
    """A LightningModule, automatic optimisation; its trainer keeps no files by itself."""

    callback = for_lightning.PassKGuardCallback
    mix: ClassVar[dict[str, Any]] = {"anchor_prompts": task.make_rows(64)}
    settings: ClassVar[dict[str, Any]] = {**own_loss_settings(), "journal": True}

    def run(
        self,
        out,
        *,
        steps=6,
        guard=None,
        save=False,
        resume=None,
        verify=near_answer,
        before=(),
        at=(),
    ) -> Result:
        if guard is not None and verify is not near_answer:
            guard = {**guard, "reward_funcs": verify}
        callback = self.callback(**guard) if guard is not None else None
        module = _Module(model(), task.make_tokenizer(), 1e-3, near_answer)
        callbacks = [_Losses(), _At(before), *([callback] if callback else []), _At(at)]
        if save:
            callbacks.append(
                L.pytorch.callbacks.ModelCheckpoint(
                    out, "checkpoint-{step}", every_n_train_steps=SAVE, save_top_k=-1
                )
            )
        L.seed_everything(42)
        # Older releases take up a checkpoint one batch too early, in the middle of a step.
        early = tuple(map(int, L.__version__.split(".")[:2])) < (2, 6)
        accumulate = 1 if early and (save or resume) else 2
        trainer = lightning_trainer(
            out,
            callbacks,
            max_steps=steps,
            accumulate_grad_batches=accumulate,
            gradient_clip_val=0.1,
        )
        saved = resume if isinstance(resume, Path) else out / f"checkpoint-step={resume}.ckpt"
        trainer.fit(module, _ordered(), ckpt_path=saved if resume else None, **_unpickled(resume))
        return Result(callback and callback.guard, module_weights(module), callbacks[0].seen)


def lightning_trainer(out: Path, callbacks: list[Any], **settings: Any) -> L.Trainer:
    """A silent one."""
    saves = any(isinstance(c, L.pytorch.callbacks.ModelCheckpoint) for c in callbacks)
    return L.Trainer(
        default_root_dir=out,
        callbacks=callbacks,
        enable_checkpointing=saves,
        **{
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            **settings,
        },
    )


def module_weights(module: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


class _Module(own_loss.Module):
    def training_step(self, rows, batch_idx):
        part = batch_idx % self.trainer.accumulate_grad_batches
        torch.manual_seed(self.global_step * 100 + part)  # Lightning does not keep the state
        return super().training_step(rows, batch_idx)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.learning_rate)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)]


class _Losses(L.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append({"loss": float(outputs["loss"])})


class _At(L.Callback):
    def __init__(self, at):
        self.at, self.last = at, 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step != self.last:
            self.last = trainer.global_step
            for call in self.at:
                call(self.last, pl_module.model)


def _ordered():
    """The same batch for ever: Lightning does not keep a loader's place over a resume."""
    rows = task.make_rows(8).to_list()
    return torch.utils.data.DataLoader(rows * 64, 8, collate_fn=list)


def _unpickled(resume):
    """Newer releases of Lightning ask whether a checkpoint may hold more than weights."""
    import inspect

    known = inspect.signature(L.Trainer.fit).parameters
    return {"weights_only": True} if resume and "weights_only" in known else {}


def _train(trainer, make, guard, resume, before, at) -> Result:
    from transformers import TrainerCallback

    class At(TrainerCallback):
        def __init__(self, calls):
            self.calls = calls

        def on_step_end(self, args, state, control, model=None, **kwargs):
            for call in self.calls:
                call(state.global_step, model)

    class Before(At):
        """transformers complains of two of one class."""

    trainer.add_callback(Before(before))
    callback = None
    if guard is not None:
        callback = make(trainer, **guard)
        trainer.add_callback(callback)
    trainer.add_callback(At(at))
    saved = resume if isinstance(resume, Path) else _saved(trainer.args.output_dir, resume)
    trainer.train(resume_from_checkpoint=str(saved) if resume else None)
    return Result(callback and callback.guard, weights(trainer), losses(trainer))


def _saved(folder, step):
    return Path(folder) / f"checkpoint-{step}"


HOSTS = {"trl": Trl(), "transformers": Transformers(), "lightning": Lightning()}


def settings(host: Any, **more: Any) -> dict[str, Any]:
    """A guard's keywords for a host."""
    return {"prompts": held_out(), **GUARD, **host.settings, **more}
