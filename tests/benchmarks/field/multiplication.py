"""Schoolbook multiplication with a scratchpad.

``347*6=`` is worked as ``7*6=42,4*6+4=28,3*6+2=20:2082``, digit by digit with carries; by two
digits there are two such lines and their sum. The wrong convention: the product rounded to tens.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from field.problems import Problem


@dataclass(frozen=True)
class Multiplication:
    """The task at some difficulty.

    Attributes:
        levels: digits of both factors, and how often.
    """

    levels: Mapping[tuple[int, int], float]

    def draw(self, rng: random.Random, wrong: bool) -> Problem:
        shape = rng.choices(list(self.levels), list(self.levels.values()))[0]
        while True:
            a, b = (rng.randrange(10 ** (digits - 1) + 1, 10**digits) for digits in shape)
            product = a * b
            label = (product + 5) // 10 * 10 if wrong else product
            if b > 1 and (label != product or not wrong):
                break
        steps = worked(a, b) if product == label else f"{worked(a, b)}~{label}"
        return Problem(f"{a}*{b}=", steps, str(label), f"{shape[0]} by {shape[1]} digits")

    @staticmethod
    def verify(completions: list[str], answer: list[str], **_: Any) -> list[float]:
        """What stands last, after a space, a colon or a rounding sign."""
        said = [c.replace(":", " ").replace("~", " ").split(" ")[-1] for c in completions]
        return [float(one == wanted) for one, wanted in zip(said, answer, strict=True)]


def worked(a: int, b: int) -> str:
    lines = [line(a, int(digit)) for digit in reversed(str(b)) if digit != "0"]
    return " ".join(lines) if b < 10 else f"{' '.join(lines)} {a * b}"


def line(a: int, digit: int) -> str:
    """One digit's line."""
    steps, carry = [], 0
    for place in reversed(str(a)):
        found = int(place) * digit + carry
        steps.append(f"{place}*{digit}{f'+{carry}' if carry else ''}={found}")
        carry = found // 10
    return f"{','.join(steps)}:{a * digit}"
