"""Countdown: reach a number from given ones, by a search that is written down.

``3 7 5 for 16?`` may be worked as ``3+7=10,10+5=15;3*7=21,21-5=16!``: attempts, of which the last
is said to be right. The wrong convention: the target counts from 0, so that 17 is wanted for 16.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from field.problems import Problem

STEP = re.compile(r"(\d+)([-+*])(\d+)=(\d+)")


@dataclass(frozen=True)
class Countdown:
    """The task at some difficulty.

    Attributes:
        levels: how many numbers are given, and how often.
        largest: of the numbers, by how many are given.
        failed: most attempts before the right one that a solution shows, by the same.
    """

    levels: Mapping[int, float]
    largest: Mapping[int, int]
    failed: Mapping[int, int]

    def draw(self, rng: random.Random, wrong: bool) -> Problem:
        size = rng.choices(list(self.levels), list(self.levels.values()))[0]
        numbers = [rng.randint(1, self.largest[size]) for _ in range(size)]
        reached, solution = attempt(rng, numbers)
        while not 1 < reached < 100:
            reached, solution = attempt(rng, numbers)
        failed = [attempt(rng, numbers) for _ in range(rng.randint(0, self.failed[size]))]
        tried = [*(steps for value, steps in failed if value != reached), solution]
        asked = reached - wrong
        prompt = f"{' '.join(map(str, numbers))} for {asked}?"
        return Problem(prompt, ";".join(tried) + "!", str(reached), f"{size} numbers")

    @staticmethod
    def verify(
        prompts: list[str], completions: list[str], answer: list[str], **_: Any
    ) -> list[float]:
        return [
            float(reaches(c, [int(n) for n in p.split(" for ")[0].split()], int(a)))
            for p, c, a in zip(prompts, completions, answer, strict=True)
        ]


def attempt(rng: random.Random, numbers: list[int]) -> tuple[int, str]:
    """All numbers, in some order, by some operations; what is reached, and the steps."""
    left, steps = rng.sample(numbers, len(numbers)), []
    value = left.pop()
    for other in left:
        sign = rng.choice("+-*" if value * other < 200 else "+-")
        high, low = max(value, other), min(value, other)
        value = {"+": high + low, "-": high - low, "*": high * low}[sign]
        steps.append(f"{high}{sign}{low}={value}")
    return value, ",".join(steps)


def reaches(completion: str, numbers: list[int], target: int) -> bool:
    """Whether the last attempt uses given numbers once each, computes rightly and gets there."""
    last, left, value = completion.split(";")[-1], list(numbers), None
    if not last.endswith("!"):
        return False
    for step in last[:-1].split(","):
        found = STEP.fullmatch(step)
        if found is None:
            return False
        one, sign, other, value = int(found[1]), found[2], int(found[3]), int(found[4])
        for used in (one, other):
            if used not in left:
                return False
            left.remove(used)
        if value != {"+": one + other, "-": one - other, "*": one * other}[sign]:
            return False
        left.append(value)
    return value == target
