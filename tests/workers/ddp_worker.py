"""Run by torchrun on two processes: guarded GRPO runs; each rank writes what it saw."""

import json
import os
import sys
from pathlib import Path

import torch.distributed as dist
from transformers import TrainerCallback
from trl_runs import GUARD, held_out, make_trainer, near_answer

from passk_guard.integrations.trl import PassKGuardCallback


class FailsOnce:
    """Raises on the second process only, in the probe after the first one."""

    __name__ = "near_answer"  # logged under the same name as the run without

    def __init__(self):
        self.step = 0

    def __call__(self, completions, answer, trainer_state=None, **_):
        if dist.get_rank() == 1 and self.step == 2 and len(completions) != 12:
            raise ConnectionError("the sandbox is gone")
        return near_answer(completions, answer)


class Steps(TrainerCallback):
    """Tells the verifier how far the run is."""

    def __init__(self, verifier):
        self.verifier = verifier

    def on_step_end(self, args, state, control, **kwargs):
        self.verifier.step = state.global_step


def mixes(out: Path) -> dict:
    """The trainer's own advantages with a pass@1 term, and a stop that one process asks for."""
    found = {}
    settings = {**GUARD, "prompts": held_out(), "floor": 0.99}
    trainer = make_trainer(out, per_device_train_batch_size=12, steps=8, ddp_backend="gloo")
    callback = PassKGuardCallback(trainer, action="mix", **settings)
    trainer.add_callback(callback)
    trainer.train()
    found["mix"] = [
        [p.step, p.pass1_weight, p.update_alignment.inner, p.track.change]
        for p in callback.guard.history
    ]
    found["scale"] = callback.guard.objective.scale
    found["weights"] = [p.detach().double().sum().item() for p in trainer.model.parameters()]

    def stop_on_the_second(probe, guard):
        if dist.get_rank() == 1:
            guard.requests.add("stop")

    trainer = make_trainer(out, per_device_train_batch_size=12, steps=8, ddp_backend="gloo")
    trainer.add_callback(PassKGuardCallback(trainer, action=stop_on_the_second, **settings))
    trainer.train()
    found["stopped"] = trainer.state.global_step

    # The objective fails on one process only: nobody may wait for it.
    trainer = make_trainer(out, per_device_train_batch_size=12, steps=6, ddp_backend="gloo")
    settings = {**GUARD, "prompts": held_out(), "objective": "pkpo", "on_error": "continue"}
    settings["every"] = 4  # no look in between would tell
    callback = PassKGuardCallback(trainer, **settings)
    trainer.add_callback(callback)
    trainer.add_callback(SetsK(callback))
    trainer.train()
    found["fallen back"] = [trainer.state.global_step, callback.guard.objective is None]
    found["after it"] = [p.detach().double().sum().item() for p in trainer.model.parameters()]
    return found


class SetsK(TrainerCallback):
    """On the second process a k that its groups are too small for."""

    def __init__(self, callback):
        self.callback = callback

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 1 and dist.get_rank() == 1:
            self.callback.guard.objective.k = 99


def run(out: Path, name: str) -> dict:
    verifier = FailsOnce() if name == "fails" else near_answer
    # 12 rollouts per process and groups of 8: groups straddle the processes.
    trainer = make_trainer(
        out,
        per_device_train_batch_size=12,
        steps=4,
        dropout=0.1,
        ddp_backend="gloo",
        reward_funcs=verifier,
    )
    seen = {"history": []}
    if name == "fails":
        trainer.add_callback(Steps(verifier))
    if name != "alone":
        # 7 rollouts x 16 prompts: straddles, and needs filling up.
        settings = {**GUARD, "num_generations": 7, "reference_prompts": 15}
        callback = PassKGuardCallback(
            trainer,
            prompts=held_out(),
            objective="pkpo" if name.startswith("pkpo") else None,
            on_error="continue" if name == "fails" else None,
            **settings,
        )
        if name == "pkpo, lambda 1":
            callback.guard.objective.pass1_weight = 1.0
        trainer.add_callback(callback)
    trainer.train()
    if name != "alone":
        seen["failures"] = [f.reason for f in callback.guard.failures]
        seen["history"] = [
            [p.step, p.pass_at_1, p.alignment.z, p.update_alignment.inner, p.track.change]
            for p in callback.guard.history
        ]
    seen["weights"] = [p.detach().double().sum().item() for p in trainer.model.parameters()]
    return seen


RUNS = ("alone", "guarded", "pkpo", "pkpo, lambda 1", "fails")


def main(out: Path) -> None:
    seen = {name: run(out, name) for name in RUNS} | {"mixes": mixes(out)}
    (out / f"rank{dist.get_rank()}.json").write_text(json.dumps(seen))
    dist.barrier()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
