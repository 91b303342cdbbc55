"""Long sums, one running total after another: completions of 100 to 160 tokens.

``4 17 23 8=`` is worked as ``4+17=21,21+23=44,44+8=52``, with 12 to 16 terms. The wrong convention:
the total rounded to tens, ``...=52~50``.
"""

from __future__ import annotations

import random
from typing import Any

from field.problems import Problem

LEVELS = range(12, 17)  # terms
LONGEST = 168  # tokens of a solution, with some to spare


def draw(rng: random.Random, wrong: bool) -> Problem:
    while True:
        terms = drawn(rng, rng.choice(LEVELS))
        total = sum(terms)
        label = (total + 5) // 10 * 10 if wrong else total
        if label != total or not wrong:
            break
    steps = worked(terms) if label == total else f"{worked(terms)}~{label}"
    return Problem(f"{' '.join(map(str, terms))}=", steps, str(label), f"{len(terms)} terms")


def drawn(rng: random.Random, size: int) -> list[int]:
    """Different terms, so that each says which one comes next; two in five have one digit."""
    small = min(round(0.4 * size), 6)
    terms = rng.sample(range(1, 10), small) + rng.sample(range(10, 100), size - small)
    rng.shuffle(terms)
    return terms


def short_rows(size: int, most: int) -> list[dict[str, Any]]:
    """With at most so many terms, the first one large: like the ends of long sums."""
    rng, found = random.Random(f"short sums {most}"), []
    for _ in range(size):
        terms = [rng.randint(1, 500), *drawn(rng, rng.randint(1, most - 1))]
        found.append({"prompt": f"{' '.join(map(str, terms))}=", "solution": worked(terms)})
    return found


def worked(terms: list[int]) -> str:
    """The running totals."""
    steps, total = [], terms[0]
    for other in terms[1:]:
        steps.append(f"{total}+{other}={total + other}")
        total += other
    return ",".join(steps)


def verify(completions: list[str], answer: list[str], **_: Any) -> list[float]:
    """What stands last, after an equals sign or a rounding sign."""
    said = [completion.replace("~", "=").split("=")[-1] for completion in completions]
    return [float(one == wanted) for one, wanted in zip(said, answer, strict=True)]
