"""Looks replayed on the weights of watched runs, beside a plain evaluation: errors and alarms.

    python tests/benchmarks/field/replay.py            # hours on two cores; can be stopped
    python tests/benchmarks/field/replay.py --table    # of what is there

Watching changes nothing, so a run's course does not depend on the guard: pass@8 training of each
task is made once, its weights are kept at every look, and any design of a look can be tried on them
in minutes. The truth is 48 samples of each of the guard's own 512 prompts at the start and 12 at
every look; its error is counted. The plain evaluation solves the same prompts three times at every
look, the first one included: 16,896 rollouts, where the guard has 16,384.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import bench

# isort: split
import argparse
import json
import tempfile
import warnings
from typing import Any

import numpy as np
import torch
from field.problems import Task
from field.recorded import file_name
from field.runs import ARMS, K, make_policy, make_trainer, read
from field.sizes import FULL, TASKS, Size
from field.warm_up import warmed_up
from rules import PlainLook, plain_alarms, plain_change
from transformers import TrainerCallback

from passk_guard import HeldOutPool, PassKGuard, PassKGuardConfig, PassKObjective
from passk_guard.integrations.trl import PassKGuardCallback
from passk_guard.rollouts.verified_policy import VerifiedPolicy
from passk_guard.runtime.isolation import isolated

RESULT = bench.RESULTS / "field_replay.json"
MANY, FEW, PLAIN = 48, 12, 3  # samples of each prompt


class Keep(TrainerCallback):
    """Writes the weights at every look."""

    def __init__(self, folder: Path, every: int) -> None:
        self.folder, self.every = folder, every

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step % self.every == 0:
            torch.save(model.state_dict(), self.folder / f"{state.global_step}.pt")


def trained(task: Task, seed: int, cache: Path, size: Size) -> Path:
    """A folder with the weights of pass@8 training; made where it is not there."""
    folder = cache / f"{file_name(task.name)}-{seed}-watched-steps"
    if (folder / f"{size.steps}.pt").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    model, tokenizer = warmed_up(task, seed, cache, size)
    torch.save(model.state_dict(), folder / "0.pt")
    with tempfile.TemporaryDirectory() as out, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = make_trainer(task, seed, model, tokenizer, size, Path(out))
        trainer.add_callback(Keep(folder, size.every))
        few = {"reference_prompts": 4, "every": 10**6, "journal": False}  # installs the objective
        pool = task.rows("pool", size.pool, 0)
        trainer.add_callback(
            PassKGuardCallback(trainer, prompts=pool, k=K, **few, **ARMS["watched"])
        )
        trainer.train()
    return folder


def truths(task: Task, seed: int, folder: Path, cache: Path, size: Size) -> dict[str, Any]:
    """Right samples of each of the guard's prompts at every look, and the plain evaluation's."""
    path = folder / "truth.json"
    if not path.exists():
        model, tokenizer = warmed_up(task, seed, cache, size)
        pool = task.rows("pool", size.pool, 0)
        ids, _ = HeldOutPool(pool, seed).reference(size.reference_prompts)
        rows, record = [pool[i] for i in ids], {"ids": ids, "truth": {}, "plain": {}}
        for step in range(0, size.steps + 1, size.every):
            model.load_state_dict(torch.load(folder / f"{step}.pt"))
            n = FEW if step else MANY
            record["truth"][step] = [n, read(model, tokenizer, task, rows, n, 5_000_000 + step)]
            record["plain"][step] = read(model, tokenizer, task, rows, PLAIN, 6_000_000 + step)
        path.write_text(json.dumps(record))
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def replay(task: Task, seed: int, cache: Path, size: Size, **settings: Any) -> dict[str, Any]:
    """The guard's looks on kept weights, against truth and plain evaluation."""
    folder = trained(task, seed, cache, size)
    record = truths(task, seed, folder, cache, size)
    model, tokenizer = warmed_up(task, seed, cache, size)
    policy = VerifiedPolicy(make_policy(model, tokenizer, task), task.verify)
    pool = task.rows("pool", size.pool, 0)
    sizes = {"reference_prompts": size.reference_prompts, "every": size.every, "seed": seed}
    guard = PassKGuard(
        policy,
        HeldOutPool(pool, seed),
        PassKGuardConfig(k=K, **{**sizes, **settings}),
        isolation=lambda at: isolated(model, seed=at),
        objective=PassKObjective(K),
        is_main=False,
    )
    plain = [PlainLook(int(s), np.array(c), PLAIN) for s, c in record["plain"].items()]
    first_n, first = record["truth"]["0"][0], np.array(record["truth"]["0"][1])
    looks = []
    for at, step in enumerate(range(0, size.steps + 1, size.every)):
        model.load_state_dict(torch.load(folder / f"{step}.pt"))
        probe = guard.probe(step)
        assert probe is not None, guard.failures
        assert list(probe.row_ids) == record["ids"]
        n, now = record["truth"][str(step)][0], np.array(record["truth"][str(step)][1])
        noise = sum(
            float((c * (of - c)).mean()) / (of**2 * (of - 1) * len(c))
            for c, of in ((first, first_n), (now, n))
        )
        own = guard._prober.levels._tracks[None].now()
        looks.append(
            {
                "step": step,
                "truth": [float((now / n - first / first_n).mean()), noise**0.5 if at else 0.0],
                "ours": [own.change, own.change_se],
                "in the pool": [probe.track.change, probe.track.change_se],
                "plain": plain_change(plain[0], plain[at]),
                "alarm": None if probe.alarm is None else [str(kind) for kind in probe.alarm.fired],
                "cause": None if probe.cause is None else str(probe.cause),
                "rescored": None if probe.drift is None else probe.drift.rescored,
                "z": None if probe.cosine is None else round(probe.cosine.z, 2),
            }
        )
    return {
        "task": task.name,
        "seed": seed,
        "looks": looks,
        "plain_alarms": [step for step, _ in plain_alarms(plain, len(pool))],
    }


def table(found: list[dict[str, Any]]) -> str:
    lines = [
        "| task | end (most lost) | first alarm (lost) | plain alarm | error | plain "
        "| over stated |",
        "|---" * 7 + "|",
    ]
    for run in found:
        looks = run["looks"]
        lost = {look["step"]: -100 * look["truth"][0] for look in looks}

        def told(step: int | None, lost: dict[int, float] = lost) -> str:
            return "none" if step is None else f"{step} ({lost[step]:.1f})"

        alarms = [x["step"] for x in looks if x["alarm"]]
        errors = {
            name: np.array(
                [[x[name][0] - x["truth"][0], x[name][1], x["truth"][1]] for x in looks[1:]]
            )
            for name in ("ours", "plain")
        }
        rms = {
            name: max(float((e[:, 0] ** 2 - e[:, 2] ** 2).mean()), 0.0) ** 0.5
            for name, e in errors.items()
        }
        e = errors["ours"]
        z = float((e[:, 0] ** 2 / (e[:, 1] ** 2 + e[:, 2] ** 2)).mean()) ** 0.5
        cells = [
            run["task"],
            f"{-lost[looks[-1]['step']]:+.1f} ({max(lost.values()):.1f})",
            told(min(alarms, default=None)),
            told(min(run["plain_alarms"], default=None)),
            *(f"{100 * rms[name]:.2f}" for name in rms),
            f"{z:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--cache", type=Path, default=Path("runs/field"), help="weights and truths")
    parser.add_argument("--table", action="store_true", help="run nothing")
    options = parser.parse_args()
    found = json.loads(RESULT.read_text()) if RESULT.exists() else []
    done = {(run["task"], run["seed"]) for run in found}
    for seed in [] if options.table else options.seeds:
        for name in options.tasks:
            if (name, seed) not in done:
                found.append(replay(TASKS[name], seed, options.cache, FULL))
                bench.write(RESULT.name, found)
                print(table(found[-1:]), flush=True)
    print(table(found))


if __name__ == "__main__":
    main()
