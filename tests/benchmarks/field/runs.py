"""One run of the field study: a start and how it reads, or a training from there."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from field.problems import Task
from field.sizes import Size
from field.warm_up import fingerprint, warmed_up
from transformers import TrainerCallback

from passk_guard import HFPolicy, probe_policy
from passk_guard.integrations.trl import PassKGuardCallback
from passk_guard.look import Probe
from passk_guard.rollouts.verified_policy import VerifiedPolicy
from passk_guard.runtime.progress import silent

K = 8
KEPT = "sentence verdict prompts no_signal weighted test needed pass_at curve cosine groups".split()
ARMS: dict[str, dict[str, Any]] = {
    "watched": {"objective": "pkpo", "action": "warn"},
    "grpo": {"action": "warn"},
    "guarded": {"objective": "pkpo", "action": ["warn", "mix"]},  # watched is there: see as_watched
}


class Truth(TrainerCallback):
    """Right samples of each test prompt, on the way."""

    def __init__(
        self, tokenizer: Any, task: Task, rows: Sequence[dict[str, Any]], size: Size
    ) -> None:
        self.tokenizer, self.task, self.rows, self.size = tokenizer, task, rows, size
        self.counts: dict[int, list[int]] = {}
        self.weights: dict[int, float] = {}
        self.guard: Any = None

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.weights[state.global_step] = round(self.guard.pass1_weight, 3)
        if state.global_step % self.size.look == 0 and state.global_step < self.size.steps:
            self.counts[state.global_step] = read(
                model, self.tokenizer, self.task, self.rows, self.size.few, state.global_step
            )


def read(model: Any, tokenizer: Any, task: Task, rows: Any, n: int, seed: int) -> list[int]:
    """Right ones of n samples of each row; leaves no trace in the generators."""
    training = model.training
    policy = make_policy(model.eval(), tokenizer, task)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["solution"]))  # little is padding
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        groups = VerifiedPolicy(policy, task.verify).generate([rows[i] for i in order], order, n)
    model.train(training)
    counts = {group.row: int(group.success.sum()) for group in groups}
    return [counts[i] for i in range(len(rows))]


def make_policy(model: Any, tokenizer: Any, task: Task) -> HFPolicy:
    return HFPolicy(model, tokenizer, max_completion_length=task.longest, rollouts_at_once=512)


def start(task: Task, seed: int, cache: Path, size: Size) -> dict[str, Any]:
    """How a model reads before training: its truth, and a probe."""
    model, tokenizer = warmed_up(task, seed, cache, size)
    began_at, test = fingerprint(model), task.rows("test", size.test, 0)
    counts = read(model, tokenizer, task, test, size.many, 1_000_000)
    probe = probe_policy(
        make_policy(model, tokenizer, task),
        task.rows("pool", size.probe, 1000 + seed),
        task.verify,
        num_prompts=size.probe,
        group_by="level",
        seed=seed,
        progress=silent,
    )
    record = probe.record()
    return {
        "weights_at_start": began_at,
        "counts": counts,
        "probe": {name: record[name] for name in KEPT},
    }


def make_trainer(
    task: Task, seed: int, model: Any, tokenizer: Any, size: Size, out: Path, verify: Any = None
) -> Any:
    from trl import GRPOConfig, GRPOTrainer

    return GRPOTrainer(
        model=model,
        reward_funcs=verify or task.verify,
        args=GRPOConfig(
            output_dir=str(out),
            max_steps=size.steps,
            learning_rate=task.learning_rate,
            lr_scheduler_type="constant",
            per_device_train_batch_size=256,
            num_generations=16,
            max_completion_length=task.longest,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_steps=10_000,
            use_cpu=True,
            bf16=False,
            seed=seed,
        ),
        train_dataset=Dataset.from_list(task.rows("training", 4096, seed)),
        processing_class=tokenizer,
    )


def training(task: Task, seed: int, arm: str, cache: Path, size: Size, out: Path) -> dict[str, Any]:
    """A real ``GRPOTrainer`` from the warmed-up model, with the guard on it."""
    model, tokenizer = warmed_up(task, seed, cache, size)
    began_at, test = fingerprint(model), task.rows("test", size.test, 0)
    verified = 0

    def right(prompts, completions, **columns):
        nonlocal verified
        verified += len(completions)
        return task.verify(prompts=prompts, completions=completions, **columns)

    trainer = make_trainer(task, seed, model, tokenizer, size, out, right)
    truth = Truth(tokenizer, task, test, size)
    trainer.add_callback(truth)
    callback = PassKGuardCallback(
        trainer,
        prompts=task.rows("pool", size.pool, 0),
        k=K,
        every=size.every,
        reference_prompts=size.reference_prompts,
        seed=seed,
        **ARMS[arm],
    )
    trainer.add_callback(callback)
    guard = truth.guard = callback.guard
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train()
    seconds = time.perf_counter() - began
    end = read(model, tokenizer, task, test, size.many, 3_000_000)
    looks = sorted([*guard.history, *guard.rescores], key=lambda look: look.step)
    trained = size.steps * 256
    return {
        "weights_at_start": began_at,
        "counts": {**truth.counts, size.steps: end},
        "looks": [look_record(look) for look in looks],
        "weights": truth.weights,
        "trained_on": trained,
        "guarding": verified - trained,
        "seconds": round(seconds),
        "overhead": round(guard.overhead, 4),
        "failures": [str(failure) for failure in guard.failures],
    }


def look_record(look: Any) -> dict[str, Any]:
    """What a page would show of it."""
    found: dict[str, Any] = {
        "step": look.step,
        "change": round(look.track.change, 5),
        "change_se": round(look.track.change_se, 5),
        "alarm": None if look.alarm is None else [str(kind) for kind in look.alarm.fired],
        "open": look.conflict,
        "cause": None if look.cause is None else str(look.cause),
    }
    if look.drift is not None:
        found["drift"] = [round(look.drift.change, 5), round(look.drift.se, 5)]
    if isinstance(look, Probe):
        found["pass_at_1"], found["no_signal"] = round(look.pass_at_1, 4), round(look.no_signal, 3)
        if look.cosine is not None:
            cosine = look.cosine
            found["cosine"] = [round(v, 3) for v in (cosine.value, cosine.low, cosine.high)]
            found["z"] = round(cosine.z, 2)
        found["z_by_k"] = [round(one.z, 2) for one in look.curve]
        if look.first is not None:
            found["first_z"] = [round(look.first.z, 2), round(look.first.threshold, 2)]
    return found
