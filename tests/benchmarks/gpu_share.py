"""What does a cost budget come to on a GPU, in a real ``GRPOTrainer``? See ``tests/gpu/run.py``.

    python tests/benchmarks/gpu_share.py --budget 0.02
    python tests/benchmarks/gpu_share.py --device cpu --tiny    # does it run?

By a clock around every call into the guard, on a Llama of 134 M parameters from a config, whose
rollouts a toy verifier calls right half of the time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from bench import ROOT

# isort: split
import ambiguous_arithmetic as task
import torch
from gpu_cost import half_precision, written
from gradient_ways import make_model
from transformers import TrainerCallback
from trl_runs import make_trainer

from passk_guard.integrations.trl import PassKGuardCallback


class Clocked(PassKGuardCallback):
    """Adds up the wall time of every call into the callback.

    Before its clock starts, a GPU has done what training had queued.
    """

    spent = 0.0

    def _clocked(self, event: str, *args: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        start = time.perf_counter()
        getattr(super(), event)(*args, **kwargs)
        self.spent += time.perf_counter() - start

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.began = time.perf_counter()
        self._clocked("on_train_begin", *args, **kwargs)

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self._clocked("on_step_end", *args, **kwargs)

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self._clocked("on_train_end", *args, **kwargs)
        self.total = time.perf_counter() - self.began


def even(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """The toy verifier: half of all rollouts are right, whatever the model says."""
    return [float(sum(ids) % 2 == 0) for ids in completion_ids]


def share(options: argparse.Namespace) -> None:
    """A real run under a budget, for so many seconds."""

    class Until(TrainerCallback):
        """Ends the run in time."""

        def on_step_end(self, args, state, control, **kwargs):
            if time.monotonic() - began > options.seconds:
                control.should_training_stop = True

    hidden, layers, vocabulary = (64, 2, 512) if options.tiny else (768, 12, 32_000)
    length = 4 if options.tiny else 64
    tokenizer = task.make_tokenizer()
    model = make_model(hidden, layers, vocabulary, positions=length + 16)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    trainer = make_trainer(
        ROOT / "build" / "gpu-share",
        steps=6 if options.tiny else 2000,
        model=model.train(),
        tokenizer=tokenizer,
        rows=task.make_rows(4096),
        reward_funcs=even,
        per_device_train_batch_size=32,
        num_generations=8,
        max_completion_length=length,
        learning_rate=1e-6,
        logging_steps=10_000,
        use_cpu=options.device == "cpu",
        bf16=half_precision(options.device) is torch.bfloat16,
    )
    callback = Clocked(
        trainer,
        prompts=task.make_rows(1024, seed=9),
        k=4,
        num_generations=8,
        reference_prompts=16,
        max_overhead=options.budget,
    )
    began = time.monotonic()
    trainer.add_callback(callback)
    trainer.add_callback(Until())
    trainer.train()
    guard = callback.guard
    later = sorted(probe.seconds for probe in guard.history[1:])
    found = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "budget": options.budget,
        "share": round(callback.spent / callback.total, 4),
        "as_logged": round(guard.overhead, 4),
        "steps": trainer.state.global_step,
        "step_seconds": round(guard.schedule.step_seconds or 0.0, 3),
        "first_look_seconds": round(guard.history[0].seconds, 2) if guard.history else None,
        "probe_seconds": round(later[len(later) // 2], 2) if later else None,
        "probes": len(guard.history),
        "rescorings": len(guard.rescores),
        "lost": len(guard.failures),
        "engine": guard._prober.gradients.said,
    }
    print(json.dumps(found, indent=1))
    written(options.out, found)
    if guard.failures:
        sys.exit(f"a probe was lost: {guard.failures[0].reason}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--budget", type=float, default=0.02)
    parser.add_argument("--seconds", type=float, default=200, help="of the run")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=Path)
    share(parser.parse_args())


if __name__ == "__main__":
    main()
