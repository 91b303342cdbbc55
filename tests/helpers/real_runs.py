"""Two steps of a real pretrained model on a trainer; see tests/workers/real_worker.py."""

from __future__ import annotations

import hashlib
import warnings

import lightning as L
import passk_loss
import real_model
import torch
from datasets import Dataset
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_module import PassKModule
from lightning_runs import unpickled
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from passk_guard import PassKGuardWarning
from passk_guard.integrations import lightning, trl

ROLLOUTS, STEPS = 4, 2
passk_loss.ROLLOUTS = ROLLOUTS
ROWS = real_model.sums(128)
# Small sums are solved at times, so that there is something to learn.
TRAINING = [row for row in ROWS[16:] if 9 < int(row["answer"]) < 14][:8]
HELD_OUT = ROWS[:16]
GUARD = {"k": 2, "reference_prompts": 4, "prompts": HELD_OUT}
# Pass@1 is surely below the floor: an alarm at the first look, so that λ is above 0 at once.
ACTIONS = {
    "warn": {"every": 2, "memory_limit": 2**28},
    "mix": {"every": 1, "action": "mix", "floor": 0.99, "false_alarms": 0.4},
}


def load(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder), tokenizer


def with_trl(folder, out, action, resume):
    model, tokenizer = load(folder)
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=real_model.right,
        args=GRPOConfig(
            output_dir=out,
            max_steps=STEPS,
            learning_rate=1e-5,
            lr_scheduler_type="constant",
            per_device_train_batch_size=2 * ROLLOUTS,
            num_generations=ROLLOUTS,
            max_completion_length=real_model.TOKENS,
            bf16=False,
            use_cpu=True,
            report_to="none",
            save_strategy="steps" if action == "mix" else "no",
            save_steps=1,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(TRAINING),
        processing_class=tokenizer,
    )
    callback = None
    if action != "none":
        objective = {"objective": "pkpo"} if action == "mix" else {}
        callback = trl.PassKGuardCallback(trainer, **GUARD, **ACTIONS[action], **objective)
        trainer.add_callback(callback)
    trainer.train(resume_from_checkpoint=f"{out}/checkpoint-1" if resume else None)
    return model, callback


class Module(PassKModule):
    def __init__(self, folder):
        super().__init__(*load(folder), real_model.right, 1e-5)
        self.model.generation_config.max_new_tokens = real_model.TOKENS
        self.objective.k = GUARD["k"]

    def training_step(self, rows, batch_idx):
        torch.manual_seed(self.global_step)  # Lightning does not keep the state
        return super().training_step(rows, batch_idx)


def with_lightning(folder, out, action, resume):
    module, callback, callbacks = Module(folder), None, []
    if action != "none":
        callback = lightning.PassKGuardCallback(
            **GUARD,
            **ACTIONS[action],
            reward_funcs=real_model.right,
            objective=module.objective,
        )
        callbacks.append(callback)
    if action == "mix":
        saves = ModelCheckpoint(out, "{step}", every_n_train_steps=1, save_top_k=-1)
        callbacks.append(saves)
    trainer = L.Trainer(
        default_root_dir=out,
        accelerator="cpu",
        max_steps=STEPS,
        callbacks=callbacks,
        enable_checkpointing=action == "mix",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    path = f"{out}/step=1.ckpt" if resume else None
    # The same batch for ever: Lightning does not keep a loader's place over a resume.
    batches = DataLoader(TRAINING[:2] * STEPS, 2, collate_fn=list)
    trainer.fit(module, batches, ckpt_path=path, **unpickled(path))
    return module.model, callback


def told(model, callback):
    """What a run left behind, as plain values."""
    digest = hashlib.sha256()
    for parameter in model.parameters():
        digest.update(parameter.detach().contiguous().view(torch.uint8).numpy().data)
    guard = callback and callback.guard
    return {
        "weights": digest.hexdigest(),
        "steps": guard and [probe.step for probe in guard.history],
        "failures": guard and [failure.reason for failure in guard.failures],
        "pass_at_1": guard and [probe.pass_at_1 for probe in guard.history],
        "alarms": guard and [probe.step for probe in guard.history if probe.alarm],
        "pass1_weight": guard and guard.pass1_weight,
    }


def run(host, folder, out, action, resume):
    warnings.simplefilter("ignore", PassKGuardWarning)  # alarms are wanted
    torch.manual_seed(0)
    return told(*{"trl": with_trl, "lightning": with_lightning}[host](folder, out, action, resume))
