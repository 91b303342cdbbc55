"""When does the alarm come, and does it keep quiet where it should? One table over real runs.

    python tests/benchmarks/alarms.py

Runs of a plain torch loop with ``PassKObjective`` and the guard's defaults (``every=10``). The
truth is enumerated, not sampled. Every rule of ``rules.py`` is replayed on the probes of each run,
so that all see the same rollouts; ``today`` is read off the run. Each alarm is told with the points
of pass@1 truly lost by then and its cause. Finished runs are kept in
``results/alarms.csv`` and not repeated: delete its rows to run them again. A run takes half a
minute and more on one core.

* ``conflict``, at three learning rates: pass@8 training on ambiguous arithmetic; pass@1 falls.
  A seed's first look is the same at all of them. ``conflict, Adam``: the same with
  ``metric="adam"``, which there is none of at step 0, so that look is the same, too.
* ``healthy``: pass@8 training where every row wants the sum. ``fast healthy`` and ``too fast``: at
  10 and 30 times the learning rate, where pass@1 falls although the update does not oppose it, and
  on prompts that were always solved: their stored rollouts show no change. It is seen late or not.
* ``pass@1``: pass@1 training on the conflict task; pass@1 rises, although a pass@8 step would lower
  it. ``plateau``: the same after it has converged, pass@1 wanders around a flat mean.

Beside the guard a plain evaluation: the same prompts, as many rollouts in all and a few more, three
of each at every look, the change being the mean of paired differences, with the same chance of a
false alarm. Errors are rms ones on these very prompts, over all looks after the first.

Of the guard nothing was chosen on seeds 20 to 24.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

from bench import FinishedRuns

# isort: split
import ambiguous_arithmetic as task
import numpy as np
import torch
from arithmetic_loop import ArithmeticPolicy, train, warmed_up
from rules import PLAIN, RULES, PlainLook, plain_alarms, plain_change
from tables import alarms, errors

from passk_guard import HeldOutPool, PassKGuard, PassKGuardConfig, PassKObjective

K = 8
_PLAIN = 3  # rollouts of each prompt, at every look of a plain evaluation
_CONFLICT = {"products": 0.3, "seeds": range(20, 25)}
_HEALTHY = {"products": 0.0}
_PASS1 = {"products": 0.3, "pass1_weight": 1.0}
RUNS: dict[str, dict[str, Any]] = {
    "conflict 5e-6": {**_CONFLICT, "lr": 5e-6, "steps": 200},
    "conflict 1e-5": {**_CONFLICT, "lr": 1e-5, "steps": 120},
    "conflict 3e-5": {**_CONFLICT, "lr": 3e-5, "steps": 50},
    "conflict, Adam": {
        **_CONFLICT,
        "lr": 1e-5,
        "steps": 120,
        "metric": "adam",
        "seeds": range(20, 22),
    },
    "healthy": {**_HEALTHY, "lr": 1e-5, "steps": 200, "seeds": range(20, 25)},
    "fast healthy": {**_HEALTHY, "lr": 1e-4, "steps": 200, "seeds": range(20, 23)},
    "too fast": {**_HEALTHY, "lr": 3e-4, "steps": 100, "seeds": range(20, 23)},
    "pass@1": {**_PASS1, "lr": 1e-5, "steps": 200, "seeds": range(20, 25)},
    "plateau": {
        **_PASS1,
        "lr": 3e-5,
        "steps": 600,
        "every": 5,
        "settle": 400,
        "seeds": range(20, 22),
    },
}


class Run:
    """One run under the guard, which only warns."""

    def __init__(self, name: str, seed: int, cache: Path) -> None:
        self.setting = setting = RUNS[name]
        self.seed, self.truth = seed, dict[int, tuple[float, float]]()
        self.policy = ArithmeticPolicy(*warmed_up(seed, cache))
        self.objective = PassKObjective(K)
        self.objective.pass1_weight = setting.get("pass1_weight", 0.0)
        if setting.get("settle"):
            self._train(setting["settle"], 1e-4, 100 + seed, lambda step: None)
        self.every = setting.get("every", 10)
        config = PassKGuardConfig(
            k=K,
            every=self.every,
            seed=seed,
            metric=setting.get("metric", "euclidean"),
        )
        rows = task.make_rows(1024, products=setting["products"], seed=10_000 + seed)
        self.in_pool, self.pool = dict[int, np.ndarray](), self.policy.encode(rows)
        self.rows_of, self.plain, self.own_se = rows, list[PlainLook](), list[float]()
        self.guard = PassKGuard(
            self.policy,
            HeldOutPool(list(rows), seed),
            config,
            isolation=self.policy.isolated,
            objective=self.objective,
            optimizer=lambda: self.optimizer,
            is_main=False,
        )
        self._train(setting["steps"], setting["lr"], seed, self._look)

    def _train(self, steps: int, lr: float, seed: int, before_step: Any) -> None:
        train(
            self.policy,
            self.objective,
            products=self.setting["products"],
            steps=steps,
            lr=lr,
            seed=seed,
            before_step=before_step,
            hand_out=lambda optimizer: setattr(self, "optimizer", optimizer),
        )

    def _look(self, step: int) -> None:
        if step % self.every == 0:
            model, tokenizer = self.policy.model, self.policy.tokenizer
            products = self.setting["products"]
            self.truth[step] = task.exact_pass_at_1(model, tokenizer, products=products)
            self.in_pool[step] = self._pool_pass_at_1()
            ids = self.guard.probe(step).row_ids
            self.own_se.append(self.guard._prober.levels._tracks[None].now().change_se)
            with self.policy.isolated(10**6 + 1000 * self.seed + step):
                groups = self.policy.generate([self.rows_of[i] for i in ids], ids, _PLAIN)
            self.plain.append(PlainLook(step, np.array([g.correct for g in groups]), _PLAIN))

    @torch.no_grad()
    def _pool_pass_at_1(self) -> np.ndarray:
        ids, answers = torch.cat(self.pool, 1), self.pool[1]
        scores = self.policy.model(input_ids=ids).logits[:, -3:-1].log_softmax(-1)
        return scores.gather(-1, answers[..., None]).sum((1, 2)).exp().numpy()

    def rows(self) -> list[dict[str, Any]]:
        history = self.guard.history
        assert len(history) == len(self.truth), self.guard.failures
        ones, eights = zip(*self.truth.values(), strict=True)
        ids, start = list(history[0].row_ids), self.in_pool[0]
        moved = [self.in_pool[p.step] - start for p in history[1:]]
        off = np.array(
            [p.track.change - d[ids].mean() for p, d in zip(history[1:], moved, strict=True)]
        )
        off_pool = np.array(
            [p.track.change - d.mean() for p, d in zip(history[1:], moved, strict=True)]
        )
        plain = [plain_change(self.plain[0], look)[0] for look in self.plain[1:]]
        off_plain = np.array(plain) - [d[ids].mean() for d in moved]
        said = np.array(self.own_se[1:]), np.array([p.track.change_se for p in history[1:]])
        measured = [p.alignment.inner for p in history if p.alignment]
        updates = [p.update_alignment for p in history if p.update_alignment]
        z = [found.inner / found.jackknife_se for found in updates if found.jackknife_se > 0]
        shared = {
            "seed": self.seed,
            "start": f"{ones[0]:.4f}",
            "end": f"{ones[-1]:.4f}",
            "lowest": f"{min(ones):.4f}",
            "start8": f"{eights[0]:.4f}",
            "end8": f"{eights[-1]:.4f}",
            "looks": len(history),
            "negative8": f"{np.mean(np.array(measured) < 0):.2f}",
            "mean_z": f"{np.mean(z):.2f}" if z else "",
            "error": f"{100 * _rms(off):.3f}",
            "plain_error": f"{100 * _rms(off_plain):.3f}",
            "rms_z": f"{_rms(off / said[0]):.2f}",
            "pool_z": f"{_rms(off_pool / said[1]):.2f}",
        }
        rows = []
        found = {rule: alarms_of(history) for rule, alarms_of in RULES.items()}
        found[PLAIN] = plain_alarms(self.plain, len(self.rows_of))
        for rule, raised in found.items():
            told = (f"{s}:{ones[0] - self.truth[s][0]:+.4f}:{cause}" for s, cause in raised)
            rows.append({"rule": rule, **shared, "alarms": " ".join(told)})
        return rows


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, help="by default each run's own")
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--out", type=Path, default=Path("runs/alarms"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    finished = FinishedRuns("alarms.csv", "run", "seed")
    for name in options.only:
        for seed in options.seeds or RUNS[name]["seeds"]:
            if not finished.has(name, seed):
                rows = Run(name, seed, options.out).rows()
                finished.add(*({"run": name, **row} for row in rows))
    print(f"{alarms()}\n\n{errors()}")


if __name__ == "__main__":
    main()
