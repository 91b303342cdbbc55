"""What do watched layers save where parameters are sharded (FSDP2)? Two processes, one table.

    torchrun --nproc-per-node 2 tests/benchmarks/sharded_cost.py

A Llama of 20 M parameters on the CPU, over gloo. Under FSDP2 every forward and every backward
gathers each layer's parameters: one backward per prompt does so for every prompt, watched layers
for every batch of rollouts. Times are ratios to one backward per prompt, the least of five,
alternating; gathers are counted.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

import torch
import torch.distributed as dist
from gradient_contenders import make_groups, make_model
from tiny import CausalLMPolicy
from torch.distributed.fsdp import fully_shard

from passk_guard.gradients import ENGINES, EngineSettings
from passk_guard.rollouts.batching import PassSize
from passk_guard.rollouts.scores import score

PROMPTS, ROLLOUTS, TOKENS = 8, 8, 32


class Gathers(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts the collectives that gather parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "all_gather_copy_in" in str(func)
        return func(*args, **kwargs or {})


def main() -> None:
    dist.init_process_group("gloo")
    model = make_model(384, 8, 8192)
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    policy, groups = CausalLMPolicy(model), make_groups(PROMPTS, ROLLOUTS, TOKENS, 8192, "cpu")

    def backward() -> None:
        score(policy, groups, PassSize(at_once))
        engines["backward"].gramian(groups, (0,))

    def hooks() -> None:
        engines["hooks"].gramian(groups, (0,))

    for at_once in (8, 16, 32):
        settings = EngineSettings(None, PassSize(at_once), 0)
        engines = {name: ENGINES.make(name, policy, settings) for name in ("backward", "hooks")}
        least = {}
        for _ in range(5):
            for work in (backward, hooks):
                dist.barrier()
                start = time.perf_counter()
                work()
                seconds = time.perf_counter() - start
                least[work] = min(seconds, least.get(work, seconds))
        counts = []
        for work in (backward, hooks):
            with Gathers() as gathers:
                work()
            counts.append(gathers.count)
        if dist.get_rank() == 0:
            share = least[hooks] / least[backward]
            print(
                f"{at_once} rollouts at once: watched layers take {share:.2f} of the time of "
                f"scoring and a backward per prompt; gathers {counts[1]} instead of {counts[0]}",
                flush=True,
            )
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
