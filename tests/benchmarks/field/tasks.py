"""The tasks of the field study by name, each as it is and with a tenth of wrong labels."""

from __future__ import annotations

from dataclasses import replace

from field.countdown import Countdown
from field.expressions import Expressions
from field.multiplication import Multiplication
from field.problems import WRONG, Task

_MULTIPLICATION = Multiplication({(2, 1): 0.1, (3, 1): 0.25, (4, 1): 0.25, (2, 2): 0.4})
_COUNTDOWN = Countdown({2: 0.4, 3: 0.45, 4: 0.15}, {2: 20, 3: 10, 4: 10}, {2: 0, 3: 1, 4: 0})
_EXPRESSIONS = Expressions(terms=(3, 6), digits=1)


def with_wrong_labels(*clean: Task) -> dict[str, Task]:
    """By name: each, and each with a tenth of wrong labels."""
    wrong = [replace(task, name=f"{task.name}, wrong labels", wrong_labels=WRONG) for task in clean]
    return {task.name: task for pair in zip(clean, wrong, strict=True) for task in pair}


TASKS = with_wrong_labels(
    Task("multiplication", _MULTIPLICATION.draw, _MULTIPLICATION.verify, 56, 1e-4),
    Task("countdown", _COUNTDOWN.draw, _COUNTDOWN.verify, 64, 1e-4),
    Task("expressions", _EXPRESSIONS.draw, _EXPRESSIONS.verify, 64, 1e-4),
)
