"""Run on two processes: what each way of sharing a model out refuses, and that it says so early.

Arguments: folder, engine: ``zero2``, ``fsdp1`` or ``tensor``. Each process writes what was said, by
case.
"""

import json
import os
import sys
import warnings
from pathlib import Path

import ambiguous_arithmetic as task
import own_loss
import torch.distributed as dist
from hosted_ddp_worker import KEYWORDS
from hosts import model
from stack_worker import accelerate_takes_fsdp_on_a_cpu, settings_of
from trl_runs import near_answer

from passk_guard.integrations.transformers import PassKGuardCallback

ANCHORS = {"action": "mix", "anchor_prompts": task.make_rows(64)}
ADAM = {"metric": "adam"}
CASES = {
    "zero2": {"adam": ADAM, "anchors": ANCHORS},
    "fsdp1": {"adam": ADAM, "anchors": ANCHORS, "names": {"parameters": "mlp"}, "no shards": {}},
    "tensor": {"at all": {}},
}


def shared_out(engine, out, case):
    """A model, and settings of its trainer."""
    if engine in ("zero2", "fsdp1"):
        if case == "no shards":
            os.environ["FSDP_SHARDING_STRATEGY"] = "NO_SHARD"
        return model(), settings_of(engine)
    from transformers import AutoModelForCausalLM
    from transformers.distributed import DistributedConfig

    saved = out / "model"
    if dist.get_rank() == 0:
        model().save_pretrained(saved)
    dist.barrier()
    config = DistributedConfig(tp_size=2)
    return AutoModelForCausalLM.from_pretrained(saved, distributed_config=config), {}


def said(engine, out, case, keywords):
    policy, settings = shared_out(engine, out, case)
    trainer = own_loss.make_trainer(policy, str(out), steps=1, **settings)
    steps = []
    trainer.training_step = lambda *_, **__: steps.append(1)
    try:
        trainer.add_callback(
            PassKGuardCallback(trainer, **{**KEYWORDS, "reward_funcs": near_answer, **keywords})
        )
        trainer.train()
    except ValueError as error:
        assert not steps
        return str(error)
    return None


def main(out, engine):
    if engine in ("fsdp1", "tensor"):
        accelerate_takes_fsdp_on_a_cpu()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {case: said(engine, out, case, more) for case, more in CASES[engine].items()}
    (out / f"rank{dist.get_rank()}.json").write_text(json.dumps(found))
    dist.barrier()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
