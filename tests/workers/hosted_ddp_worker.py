"""Run by torchrun on two processes: guarded runs of a trainer; each rank writes what it saw."""

import json
import os
import sys
import warnings
from pathlib import Path

import ambiguous_arithmetic as task
import torch.distributed as dist
from trl_runs import GUARD, held_out, near_answer

KEYWORDS = {**GUARD, "prompts": held_out(), "max_completion_length": 2}
MIX = {"action": "mix", "floor": 0.99, "anchor_prompts": task.make_rows(64)}


class FailsOnce:
    """A verifier that raises on the second process only, in the probe after the first one."""

    def __init__(self):
        self.calls = 0

    def __call__(self, completions, answer, **_):
        self.calls += 1
        if dist.get_rank() == 1 and self.calls == 3:
            raise ConnectionError("the sandbox is gone")
        return near_answer(completions, answer)


def fails_on_anchors(completions, answer, **_):
    """Raises on the second process wherever it gets its half of the anchors, not of a probe."""
    if dist.get_rank() == 1 and len(completions) == 8 * 6 // 2:
        raise ConnectionError("the sandbox is gone")
    return near_answer(completions, answer)


def with_long_ones():
    """Two of the prompts leave no room for an answer."""
    rows = held_out(32).to_list()
    for i in (3, 17):
        rows[i]["prompt"] = "1 " * 20
    return rows


CASES = {
    "alone": None,
    "warn": {"reward_funcs": near_answer},
    "long": {"reward_funcs": near_answer, "prompts": with_long_ones()},
    "mix": {"reward_funcs": near_answer, **MIX},
    "fails": {"reward_funcs": FailsOnce(), "on_error": "continue"},
    "term fails": {"reward_funcs": fails_on_anchors, **MIX, "on_error": "continue"},
    "timed": {"reward_funcs": near_answer, "every": 1, "max_overhead": 0.9},
}


def lightning(out, guard):
    from lightning_runs import Automatic, fit

    from passk_guard.integrations.lightning import PassKGuardCallback

    callback = None if guard is None else PassKGuardCallback(**KEYWORDS | guard)
    module = Automatic()
    callbacks = [callback] if callback else []
    fit(out, module, *callbacks, strategy="ddp", devices=2, accumulate_grad_batches=2)
    return module, callback


def transformers(out, guard):
    import own_loss
    from hosts import model

    from passk_guard.integrations.transformers import PassKGuardCallback

    # As on two machines, each of which keeps checkpoints of its own.
    rank, os.environ["LOCAL_RANK"] = os.environ["RANK"], "0"
    trainer = own_loss.make_trainer(
        model(),
        str(out / f"node{rank}"),
        steps=4,
        learning_rate=1e-3,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        disable_tqdm=True,
        ddp_backend="gloo",
        save_on_each_node=True,
        save_strategy="steps" if guard == CASES["warn"] else "no",
        save_steps=4,
    )
    trainer.verify = near_answer
    callback = None if guard is None else PassKGuardCallback(trainer, **KEYWORDS | guard)
    if callback:
        trainer.add_callback(callback)
    trainer.train()
    return trainer.model, callback


def seen(module, callback):
    found = {"weights": [p.detach().double().sum().item() for p in module.parameters()]}
    if callback is not None:
        guard = callback.guard
        found["history"] = [
            [p.step, p.pass_at_1, p.alignment.z, p.track.change, p.pass1_weight]
            for p in guard.history
        ]
        found["inner"] = [p.update_alignment.inner for p in guard.history]
        found["scale"] = getattr(guard.objective, "scale", None)
        found["gradients"] = guard._prober.gradients.said
        found["failures"] = [[f.step, f.reason] for f in guard.failures]
    return found


def main(out, run):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = {name: seen(*run(out, guard)) for name, guard in CASES.items()}
    found["warnings"] = [str(w.message) for w in caught if "passk-guard" in str(w.message)]
    (out / f"rank{dist.get_rank()}.json").write_text(json.dumps(found))
    dist.barrier()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), {"lightning": lightning, "transformers": transformers}[sys.argv[2]])
