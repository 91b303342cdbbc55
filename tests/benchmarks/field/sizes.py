"""The tasks by name, with and without wrong labels, and how large the study is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from field.countdown import Countdown
from field.expressions import Expressions
from field.multiplication import Multiplication
from field.problems import WRONG, Task

_MULTIPLICATION = Multiplication({(2, 1): 0.1, (3, 1): 0.25, (4, 1): 0.25, (2, 2): 0.4})
_COUNTDOWN = Countdown({2: 0.4, 3: 0.45, 4: 0.15}, {2: 20, 3: 10, 4: 10}, {2: 0, 3: 1, 4: 0})
_EXPRESSIONS = Expressions(terms=(3, 6), digits=1)


_CLEAN = (
    Task("multiplication", _MULTIPLICATION.draw, _MULTIPLICATION.verify, 56, 1e-4),
    Task("countdown", _COUNTDOWN.draw, _COUNTDOWN.verify, 64, 1e-4),
    Task("expressions", _EXPRESSIONS.draw, _EXPRESSIONS.verify, 64, 1e-4),
)
TASKS = {
    task.name: task
    for clean in _CLEAN
    for task in (clean, replace(clean, name=f"{clean.name}, wrong labels", wrong_labels=WRONG))
}


@dataclass(frozen=True)
class Size:
    """How much of everything.

    Attributes:
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
    """

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
    hidden=32,
    layers=1,
    base=dict.fromkeys(FULL.base, 60),
    base_rows=dict.fromkeys(FULL.base, 500),
    own=4,
    own_wrong=8,
)
