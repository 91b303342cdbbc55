"""Many rollouts of a few prompts from a start policy, scored under where training takes it.

The start solves about two in five long sums. Training from there is plain policy gradient on the
pass@8 objective, at three learning rates; weights are kept at some steps. Each later policy also
samples for itself: what it solves, and how likely the start thought it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from field import long_sums
from field.language import learn, make_model, make_tokenizer
from field.problems import Task
from torch import Tensor

from passk_guard import HFPolicy, PassKObjective
from passk_guard.rollouts.group import RolloutGroup, stacked
from passk_guard.rollouts.scores import score_all
from passk_guard.rollouts.verified_policy import VerifiedPolicy

K, N = 8, 16
GROUPS = 16  # prompts in a training step, of N rollouts each
BATCH = 32  # of warm-up
TASK = Task("long sums", long_sums.draw, long_sums.verify, long_sums.LONGEST, 1e-4)


def odd(completions: list[str], **_: Any) -> list[float]:
    """For a toy: a model that has learned nothing is right at times."""
    return [float(len(completion) % 2) for completion in completions]


Groups = list[RolloutGroup]


@dataclass(frozen=True)
class Size:
    """How much of everything.

    Attributes:
        stages: of the warm-up: most terms of a sum, or 0 for long sums; steps; learning rate.
        prompts, rollouts: of the start's bank.
        wide: prompts of a second bank, with 16 rollouts of each.
        fresh: rollouts that each later policy samples of each prompt.
        runs: by learning rate, the steps of training after which weights are kept.
        draws: simulated measurements.
        task: what is solved.
    """

    stages: tuple[tuple[int, int, float], ...] = (
        (5, 1500, 2e-3),
        (10, 700, 2e-3),
        (0, 250, 1e-3),
        (0, 150, 1e-3),
        (0, 500, 2e-3),
        (0, 400, 1e-3),
        (0, 400, 1e-3),
        (0, 250, 1e-3),
        (0, 500, 2e-3),
    )
    prompts: int = 192
    rollouts: int = 128
    wide: int = 1536
    fresh: int = 24
    runs: tuple[tuple[float, tuple[int, ...]], ...] = (
        (1e-5, (5, 10, 20, 40)),
        (1e-4, (5, 10, 20)),
        (3e-4, (5,)),
    )
    draws: int = 1000
    task: Task = TASK


FULL = Size()
QUICK = Size(
    stages=((5, 3, 2e-3), (0, 3, 2e-3)),
    prompts=24,
    rollouts=32,
    wide=40,
    fresh=16,
    runs=((3e-4, (1, 2)),),
    draws=20,
    task=replace(TASK, verify=odd, longest=24),
)


@dataclass(frozen=True)
class Later:
    """A later policy.

    Attributes:
        rate, step: of training.
        after: ``(n, L)`` log-probs of the start's bank under it, by prompt.
        success: ``(prompts, fresh)`` of its own rollouts.
        shift: ``(prompts, fresh)`` log-prob of each under it less that under the start.
    """

    rate: float
    step: int
    after: list[Tensor]
    success: Tensor
    shift: Tensor


def kept(path: Path, make: Any) -> Any:
    """What a file holds; made where there is none."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partly = path.with_suffix(".part")
        torch.save(make(), partly)
        partly.rename(path)
    return torch.load(path, weights_only=False)


def start(cache: Path, size: Size) -> tuple[Any, Any]:
    """Model and tokenizer after warm-up, which begins with short sums: steps are learned there."""
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, 0, hidden=128, layers=2, positions=256)

    def weights() -> dict[str, Tensor]:
        torch.manual_seed(0)
        for most, steps, lr in size.stages:
            short = long_sums.short_rows(20_000, most) if most else None
            rows = short or size.task.rows("training", 6000, 0)
            learn(model, tokenizer, rows, steps=steps, lr=lr, batch=BATCH)
        return model.state_dict()

    model.load_state_dict(kept(cache / "start.pt", weights))
    return model.eval(), tokenizer


def policy_of(model: Any, tokenizer: Any, size: Size) -> HFPolicy:
    longest = size.task.longest
    return HFPolicy(model, tokenizer, max_completion_length=longest, rollouts_at_once=256)


def sampled(policy: HFPolicy, rows: Sequence[Any], n: int, seed: int, size: Size) -> Groups:
    """Verified rollouts, in the order of the rows."""
    torch.manual_seed(seed)
    return VerifiedPolicy(policy, size.task.verify).generate(rows, list(range(len(rows))), n)


def bank_rows(size: Size, prompts: int, seed: int = 0) -> list[dict[str, Any]]:
    """By length: little is padding when they are sampled and scored together."""
    rows = size.task.rows("pool", prompts, seed)
    return sorted(rows, key=lambda row: len(row["solution"]))


def start_bank(cache: Path, size: Size) -> tuple[Groups, list[Tensor]]:
    """The start's rollouts, and their log-probs."""
    rows = bank_rows(size, size.prompts)

    def bank() -> Any:
        policy = policy_of(*start(cache, size), size)
        groups = sampled(policy, rows, size.rollouts, 1, size)
        return groups, score_all(policy, groups)

    return kept(cache / "bank.pt", bank)


def wide_bank(cache: Path, size: Size) -> Groups:
    """The start's rollouts of many prompts, no more than a probe takes of each."""

    def bank() -> Groups:
        policy = policy_of(*start(cache, size), size)
        return sampled(policy, bank_rows(size, size.wide, 1), N, 2, size)

    return kept(cache / "wide.pt", bank)


def later(cache: Path, size: Size, rate: float, step: int) -> Later:
    """A later policy's view of the start's bank, and its own rollouts."""

    def found() -> Later:
        groups, _ = start_bank(cache, size)
        first, now = (policy_of(*start(cache, size), size) for _ in range(2))
        now.model.load_state_dict(trained(cache, size, rate, step))
        rows = bank_rows(size, size.prompts)
        own = sampled(now, rows, size.fresh, 100 + step, size)
        pairs = zip(score_all(now, own), score_all(first, own), strict=True)
        shift = torch.stack([(new - old).double().sum(-1) for new, old in pairs])
        success = torch.stack([group.success for group in own])
        return Later(rate, step, score_all(now, groups), success, shift)

    return kept(cache / f"later-{rate:g}-{step}.pt", found)


def trained(cache: Path, size: Size, rate: float, after: int) -> dict[str, Tensor]:
    """Weights after some steps with a learning rate."""
    steps = dict(size.runs)[rate]

    def found() -> dict[int, dict[str, Tensor]]:
        policy = policy_of(*start(cache, size), size)
        rows = size.task.rows("training", 4096, 1)
        optimizer = torch.optim.Adam(policy.model.parameters(), lr=rate)
        generator, weights = torch.Generator().manual_seed(0), {}
        for step in range(1, max(steps) + 1):
            pick = torch.randint(len(rows), (GROUPS,), generator=generator).tolist()
            update(policy, sampled(policy, [rows[i] for i in pick], N, 1000 + step, size))
            optimizer.step()
            optimizer.zero_grad()
            if step in steps:
                state = policy.model.state_dict()
                weights[step] = {name: value.clone() for name, value in state.items()}
        return weights

    weights: dict[str, Tensor] = kept(cache / f"trained-{rate:g}.pt", found)[after]
    return weights


def update(policy: HFPolicy, groups: Groups) -> None:
    """The pass@8 gradient of a batch, into ``.grad``."""
    advantages = PassKObjective(K)(torch.stack([group.success for group in groups])).flatten()
    tokens = stacked(groups)
    for part in advantages.nonzero().squeeze(-1).split(64):  # the others give nothing
        if len(part):  # where nothing is learned from any prompt there is one empty part
            scores = policy.log_probs(*(t[part] for t in tokens)).sum(-1)
            (-(advantages[part] * scores).sum() / len(advantages)).backward()
