"""How large the study is: in full on two cores, at toy size, and as a GPU would have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from field.countdown import Countdown
from field.expressions import Expressions
from field.multiplication import Multiplication
from field.problems import Task
from field.tasks import TASKS, with_wrong_labels


@dataclass(frozen=True)
class Size:
    """How much of everything.

    Attributes:
        tasks: by name.
        steps: of training, 16 prompts x 16 rollouts each.
        every: steps between probes.
        look: steps between readings of the truth on the way.
        pool, test: held-out prompts of the guard; those of the truth, which nothing else sees.
        reference_prompts: of the guard.
        probe: prompts of the first reading.
        many, few: samples of each test prompt at start and end, and on the way.
        hidden, layers, positions: of the model.
        base: steps of supervised warm-up, by task without wrong labels.
        base_rows: problems that they go over, by the same.
        own, own_wrong: steps that each seed goes on with, on problems of its own.
        warm_batch: solutions per such step.
        at_once: rollouts per backward of the trainer.
        device: "cpu" or "cuda", there in bfloat16.
    """

    tasks: Mapping[str, Task] = field(default_factory=lambda: TASKS)
    steps: int = 100
    every: int = 10
    look: int = 20
    pool: int = 1024
    test: int = 300
    reference_prompts: int = 512
    probe: int = 512
    many: int = 64
    few: int = 16
    hidden: int = 128
    layers: int = 2
    positions: int = 256
    base: Mapping[str, int] = field(
        default_factory=lambda: {"multiplication": 1600, "countdown": 4000, "expressions": 4000}
    )
    base_rows: Mapping[str, int] = field(
        default_factory=lambda: {"multiplication": 6000, "countdown": 12000, "expressions": 20000}
    )
    own: int = 300
    own_wrong: int = 600
    warm_batch: int = 32
    at_once: int = 256
    device: str = "cpu"


FULL = Size()
QUICK = Size(
    steps=4,
    every=2,
    look=2,
    pool=64,
    test=8,
    reference_prompts=8,
    probe=16,
    many=8,
    few=4,
    base=dict.fromkeys(FULL.base, 60),
    base_rows=dict.fromkeys(FULL.base, 500),
    own=4,
    own_wrong=8,
)

# 85 M parameters and solutions of some hundred tokens: ready, and never run for want of a GPU.
_MULTIPLICATION = Multiplication({(7, 5): 0.3, (8, 6): 0.4, (9, 7): 0.3})
_COUNTDOWN = Countdown({5: 0.5, 6: 0.5}, {5: 50, 6: 50}, {5: 14, 6: 12})
_EXPRESSIONS = Expressions(terms=(12, 18), digits=1, largest=100_000)
LARGE = Size(
    tasks=with_wrong_labels(
        Task("multiplication", _MULTIPLICATION.draw, _MULTIPLICATION.verify, 700, 1e-5),
        Task("countdown", _COUNTDOWN.draw, _COUNTDOWN.verify, 700, 1e-5),
        Task("expressions", _EXPRESSIONS.draw, _EXPRESSIONS.verify, 700, 1e-5),
    ),
    steps=300,
    hidden=768,
    layers=12,
    positions=1024,
    base=dict.fromkeys(FULL.base, 6000),
    base_rows=dict.fromkeys(FULL.base, 50_000),
    own=500,
    own_wrong=1000,
    warm_batch=128,
    at_once=64,
    device="cuda",
)
