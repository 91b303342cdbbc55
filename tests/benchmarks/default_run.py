"""The guard with its defaults in a ``GRPOTrainer`` with what real runs have: does it guard?

    python tests/benchmarks/default_run.py

Pass@8 training (``objective="pkpo"``) on ambiguous arithmetic under the default budget of 2 % of
wall time. The trainer has its own defaults (clipping at ε = .2, group-scaled rewards,
``loss_type="dapo"``, a learning rate of 1e-6) and warm-up, cosine decay, every batch used for two
optimizer steps (``num_iterations=2``), and a KL penalty (``beta=0.02``). The truth is enumerated
every fifty steps. Finished runs are kept in ``results/default_run.json`` and not repeated: delete
them there to run them again. A run takes nine minutes on a busy core. Most of the budget goes into
the first look and the reference, so looks are rare after it, and what they cost decides when the
alarm comes: at steps 623 to 913 on machines that were more or less busy, at 3 to 6 points.

``results/default_run_long.json`` is three times as long (``--steps 12000 --actions mix --seeds 30
--results``), so that the same share buys nine probes.

What "the update in force" is in such a run: the policy-gradient part of the loss, to first order,
where the policy is the one that sampled: the *first* of the two steps on a batch. There all ratios
are 1 and clipping binds on no token; prompt weights tell that gradient (answers have two tokens, so
``dapo``'s mean over tokens is one over rollouts). What they do not tell:

* the second step on a batch. It weighs the same rollouts, some of them clipped, at a policy that
  has moved on. At learning rates at which little is clipped it is nearly the first one again.
* the KL penalty. Its gradient is zero where training starts and pulls back there later, which is
  where pass@1 was not lost yet. So the inner product may still oppose pass@1 where the penalty
  holds the policy already; at ``beta=0.02`` and these distances that is far off.
* Adam's momentum and preconditioner (but for ``metric="adam"``), gradient clipping, and how large
  the step is.

The paired drift, the level and the controller's model see what training *does*, whatever it is made
of: both steps, clipping, KL, Adam.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

from bench import RESULTS

# isort: split
import ambiguous_arithmetic as task
from arithmetic_loop import warmed_up
from tables import with_defaults
from transformers import LlamaForCausalLM, TrainerCallback

from passk_guard.integrations.trl import PassKGuardCallback

EVERY = 50


class Truth(TrainerCallback):
    """Enumerated pass@1 and pass@8, and λ, every fifty steps."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.values = tokenizer, dict[int, tuple[float, float, float]]()
        self.guard: Any = None

    def _look(self, step: int, model: Any) -> None:
        weight = 0.0 if self.guard is None else self.guard.pass1_weight
        self.values[step] = (*task.exact_pass_at_1(model, self.tokenizer), weight)

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self._look(0, model)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step % EVERY == 0:
            self._look(state.global_step, model)


def one_run(action: str, seed: int, steps: int, lr: float, out: Path) -> dict[str, Any]:
    model, tokenizer = warmed_up(seed, out)
    start = out / f"start-{seed}"  # the KL penalty's reference is loaded from there
    model.save_pretrained(start)
    trainer = task.make_trainer(
        LlamaForCausalLM.from_pretrained(start),
        tokenizer,
        steps=steps,
        learning_rate=lr,
        out=str(out / "trainer"),
        seed=seed,
        lr_scheduler_type="cosine",
        warmup_steps=steps // 20,
        num_iterations=2,
        beta=0.02,
        report_to="none",
        disable_tqdm=True,
        logging_steps=10_000,
    )
    truth = Truth(tokenizer)
    trainer.add_callback(truth)
    rows = task.make_rows(1024, seed=10_000 + seed)
    callback = PassKGuardCallback(
        trainer, prompts=rows, k=8, objective="pkpo", action=action, seed=seed
    )
    trainer.add_callback(callback)
    truth.guard = callback.guard
    began = time.perf_counter()
    trainer.train()
    guard = callback.guard
    spent = guard.schedule.state_dict()["spent"]
    looks = sorted([*guard.history, *guard.rescores], key=lambda look: look.step)
    ones, eights, weights = zip(*truth.values.values(), strict=True)
    return {
        "action": action,
        "seed": seed,
        "steps": steps,
        "lr": lr,
        "seconds": round(time.perf_counter() - began),
        "probes": [p.step for p in guard.history],
        "rescores": len(guard.rescores),
        "overhead": round(guard.overhead, 4),
        "failures": len(guard.failures),
        "spent": {task: round(seconds, 2) for task, seconds in spent.items()},
        "first_test_z": round(guard.history[0].first.z, 2) if guard.history[0].first else None,
        "alarms": [
            {
                "step": look.step,
                "kinds": [str(k) for k in look.alarm.fired],
                "cause": str(look.alarm.cause),
                "seen": round(look.track.change, 4),
            }
            for look in looks
            if look.alarm
        ],
        "seen": [[p.step, round(p.track.change, 4), round(p.track.change_se, 4)] for p in looks],
        "pass1": [round(v, 4) for v in ones],
        "pass8": [round(v, 4) for v in eights],
        "lambda": [round(v, 3) for v in weights],
        "lambda_end": round(guard.pass1_weight, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[30])
    parser.add_argument("--actions", nargs="+", default=["mix", "warn"])
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--lr", type=float, default=1e-6)
    parser.add_argument("--out", type=Path, default=Path("runs/default_run"))
    parser.add_argument("--results", type=Path, default=RESULTS / "default_run.json")
    options = parser.parse_args()
    runs = json.loads(options.results.read_text()) if options.results.exists() else []
    for seed in options.seeds:
        for action in options.actions:
            if any((run["action"], run["seed"]) == (action, seed) for run in runs):
                continue
            runs.append(one_run(action, seed, options.steps, options.lr, options.out))
            options.results.write_text(json.dumps(runs) + "\n")
            print(json.dumps(runs[-1]), flush=True)
    print(with_defaults())


if __name__ == "__main__":
    warnings.simplefilter("default")
    main()
