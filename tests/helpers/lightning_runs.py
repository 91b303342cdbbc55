"""Small real Lightning runs, for the Lightning tests."""

from __future__ import annotations

import inspect

import ambiguous_arithmetic as task
import lightning as L
import torch
from hosts import lightning_trainer, model
from own_loss import Module
from trl_runs import GUARD, held_out, near_answer

from passk_guard.integrations.lightning import PassKGuardCallback

ALARM = {"floor": 0.99}  # pass@1 is surely below it: an alarm at the first probe
MIX = {"action": "mix", "anchor_prompts": task.make_rows(64), "anchor_batch_size": 4}


class Automatic(Module):
    def __init__(self):
        super().__init__(model(), task.make_tokenizer(), 1e-3, near_answer)


def batches():
    return torch.utils.data.DataLoader(task.make_rows(64).to_list() * 8, 8, collate_fn=list)


def guard(**more):
    settings = {"prompts": held_out(), "reward_funcs": near_answer, "max_completion_length": 2}
    return PassKGuardCallback(**{**settings, **GUARD, **more})


def fit(out, module, *callbacks, steps=4, ckpt_path=None, **settings):
    """Train for so many optimizer steps; gives the trainer."""
    L.seed_everything(42, verbose=False)
    trainer = lightning_trainer(out, list(callbacks), max_steps=steps, **settings)
    trainer.fit(module, batches(), ckpt_path=ckpt_path, **unpickled(ckpt_path))
    return trainer


def unpickled(path):
    """Newer releases ask whether a checkpoint may hold more than weights."""
    known = "weights_only" in inspect.signature(L.Trainer.fit).parameters
    return {"weights_only": True} if path and known else {}


def steps_of(callback):
    return [probe.step for probe in callback.guard.history]
