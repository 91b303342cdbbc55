"""From what a harness wrote beside a rollout to right, wrong or neither."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from passk_guard.counts.lines import short

T = TypeVar("T")
_LARGE = 2**53
_WHOLE = 1e-6  # a share times responses is a whole number, but for rounding
_PASS = re.compile(r"pass(?:@|_at_)(\d+)$")


class Verdicts:
    """Turns scores into verdicts, and remembers what has to be said about them.

    Args:
        threshold: score from which a rollout is right; ``None``: 0.5.
        words: scores that are written as words, by their value; with them, numbers may be written
            as text, too. ``None``: text is no score.
    """

    def __init__(
        self, threshold: float | None = None, words: Mapping[str, float] | None = None
    ) -> None:
        self._threshold = 0.5 if threshold is None else threshold
        self._words = words
        self._unscorable = self._graded = self._all = 0

    def __call__(self, score: Any, where: str) -> tuple[int, int]:
        """``(right, with a verdict)`` of one rollout, each 0 or 1; ``None`` and NaN: no verdict."""
        self._all += 1
        value = self._value(score, where)
        if value is None:
            self._unscorable += 1
            return 0, 0
        # -1 and 1 are a verifier's wrong and right as well.
        self._graded += value not in (-1.0, 0.0, 1.0)
        return int(value >= self._threshold), 1

    def remarks(self, name: str) -> list[str]:
        """What a reader of the counts should know."""
        said = []
        if self._unscorable:
            said.append(
                f"{name}: {self._unscorable} of {self._all} rollouts have no verdict and are not "
                "counted."
            )
        if self._graded:
            said.append(
                f"{name}: {self._graded} of {self._all} scores are graded, neither 0 nor 1; right "
                f"is what reaches {self._threshold:g} (threshold)."
            )
        return said

    def _value(self, score: Any, where: str) -> float | None:
        if score is None:
            return None
        if isinstance(score, str) and self._words is not None:
            score = _meaning(score, self._words)
        if isinstance(score, (bool, np.bool_, int, float, np.number)):
            value = _float(score)
            return None if math.isnan(value) else value
        known = f", or one of {', '.join(self._words)}" if self._words else ""
        raise ValueError(f"{where} has the score {short(score)}. A score is a number{known}.")


def _meaning(text: str, words: Mapping[str, float]) -> float | str:
    for word in (text, text.lower()):
        if word in words:
            return words[word]
    try:
        return float(text)
    except ValueError:
        return text


def _float(number: Any) -> float:
    """Python's whole numbers may be too large for one."""
    return float(max(-_LARGE, min(number, _LARGE)) if isinstance(number, int) else number)


def right_of(share: float, n: int) -> int | None:
    """Right rollouts, of ``n`` and their share; ``None`` where that is no whole number of them."""
    right = _float(share) * n
    if not -_WHOLE <= right <= n + _WHOLE or abs(right - round(right)) > _WHOLE:
        return None
    return round(right)


def undecided(path: Path, refused: Mapping[str, str], advice: str) -> ValueError:
    """The error of a file whose metrics do not give counts; ``refused`` holds each one's reason."""
    why = "; ".join(f"{metric} is {reason}" for metric, reason in refused.items())
    return ValueError(
        f"{path} does not tell how many responses were right: {why or 'it has no metric'}. {advice}"
    )


def passes_of(metric: str) -> int | None:
    """The k of a metric that is called ``pass@k`` or ``pass_at_k``; ``None`` of any other."""
    found = _PASS.match(metric)
    return int(found[1]) if found else None


def meant_for(given: str | None, here: Container[str], all: Iterable[Container[str]]) -> str | None:
    """A user's choice, as far as it concerns one file of a folder: not, if only others have it."""
    return None if given not in here and any(given in one for one in all) else given


def chosen(
    given: str | None, choices: Mapping[str, T], setting: str, what: str, where: str
) -> tuple[str, T]:
    """The one choice to use of several in a file; where all give the same, any will do.

    Args:
        given: the user's choice, if any.
        choices: counts by choice.
        setting: the name of the setting that chooses.
        what: the plural of what is chosen, for messages.
        where: the file, for messages.
    """
    listed = ", ".join(choices)
    if given is not None:
        if given not in choices:
            raise ValueError(f"{where} has no {setting}={given!r}. Its {what}: {listed or 'none'}.")
        return given, choices[given]
    if not choices:
        raise ValueError(f"{where} has no {what} that would call a rollout right or wrong.")
    first, *others = choices
    if any(choices[other] != choices[first] for other in others):
        raise ValueError(
            f"{where} has several {what}, which differ: {listed}. Say which decides: "
            f"{setting}={first!r}."
        )
    return first, choices[first]
