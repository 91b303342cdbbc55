"""Run by torchrun on two processes: guarded runs on DeepSpeed or FSDP1; each writes what it saw.

Arguments: folder, trainer, engine (``zero1`` ... or ``fsdp1``), names of the cases to run.
"""

import json
import os
import signal
import sys
import warnings
from pathlib import Path

os.environ["DS_ACCELERATOR"] = "cpu"

import torch
import torch.distributed as dist
from hosted_ddp_worker import KEYWORDS
from lightning import Callback
from torch import nn
from transformers import TrainerCallback
from trl_runs import losses, make_trainer, near_answer

from passk_guard.runtime.fsdp1 import flat_parameters

LOSSES = {"reward_funcs": near_answer}
SAVES = {"max_steps": 6, "save_strategy": "steps", "save_steps": 4}
MIX = {"action": "mix", "floor": 0.99, "objective": "pkpo"}
HALF = {"bf16": True, "checkpointing": True}
CASES = {
    "alone": (None, {}),
    "warn": (LOSSES, {}),
    "sketched": ({**LOSSES, "memory_limit": 1}, {}),
    "backward": ({**LOSSES, "engine": "backward"}, {}),
    "mix": ({**LOSSES, **MIX}, {}),
    "trainer mix": ({**LOSSES, **MIX, "objective": None}, {}),  # the trainer's own advantages
    "part": ({**LOSSES, "engine": "backward", "parameters": "mlp"}, {}),
    "half alone": (None, HALF),
    "half warn": (LOSSES, HALF),
    "adapter alone": (None, {"adapter": True}),
    "adapter warn": (LOSSES, {"adapter": True}),
    "loaded alone": (None, {"loaded": True}),
    "loaded warn": (LOSSES, {"loaded": True}),
    "no room": ({**LOSSES, "on_error": "continue"}, {"no_room": 2}),
    "long": ({**LOSSES, **MIX}, SAVES),
    "killed": ({**LOSSES, **MIX}, {**SAVES, "kill": 5}),
    "resumed": ({**LOSSES, **MIX}, {**SAVES, "resume": 4}),
}


def adapted(model):
    """LoRA beside every linear layer."""
    import peft

    torch.manual_seed(1)
    return peft.get_peft_model(model, peft.LoraConfig(target_modules="all-linear", r=4))


def deepspeed(stage):
    return {
        "zero_optimization": {"stage": stage, "overlap_comm": stage > 1},
        "train_micro_batch_size_per_gpu": "auto",
        "train_batch_size": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": "auto"},
    }


def saved(model, folder):
    """A folder, from which the trainer loads the model by itself: split from the first on."""
    if not dist.is_initialized() or dist.get_rank() == 0:
        model.save_pretrained(folder)
    if dist.is_initialized():
        dist.barrier()
    return str(folder)


class Losses(Callback):
    """Of every batch."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(float(outputs["loss"]))


class Kill(TrainerCallback):
    """The second process, without a word, after a step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step and dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def fails(guard, model, step):
    """The probe of one step has no memory for a layer, on all processes."""
    looking, probe = [], guard.probe

    def fail(*_):
        if looking == [step]:
            raise MemoryError("no room for the head")

    def look(step):
        looking[:] = [step]
        found = probe(step)
        looking.clear()
        return found

    guard.probe = look
    next(m for m in model.modules() if isinstance(m, nn.Linear)).register_forward_hook(fail)


def run(trainer, callback, *, kill=None, resume=None, no_room=None):
    """Train; returns both."""
    if callback:
        trainer.add_callback(callback)
    if kill is not None:
        trainer.add_callback(Kill(kill))
    if no_room is not None:
        fails(callback.guard, trainer.model, no_room)
    folder = f"{trainer.args.output_dir}/checkpoint-{resume}"
    trainer.train(resume_from_checkpoint=folder if resume else None)
    return trainer, callback


def trl(out, guard, settings, model, **how):
    from passk_guard.integrations.trl import PassKGuardCallback

    trainer = make_trainer(
        out,
        model=model,
        **{
            "per_device_train_batch_size": 12,
            "gradient_accumulation_steps": 2,
            "max_grad_norm": 0.1,
            "max_steps": 4,
            **settings,
        },
    )
    callback = None
    if guard is not None:
        keywords = {**KEYWORDS, **guard}
        del keywords["max_completion_length"], keywords["reward_funcs"]
        callback = PassKGuardCallback(trainer, **keywords)
    return run(trainer, callback, **how)


def transformers(out, guard, settings, model, **how):
    import own_loss

    from passk_guard.integrations.transformers import PassKGuardCallback

    if settings.pop("checkpointing", False):
        settings["gradient_checkpointing"] = True
    trainer = own_loss.make_trainer(
        model,
        str(out),
        **{
            "steps": settings.pop("max_steps", 4),
            "learning_rate": 1e-3,
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 2,
            "max_grad_norm": 0.1,
            "disable_tqdm": True,
            "logging_steps": 1,
            **settings,
        },
    )
    trainer.verify = near_answer
    if guard is not None and "objective" in guard:
        guard = {**guard, "objective": trainer.objective, "k": trainer.objective.k}
    callback = None if guard is None else PassKGuardCallback(trainer, **KEYWORDS | guard)
    return run(trainer, callback, **how)


def on_a_cpu(stage):
    """Lightning's DeepSpeedStrategy, which asks for GPUs where DeepSpeed itself does without."""
    from lightning.pytorch.accelerators import CPUAccelerator
    from lightning.pytorch.strategies import deepspeed as module

    module.CUDAAccelerator = CPUAccelerator
    module._validate_device_index_selection = lambda devices: None

    class Strategy(module.DeepSpeedStrategy):
        root_device = torch.device("cpu", 0)

    config = deepspeed(stage) | {"gradient_clipping": 0.1, "train_micro_batch_size_per_gpu": 8}
    config = {key: value for key, value in config.items() if value != "auto" and key != "bf16"}
    return Strategy(process_group_backend="gloo", config=config)


def lightning(out, guard, settings, policy):
    from lightning_runs import Automatic, fit

    from passk_guard.integrations.lightning import PassKGuardCallback

    module = Automatic()
    callback = None if guard is None else PassKGuardCallback(**KEYWORDS | guard)
    strategy = on_a_cpu(settings["deepspeed"]["zero_optimization"]["stage"])
    callbacks = [Losses(), *([callback] if callback else [])]
    fit(out, module, *callbacks, strategy=strategy, devices=2, accumulate_grad_batches=2)
    module.losses = callbacks[0].seen
    return module, callback


def whole(trainer, engine):
    """Parameters, gathered from all processes where that is no trouble."""
    if engine.startswith("zero3"):
        import deepspeed as ds

        with ds.zero.GatheredParameters(list(trainer.model.parameters())):
            return [p.detach().clone() for p in trainer.model.parameters()]
    if engine.startswith("fsdp1"):
        return [p.detach() for _, p in flat_parameters(trainer.model)]  # this process's part
    return [p.detach() for p in trainer.model.parameters()]


def seen(trainer, callback, engine):
    found = {
        "weights": [p.double().sum().item() for p in whole(trainer, engine)],
        "losses": trainer.losses
        if hasattr(trainer, "losses")
        else [[entry.get("loss"), entry.get("grad_norm")] for entry in losses(trainer)],
    }
    if callback is not None:
        guard = callback.guard
        found["history"] = [
            [p.step, p.pass_at_1, p.alignment.z, p.track.change, p.pass1_weight]
            for p in guard.history
        ]
        found["gradients"] = guard._prober.gradients.said
        found["failures"] = [[f.step, f.reason] for f in guard.failures]
    return found


def accelerate_takes_fsdp_on_a_cpu():
    """It asks for an accelerator first, which torch's FSDP itself does without."""
    from accelerate.state import DistributedType, PartialState

    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    dist.init_process_group("gloo")
    PartialState._prepare_backend = lambda *arguments: ("gloo", DistributedType.MULTI_GPU)


def settings_of(engine):
    if engine.startswith("fsdp1"):
        kept = engine == "fsdp1-kept"  # the parameters as the model knows them
        config = {
            "version": 1,
            "transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"],
            "use_orig_params": kept,
            "sync_module_states": False,  # which asks for an accelerator
        }
        return {"fsdp": "full_shard", "fsdp_config": config}
    return {"deepspeed": deepspeed(int(engine[4]))}


def main(out, start, engine, cases):
    from hosts import model

    found = {}
    if engine.startswith("fsdp1"):
        accelerate_takes_fsdp_on_a_cpu()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in cases:
            guard, more = CASES[name]
            policy = adapted(model()) if more.get("adapter") else model()
            if more.get("loaded"):
                policy = saved(policy, out / "model")
            how = {
                key: value for key, value in more.items() if key in ("kill", "resume", "no_room")
            }
            more = {k: value for k, value in more.items() if k not in {"adapter", "loaded", *how}}
            trainer, callback = start(out, guard, {**settings_of(engine), **more}, policy, **how)
            found[name] = seen(trainer, callback, engine)
    rank = dist.get_rank()
    (out / f"rank{rank}.json").write_text(json.dumps(found))
    if rank == 0:
        print(json.dumps(found, indent=1)[:6000])
    dist.barrier()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), globals()[sys.argv[2]], sys.argv[3], sys.argv[4:])
