"""Run by torchrun on two processes: the first speaks to a vLLM server, which fails two probes."""

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
from trl_runs import GUARD, held_out, make_trainer
from vllm_server import Server, without_nccl

from passk_guard.integrations.trl import PassKGuardCallback


def main(out: Path) -> None:
    # Of a group, the first process alone would save a model.
    rank = int(os.environ["RANK"])
    model, served = (vllm_runs.saved_model(out / f"model{rank}", 20.0) for _ in range(2))
    dist.init_process_group("gloo")
    server = Server(served)
    without_nccl(pytest.MonkeyPatch(), server)
    trainer = make_trainer(
        out,
        model=model,
        steps=6,
        ddp_backend="gloo",
        use_vllm=True,
        vllm_mode="server",
        vllm_server_base_url=server.url,
    )
    callback = PassKGuardCallback(
        trainer, prompts=held_out(), on_error="continue", **{**GUARD, "reference_batches": 1}
    )
    policy, looks = callback.guard.policy, []
    generate = policy.generate

    def generates(*args, **kwargs):
        looks.append(None)
        # Once as it samples, once as weights are sent.
        server.broken = "/v1/completions" if len(looks) == 2 else ""
        server.broken = "/start_weight_update" if len(looks) == 3 else server.broken
        try:
            return generate(*args, **kwargs)
        finally:
            server.broken = ""

    policy.generate = generates
    trainer.add_callback(callback)
    trainer.train()
    seen = {
        "steps": [p.step for p in callback.guard.history],
        "failures": [[f.step, f.reason] for f in callback.guard.failures],
        "weights": [p.detach().double().sum().item() for p in trainer.model.parameters()],
        "trained": trainer.state.global_step,
    }
    (out / f"rank{rank}.json").write_text(json.dumps(seen))
    dist.barrier()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
