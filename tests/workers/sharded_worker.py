"""Run by torchrun on two processes: guarded runs with FSDP2; each rank writes what it saw."""

import json
import os
import sys
import warnings
from pathlib import Path

import torch.distributed as dist
from hosted_ddp_worker import KEYWORDS, MIX, seen
from torch.distributed.fsdp import fully_shard
from trl_runs import near_answer

from passk_guard.runtime.sharding import reshard

CASES = {
    "alone": None,
    "warn": {"reward_funcs": near_answer},
    "sketched": {"reward_funcs": near_answer, "memory_limit": 1},
    "mix": {"reward_funcs": near_answer, **MIX},
}
# The trainer's own advantages with a pass@1 term: what only TRL has.
TRAINER_MIX = {"reward_funcs": near_answer, "action": "mix", "floor": 0.99}


def sharded(out):
    """A model that transformers splits over the processes as it loads it."""
    from hosts import model
    from transformers import AutoModelForCausalLM
    from transformers.distributed import DistributedConfig

    saved = out / "model"
    if dist.get_rank() == 0 and not saved.exists():
        model().save_pretrained(saved)
    dist.barrier()
    return AutoModelForCausalLM.from_pretrained(
        saved, distributed_config=DistributedConfig(fsdp_size=2), attention_dropout=0.1
    )


def trl(out, guard):
    from trl_runs import make_trainer

    from passk_guard.integrations.trl import PassKGuardCallback

    trainer = make_trainer(out, model=sharded(out), per_device_train_batch_size=12, steps=4)
    callback = None
    if guard is not None:
        keywords = {**KEYWORDS, **guard}
        del keywords["max_completion_length"], keywords["reward_funcs"]
        if keywords.pop("anchor_prompts", None):
            keywords["objective"] = "pkpo"
        callback = PassKGuardCallback(trainer, **keywords)
        trainer.add_callback(callback)
    trainer.train()
    return trainer.model, callback


def transformers(out, guard):
    import own_loss

    from passk_guard.integrations.transformers import PassKGuardCallback

    trainer = own_loss.make_trainer(
        sharded(out),
        str(out),
        steps=4,
        learning_rate=1e-3,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        max_grad_norm=0.1,
        disable_tqdm=True,
    )
    trainer.verify = near_answer
    callback = None if guard is None else PassKGuardCallback(trainer, **KEYWORDS | guard)
    if callback:
        trainer.add_callback(callback)
    trainer.train()
    return trainer.model, callback


def lightning(out, guard):
    from lightning.pytorch.strategies import ModelParallelStrategy
    from lightning_runs import Automatic, fit

    from passk_guard.integrations.lightning import PassKGuardCallback

    class Sharded(Automatic):
        def configure_model(self):
            mesh = self.device_mesh["data_parallel"]
            for layer in self.model.model.layers:
                fully_shard(layer, mesh=mesh)
            fully_shard(self.model, mesh=mesh)

    callback = None if guard is None else PassKGuardCallback(**KEYWORDS | guard)
    module = Sharded()
    strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    fit(out, module, *([callback] if callback else []), strategy=strategy, devices=2)
    return module, callback


class Whole:
    """Parameters gathered from all processes."""

    def __init__(self, module):
        reshard(module)
        self._whole = [p.full_tensor() for p in module.parameters()]

    def parameters(self):
        return self._whole


def main(out, run):
    if not dist.is_initialized():
        dist.init_process_group("gloo")
    found = {"trainer": run.__name__}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = CASES | ({"trainer mix": TRAINER_MIX} if run is trl else {})
        for name, guard in cases.items():
            module, callback = run(out, guard)
            found[name] = seen(Whole(module), callback)
    (out / f"rank{dist.get_rank()}.json").write_text(json.dumps(found))
    dist.barrier()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), globals()[sys.argv[2]])
