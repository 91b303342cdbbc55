"""Do the engines come to the same verdicts? The same probes through each, one table.

    python tests/benchmarks/engines.py        # about five minutes on one core

Pass@8 training on ambiguous arithmetic in a plain loop, watched by three guards with the same seed,
so that all of them see the same rollouts: one backward per prompt, watched layers with whole
gradients, and watched layers with sketches. What may differ is rounding, and the sketches' error.

Then the same task in a ``GRPOTrainer``: what a probe and the first look cost in training steps, and
how many probes a budget of 2 % buys in a thousand steps. Sampling and verifying are in it, which no
engine changes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import ambiguous_arithmetic as task
from arithmetic_loop import ArithmeticPolicy, train, warmed_up

from passk_guard import HeldOutPool, PassKGuard, PassKGuardConfig, PassKObjective

RESULTS = Path(__file__).parent / "results" / "engines.json"
ENGINES: dict[str, dict[str, Any]] = {
    "backward": {"engine": "backward"},
    "hooks": {"engine": "hooks"},
    "sketched": {"engine": "hooks", "memory_limit": 2**24},
}


def compare(seed: int, lr: float, steps: int, every: int, out: Path) -> dict[str, Any]:
    """One run under three guards: what each of them saw."""
    policy = ArithmeticPolicy(*warmed_up(seed, out))
    rows = task.make_rows(1024, seed=10_000 + seed)
    objective = PassKObjective(k=8)
    guards, seconds = {}, dict.fromkeys(ENGINES, 0.0)
    for name, settings in ENGINES.items():
        config = PassKGuardConfig(k=8, every=every, seed=seed, watch="target_k", **settings)
        guards[name] = PassKGuard(
            policy, HeldOutPool(rows, seed), config, isolation=policy.isolated, say=lambda _: None
        )

    def look(step: int) -> None:
        for name, guard in guards.items():
            if (due := guard.due(step)) is not None:
                start = time.process_time()
                guard.run(due, step)
                seconds[name] += time.process_time() - start

    train(policy, objective, products=0.3, steps=steps, lr=lr, seed=seed, before_step=look)
    return {
        name: {
            "z": [round(probe.alignment.z, 4) for probe in guard.history],
            "alarms": [
                [probe.step, sorted(map(str, probe.alarm.fired))]
                for probe in guard.history
                if probe.alarm
            ],
            "change": [round(probe.track.change, 6) for probe in guard.history],
            "first_z": round(guard.history[0].first.z, 4),
            "seconds": round(seconds[name], 1),
            "gradients": guard._prober.gradients.said,
        }
        for name, guard in guards.items()
    }


def differences(run: dict[str, Any]) -> dict[str, float]:
    """The largest difference of a z from one backward per prompt."""
    return {
        name: max(abs(a - b) for a, b in zip(run[name]["z"], run["backward"]["z"], strict=True))
        for name in run
    }


def budget(engine: str, seed: int, out: Path) -> dict[str, float]:
    """What looks cost in a real trainer, in training steps."""
    from passk_guard.integrations.trl import PassKGuardCallback

    model, tokenizer = warmed_up(seed, out)
    trainer = task.make_trainer(
        *(model, tokenizer),
        steps=60,
        learning_rate=1e-5,
        out=str(out / engine),
        seed=seed,
        report_to="none",
        disable_tqdm=True,
        logging_steps=10_000,
    )
    rows = task.make_rows(1024, seed=10_000 + seed)
    callback = PassKGuardCallback(trainer, prompts=rows, k=8, every=5, engine=engine, seed=seed)
    trainer.add_callback(callback)
    trainer.train()
    step = callback.guard.schedule.step_seconds
    looks = [probe.seconds / step for probe in callback.guard.history]
    probe = sorted(looks[1:])[len(looks) // 2]
    return {"probe": probe, "first": looks[0], "probes": 0.75 * 0.02 * 1000 / probe}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[20, 21, 22])
    parser.add_argument("--lrs", nargs="+", type=float, default=[5e-6, 1e-5, 3e-5])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("runs/engines"))
    parser.add_argument("--only", choices=["verdicts", "costs"])
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if options.only != "costs":
        results["runs"] = verdicts(options)
    if options.only != "verdicts":
        results["costs"] = costs(options)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def verdicts(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Print and give what each engine saw in each run."""
    found = []
    print("| seed, lr | engine | alarms | largest difference of z | first z | time of looks |")
    print("|---|---|---|---|---|---|")
    for seed in options.seeds:
        for lr in options.lrs:
            run = compare(seed, lr, options.steps, 10, options.out)
            found.append({"seed": seed, "lr": lr, **run})
            for name, value in differences(run).items():
                alarms = ", ".join(
                    f"{step} {'+'.join(kinds)}" for step, kinds in run[name]["alarms"]
                )
                share = run[name]["seconds"] / run["backward"]["seconds"]
                print(
                    f"| {seed}, {lr:g} | {name} | {alarms or 'none'} | {value:.4f} | "
                    f"{run[name]['first_z']:.2f} | {share:.2f} |",
                    flush=True,
                )
    return found


def costs(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Print and give what looks cost in a trainer."""
    found = {engine: budget(engine, 20, options.out) for engine in ("backward", "hooks")}
    print(
        "\n| engine | a probe | the first look | probes in 1000 steps at 2 % |\n|---|---|---|---|"
    )
    for engine, cost in found.items():
        print(f"| {engine} | {cost['probe']:.1f} | {cost['first']:.1f} | {cost['probes']:.1f} |")
    return {e: {name: round(v, 2) for name, v in cost.items()} for e, cost in found.items()}


if __name__ == "__main__":
    main()
