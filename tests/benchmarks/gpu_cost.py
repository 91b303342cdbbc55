"""What do a probe's gradients cost on a GPU? One cell of a table; see ``tests/gpu/run.py``.

    python tests/benchmarks/gpu_cost.py --size 0.5B --tokens 512
    python tests/benchmarks/gpu_cost.py --device cpu --tiny    # does it run?

Time and peak memory of taking gradients, beside a plain forward and backward of the same rollouts
at the micro-batch that is fastest for it, which everything else then gets, too. Llamas from a
config with a vocabulary of 32 000, weights in float32, computing in bfloat16, or in float16 where
the GPU has no bfloat16. What does not fit is written down as that, and costs that way only. Extra
peak memory is in units of a training step's peak: weights, Adam's moments, and the most that the
plain forward and backward hold beside them.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import bench  # noqa: F401

# isort: split
import torch
from gradient_ways import GradientWays, Groups, make_groups, make_model
from peak_memory import peak_memory
from tiny import CausalLMPolicy

from passk_guard.gradients import ENGINES, EngineSettings
from passk_guard.rollouts.batching import PassSize

SIZES = {"0.5B": (1280, 20, 32_000), "1.5B": (2048, 26, 32_000), "tiny": (64, 2, 512)}
"""Hidden size, layers, vocabulary."""

SHAPES = {512: (8, 8), 2048: (4, 8), 24: (3, 4)}
"""By sampled tokens of each rollout: prompts, rollouts of each. A third of that again is prompt."""

WAYS, MEMORY = ("batched", "scoring", "guard", "backward"), "out of memory"
FULL = 0.03  # less is gained by a larger micro-batch: it is large enough


class OnGPU(GradientWays):
    """The ways in half precision, as trainers compute, with the guard as it is by default."""

    def __init__(self, model: Any, autocast: Callable[[], Any], prompts: int) -> None:
        super().__init__(model)
        self.policy, self._prompts, self._made = CausalLMPolicy(model), prompts, dict[str, Any]()
        full = self.policy.log_probs

        def log_probs(*tokens: torch.Tensor) -> torch.Tensor:
            with autocast():
                return full(*tokens)

        self.policy.log_probs = log_probs

    def guard(self, groups: Groups) -> torch.Tensor:
        return self.engine("auto").gramian(groups, (0,))

    def backward(self, groups: Groups) -> torch.Tensor:
        return self.engine("backward").gramian(groups, (0,))

    def engine(self, name: str) -> Any:
        if name not in self._made:
            settings = EngineSettings(None, PassSize(self.at_once), prompts=self._prompts)
            self._made[name] = ENGINES.make(name, self.policy, settings)
        return self._made[name]

    def work(self, name: str, groups: Groups) -> None:
        getattr(self, name)(groups)
        self.model.zero_grad()


def half_precision(device: str) -> torch.dtype:
    supported = device == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if supported else torch.float16


def tried(work: Callable[[], Any]) -> str | None:
    """Why it did not run, if so; what it held is released."""
    try:
        work()
    except torch.cuda.OutOfMemoryError:
        why = MEMORY
    except Exception as error:
        why = f"{type(error).__name__}: {str(error)[:300]}"
    else:
        return None
    release()  # once the error, and with it the frames that hold tensors, is gone
    return why


def release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def seconds(work: Callable[[], Any], device: str) -> float:
    def wait() -> None:
        if device != "cpu":
            torch.cuda.synchronize()

    wait()
    began = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - began


def best_micro_batch(ways: OnGPU, groups: Groups, device: str) -> tuple[int, str | None]:
    """The smallest that is as fast as any for a plain forward and backward; else why none runs."""
    n, best, size, why = groups[0].n, (0, 0.0), 1, None
    while size <= n * len(groups):
        some = groups[: -(-size // n)]
        ways.at_once = size
        plain = partial(ways.work, "batched", some)
        if (why := tried(plain)) is not None:
            break
        rate = n * len(some) / seconds(plain, device)
        if rate < best[1] * (1 + FULL):
            break
        best, size = (size, rate), 2 * size
    ways.model.zero_grad()
    return best[0], why if not best[0] else None


def cell(options: argparse.Namespace) -> None:
    """One model size, one length."""
    device = options.device
    size, tokens = ("tiny", 24) if options.tiny else (options.size, options.tokens)
    (hidden, layers, vocabulary), (m, n) = SIZES[size], SHAPES[tokens]
    width = tokens + tokens // 3
    model = make_model(hidden, layers, vocabulary, positions=width).to(device)
    groups = make_groups(m, n, width, vocabulary, device)
    half = half_precision(device)
    ways = OnGPU(model, partial(torch.autocast, torch.device(device).type, half), m)
    micro_batch, why = best_micro_batch(ways, groups, device)
    checkpointing = why == MEMORY
    if checkpointing:
        model.train().gradient_checkpointing_enable({"use_reentrant": False})
        micro_batch, why = best_micro_batch(ways, groups, device)
    found: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "prompts": m,
        "rollouts": n,
        "tokens": {"sampled": width - width // 4, "all": width},
        "computes_in": str(half).removeprefix("torch."),
        "micro_batch": micro_batch,
        "checkpointing": checkpointing,
        "ways": {},
    }
    if why is not None:
        found["error"] = why
    ways.at_once = micro_batch
    for name in WAYS if why is None else ():
        found["ways"][name] = measured(partial(ways.work, name, groups), options)
        release()
        print(f"{name}: {found['ways'][name]}", flush=True)
    if why is None:
        found["engine"] = ways.engine("auto").said
    written(options.out, in_ratios(found))
    if wrong := faults(found):
        sys.exit(wrong)


def faults(found: dict[str, Any]) -> str:
    """Errors of the guard, and of what it is compared with, other than a lack of memory."""
    errors = {"all of it": found.get("error")}
    said = found.get("engine", "")
    if "autograd" in said or "because" in said:  # every layer of a Llama is known
        errors["engine"] = said
    errors |= {name: found["ways"].get(name, {}).get("error") for name in WAYS}
    return "; ".join(f"{name}: {e}" for name, e in errors.items() if e not in (None, MEMORY))


def measured(work: Callable[[], Any], options: argparse.Namespace) -> dict[str, Any]:
    """Least seconds of several, once warm, and peaks beside what was there before.

    The first time a guard compares its layers with autograd, once in a run.
    """
    found: dict[str, Any] = {}

    def all_of_it() -> None:
        found["first_peak_bytes"] = peak_memory(work, options.device)
        found["seconds"] = min(seconds(work, options.device) for _ in range(options.repeats))
        found["peak_bytes"] = peak_memory(work, options.device)

    why = tried(all_of_it)
    return found if why is None else {"error": why}


def in_ratios(found: dict[str, Any]) -> dict[str, Any]:
    """With each way's time, and extra peak, in units of the plain one."""
    ways = found["ways"]
    plain = ways.get("batched", {"error": "not run"})
    if "error" in plain:
        return found
    step = 12 * found["parameters"] + plain["peak_bytes"]  # weights and Adam's moments in float32
    scoring = ways.get("scoring", {}).get("seconds")
    for name, way in ways.items():
        if "error" not in way:
            way["time"] = round(way["seconds"] / plain["seconds"], 3)
            way["extra_peak"] = round((way["peak_bytes"] - plain["peak_bytes"]) / step, 4)
            beside = 0.0 if name == "guard" else scoring
            if beside is not None and name not in ("batched", "scoring"):
                way["with_log_probs"] = round((way["seconds"] + beside) / plain["seconds"], 3)
    return found


def written(path: Path | None, found: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", choices=["0.5B", "1.5B"], default="0.5B")
    parser.add_argument("--tokens", type=int, choices=[512, 2048], default=512, help="sampled")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=Path)
    warnings.simplefilter("ignore")
    cell(parser.parse_args())


if __name__ == "__main__":
    main()
