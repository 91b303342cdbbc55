"""Run by torchrun on two processes: a vLLM engine in each, then a server that fails two probes."""

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path[:0] = [
    str(Path(__file__).parents[1] / "helpers"),
    str(Path(__file__).parents[2] / "examples"),
]

import vllm_runs  # before whatever else imports vLLM

# isort: split

import pytest
import torch.distributed as dist
from trl_runs import GUARD, held_out, losses, make_trainer
from vllm_server import Server, without_nccl

from passk_guard.integrations.trl import PassKGuardCallback


def seen(trainer, guard=None):
    return {
        "steps": [] if guard is None else [p.step for p in guard.history],
        "pass@1": [] if guard is None else [p.pass_at_1 for p in guard.history],
        "kl": [] if guard is None else [p.inference.kl for p in guard.history],
        "failures": [] if guard is None else [[f.step, f.reason] for f in guard.failures],
        "weights": [p.detach().double().sum().item() for p in trainer.model.parameters()],
        "losses": losses(trainer),
        "trained": trainer.state.global_step,
    }


def inside(out: Path, models) -> dict:
    """12 rollouts per process and groups of 8 and 7, which straddle the processes."""
    found = {}
    for name in ("alone", "guarded"):
        trainer = make_trainer(
            out,
            model=next(models),
            ddp_backend="gloo",
            per_device_train_batch_size=12,
            **vllm_runs.ENGINE,
        )
        guard, calls = None, []
        if name == "guarded":
            settings = {**GUARD, "num_generations": 7, "reference_prompts": 15}
            callback = PassKGuardCallback(trainer, prompts=held_out(), **settings)
            trainer.add_callback(callback)
            guard, llm = callback.guard, trainer.vllm_generation.llm
            generate = llm.generate

            def generates(prompts, generate=generate, calls=calls, **settings):
                calls.append(len(prompts))
                return generate(prompts, **settings)

            llm.generate = generates
        trainer.train()
        found[name] = {**seen(trainer, guard), "calls": calls}
    return found


def failing(out: Path, models) -> dict:
    server = Server(next(models))
    without_nccl(pytest.MonkeyPatch(), server)
    trainer = make_trainer(
        out,
        model=next(models),
        steps=6,
        ddp_backend="gloo",
        use_vllm=True,
        vllm_mode="server",
        vllm_server_base_url=server.url,
    )
    settings = {**GUARD, "on_error": "continue"}
    callback = PassKGuardCallback(trainer, prompts=held_out(), **settings)
    policy, looks = callback.guard.policy, []
    generate = policy.generate
    paths = {2: "/v1/completions", 3: "/start_weight_update"}  # of which looks

    def generates(*args, **kwargs):
        looks.append(None)
        server.broken = paths.get(len(looks), "")
        try:
            return generate(*args, **kwargs)
        finally:
            server.broken = ""

    policy.generate = generates
    trainer.add_callback(callback)
    trainer.train()
    return seen(trainer, callback.guard)


def main(out: Path) -> None:
    # Of a group, the first process alone would save a model.
    rank = int(os.environ["RANK"])
    models = iter([vllm_runs.saved_model(out / f"model{rank}", 20.0) for _ in range(4)])
    dist.init_process_group("gloo")
    found = {"inside": inside(out, models), "server": failing(out, models)}
    (out / f"rank{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
