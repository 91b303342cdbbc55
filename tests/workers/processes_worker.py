"""Run by torchrun: Gramian and scores over processes, and faults on one of them."""

import os
import random
import sys
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist
from cramped import Cramped
from extras import is_installed
from judged import Judge, make_guard
from sharded import flat, shard
from test_processes import FLAT, SHARDS, gramians
from tiny import LANGUAGE_MODELS, BanditPolicy, CausalLMPolicy, random_groups

from passk_guard import (
    HeldOutPool,
    PassKGuard,
    PassKGuardConfig,
    PassKGuardWarning,
    probe_policy,
)
from passk_guard.gradients import EngineSettings, HookEngine
from passk_guard.rollouts import batching
from passk_guard.rollouts.batching import PassSize
from passk_guard.rollouts.scores import score_all
from passk_guard.rollouts.verified_policy import VerifiedPolicy
from passk_guard.runtime.progress import silent
from passk_guard.runtime.sharding import refuse_splits

ROUNDS = 20


class Shaky(BanditPolicy):
    """Raises on one process, in one of its calls, as told."""

    broken: tuple[int, str] | None = None

    def _maybe(self, where):
        if self.broken == (dist.get_rank(), where):
            raise RuntimeError(f"{where} is broken")

    def generate(self, rows, row_ids, n):
        self._maybe("generate")
        return super().generate(rows, row_ids, n)

    def log_probs(self, *tokens):
        self._maybe("gradient" if torch.is_grad_enabled() else "score")
        return super().log_probs(*tokens)


def faults():
    """Probes with a fault on one random process; what this one has in the end."""
    policy = Shaky(32)
    rows = [{"prompt": str(i)} for i in range(32)]
    config = PassKGuardConfig(k=2, reference_prompts=8, on_error="continue")
    guard = PassKGuard(
        VerifiedPolicy(policy, None),
        HeldOutPool(rows),
        config,
        isolation=policy.isolated,
        is_main=False,
    )
    rng = random.Random(0)
    for step in range(ROUNDS):
        where = rng.choice(["generate", "score", "gradient", None])
        policy.broken = None if where is None else (rng.randrange(dist.get_world_size()), where)
        guard.probe(step)
    return {
        "history": [(p.step, p.pass_at_1, p.track.change) for p in guard.history],
        "failures": [(f.step, f.reason) for f in guard.failures],
    }


def disagree():
    """Rollouts that differ between processes are refused on all of them, by every engine."""
    from passk_guard import ProbeError
    from passk_guard.gradients import ENGINES

    policy = CausalLMPolicy(LANGUAGE_MODELS["torch"]().eval())
    groups = random_groups(7, 5, seed=dist.get_rank())
    if dist.get_rank() == 1:  # one has nothing to compare at all
        groups = [replace(group, success=torch.zeros(5)) for group in groups]
    said = {}
    for name in ("auto", "hooks", "backward"):
        try:
            ENGINES.make(name, policy, EngineSettings()).gramian(groups, (0,))
        except ProbeError as error:
            said[name] = str(error)
    return said


def cramped():
    """One process has less memory than it seems, another one less than the others."""
    rank, size = dist.get_rank(), PassSize()
    model, groups = LANGUAGE_MODELS["torch"]().eval(), random_groups(7, 5)
    free = mock.patch.object(batching, "free_memory", return_value=2 ** (22 if rank == 1 else 40))
    with Cramped(model, 25 if rank == 0 else 10**6) as policy, free:
        size.fit(policy, groups)
        chosen = size.tokens
        gramian = HookEngine(policy, EngineSettings(passes=size)).gramian(groups, (0,))
        scores = score_all(policy, groups, size)
    return {"hooks": gramian, "scores": scores, "tokens": (chosen, size.tokens)}


def replicated():
    """HSDP: shards that several processes hold."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (dist.get_world_size(), 1), mesh_dim_names=("copies", "parts"))
    model = LANGUAGE_MODELS["torch"]()
    refuse_splits(model)
    refuse_splits(shard(LANGUAGE_MODELS["torch"]()))
    try:
        refuse_splits(fully_shard(model, mesh=mesh))
    except ValueError as error:
        return str(error)
    return None


class FailsAgain(Judge):
    """On one process, and only where it is asked again."""

    fails = False

    def __call__(self, prompts, **arguments):
        if self.fails and dist.get_rank() == 1 and len(prompts) <= 16:
            raise ConnectionError("no judge")
        return super().__call__(prompts, **arguments)


def again():
    """Three looks at the verifier, of which one fails on one process."""
    judge = FailsAgain(noise=0.2, seed=dist.get_rank())
    guard = make_guard(judge, prompts=16, on_error="continue")
    guard.probe(0)
    guard.probe(5)
    judge.fails = True
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("ignore")  # an old torch has warnings of its own
        warnings.simplefilter("always", PassKGuardWarning)
        guard.probe(10)
    judge.fails = False
    guard.probe(15)
    return {
        "calls": judge.calls,
        "found": [None if p.verifier is None else vars(p.verifier) for p in guard.history],
        "state": guard.state_dict()["named states"]["state"]["verifier"],
        "said": [str(warning.message) for warning in said],
    }


def probed(out):
    """A policy read outside a run: a fault on one process in its second batch, then all of it."""
    policy, said = Shaky(32, seed=5), None
    settings = {"k": 2, "prompts_at_once": 8, "journal": out / "probe.jsonl"}
    rows = [{"prompt": str(i)} for i in range(32)]
    probe_policy(policy, rows, num_prompts=8, progress=silent, **settings)
    policy.broken = (1, "generate")
    try:
        probe_policy(policy, rows, progress=silent, **settings)
    except RuntimeError as error:
        said = str(error)
    policy.broken = None
    whole = probe_policy(policy, rows, progress=silent, **settings).record()
    return {"said": said, "generated": policy.generated, **whole, "seconds": None}


def main(out):
    dist.init_process_group("gloo")
    kinds = ["torch", "llama"] if is_installed("transformers") else ["torch"]
    ways = {"gramians": lambda model: model, **({"sharded": shard} if SHARDS else {})}
    flats = dict(zip(FLAT, (flat, partial(flat, keep=True)), strict=True))
    found = {
        kind: {how: gramians(kind, prepare=prepare) for how, prepare in ways.items()}
        for kind in kinds
    }
    found["torch"]["cramped"] = cramped()
    if "llama" in kinds:  # FSDP1 looks for tensors in what a model returns, not in every class
        found["llama"] |= {
            how: gramians("llama", prepare=prepare, watched=False) for how, prepare in flats.items()
        }
    if SHARDS:
        found["replicated"] = replicated()
    found |= {"faults": faults(), "disagree": disagree(), "again": again(), "probed": probed(out)}
    torch.save(found, out / f"rank{dist.get_rank()}.pt")
    dist.barrier()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
