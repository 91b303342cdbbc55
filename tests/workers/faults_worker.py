"""Run by torchrun: faults on one process of a model that is split over all of them.

Arguments: folder, ``fsdp2`` or ``zero3``, what to do: ``survive`` fifty probes with a fault on a
random process, or ``break`` down inside a forward.
"""

import json
import os
import random
import sys
import warnings
from pathlib import Path

os.environ["DS_ACCELERATOR"] = "cpu"

import ambiguous_arithmetic as task
import torch
import torch.distributed as dist
from sharded import shard
from trl_runs import held_out, near_answer

from passk_guard import HeldOutPool, HFPolicy, PassKGuard, PassKGuardConfig
from passk_guard.rollouts.verified_policy import VerifiedPolicy
from passk_guard.runtime import lockstep
from passk_guard.runtime.isolation import isolated

PROBES = 50
WHERE = ("verifier", "count", "nothing scored", "score", "gradient", None)


class Shaky(HFPolicy):
    """Its log-probs are not finite, or not there, as told."""

    wrong: tuple[str, bool] | None = None

    def log_probs(self, *tokens):
        found = super().log_probs(*tokens)
        where = "gradient" if torch.is_grad_enabled() else "score"
        if here() and Fault.where == where:
            return found * torch.nan
        return found


class Fault:
    """Where the next one is, and on which process."""

    where, rank = None, 0


def here():
    return Fault.rank == dist.get_rank()


def verify(completions, answer, **_):
    if here() and Fault.where == "verifier":
        raise ConnectionError("the sandbox is gone")
    right = near_answer(completions, answer)
    if here() and Fault.where == "nothing scored":
        return [None] * len(right)
    return right[:-1] if here() and Fault.where == "count" else right


def split(model, engine):
    if engine == "fsdp2":
        dist.init_process_group("gloo")
        return shard(model)
    import deepspeed

    deepspeed.init_distributed("gloo")
    settings = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3}}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    settings["zero_allow_untested_optimizer"] = True
    return deepspeed.initialize(model=model, optimizer=optimizer, config=settings)[0].module


def made(engine):
    tokenizer = task.make_tokenizer()
    model = split(task.make_model(tokenizer, hidden=32, layers=1), engine)
    policy = Shaky(model, tokenizer, max_completion_length=2)
    config = PassKGuardConfig(k=2, reference_prompts=8, on_error="continue", action=lambda *_: None)
    rank = dist.get_rank()
    return model, PassKGuard(
        VerifiedPolicy(policy, verify, module=model),
        HeldOutPool([dict(row) for row in held_out()]),
        config,
        isolation=lambda seed: isolated(model, seed=seed + rank),
        is_main=False,
    )


def survive(guard, model, out):
    rng = random.Random(0)
    faults = []
    for step in range(PROBES):
        Fault.where, Fault.rank = rng.choice(WHERE), rng.randrange(dist.get_world_size())
        faults.append([Fault.where, Fault.rank])
        guard.probe(step)
    found = {
        "faults": faults,
        "history": [
            [p.step, p.pass_at_1, p.track.change, p.alignment and p.alignment.z]
            for p in guard.history
        ],
        "failures": [[f.step, f.reason] for f in guard.failures],
        "gradients": guard._prober.gradients.said,
    }
    (out / f"rank{dist.get_rank()}.json").write_text(json.dumps(found))
    dist.barrier()
    os._exit(0)


def break_down(guard, model, out):
    """In the middle of a forward: on all processes, which costs a probe, then on the second one,
    which ends the run; nobody is left waiting.
    """
    lockstep._PATIENCE = 3.0
    broken = range(0)

    def fail(*_):
        if dist.get_rank() in broken:
            raise MemoryError("no room for the head")

    layer = next(m for m in model.modules() if isinstance(m, torch.nn.Linear))
    layer.register_forward_hook(fail)
    first = guard.probe(0)
    broken = range(2)
    assert guard.probe(1) is None
    broken = range(0)
    assert guard.probe(2).row_ids == first.row_ids
    (out / f"alive{dist.get_rank()}").touch()
    broken = range(1, 2)
    guard.probe(3)


def main(out, engine, what):
    warnings.simplefilter("ignore")
    model, guard = made(engine)
    {"survive": survive, "break": break_down}[what](guard, model, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
