"""A reading of a policy as plain values, and in words: the verdict, and what would settle it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from passk_guard.reporting.conflicts import find_conflicts
from passk_guard.reporting.digits import apart
from passk_guard.reporting.record import conflict_record
from passk_guard.reporting.sentences import truncation_sentence
from passk_guard.reporting.snapshot import Snapshot
from passk_guard.statistics.first_test import FirstTest
from passk_guard.statistics.policy_reading import LEAST_SIGNAL, PolicyReading, Verdict

_NOTHING = {
    "never": "nothing was right in {rollouts} rollouts",
    "always": "all of {rollouts} rollouts were right",
    "either": "each prompt was solved always or never",
}


def policy_record(
    found: PolicyReading, rows: Sequence[Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """Verdict, pass@k, alignment, groups, who pulls against whom.

    Args:
        found: the reading.
        rows: the held-out prompts, to quote them; ``None``: by row id only.
    """
    conflicts = find_conflicts([found])
    return {
        "verdict": str(found.verdict),
        "k": found.k,
        "prompts": found.prompts,
        "rollouts": found.rollouts,
        "no_signal": found.no_signal,
        "truncated": None if found.truncation is None else found.truncation.share,
        "weighted": found.weighted,
        "test": None if found.test is None else _test(found.test),
        "needed": found.needed,
        "pass_at": [asdict(one) for one in found.pass_at],
        "curve": [
            {
                "k": one.k,
                "inner": one.inner,
                "low": one.low,
                "high": one.high,
                "z": one.z,
            }
            for one in found.curve
        ],
        "cosine": None
        if found.cosine is None
        else {**asdict(found.cosine), "said": str(found.cosine)},
        "groups": {label: asdict(group) for label, group in found.groups.items()},
        "rewards": None if found.rewards is None else _finite(found.rewards),
        "conflict": None if not conflicts.prompts else conflict_record(conflicts, rows),
        "picture": {"k": found.k, **Snapshot.of(found).record()},
    }


def _finite(values: Sequence[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]


def _test(test: FirstTest) -> dict[str, Any]:
    """Of few prompts no z is sure: JSON has no name for infinity."""
    known = asdict(test)
    return known if math.isfinite(test.threshold) else {**known, "threshold": None}


def policy_sentence(found: PolicyReading) -> str:
    """The verdict on a pass@k step, fit for a terminal."""
    step = f"A pass@{found.k} step"
    on = f"on {found.prompts} prompts"
    if found.verdict is Verdict.NO_SIGNAL:
        return _no_signal(found)
    assert found.test is not None, "only without signal is there no test"
    size, sure_from = apart(abs(found.test.z), found.test.threshold)
    sign = "" if float(size.replace(",", "")) == 0 else "-" if found.test.z < 0 else "+"
    z = f"z {sign}{size} {on}"
    if found.verdict is Verdict.NIL:
        top = found.pass_at[found.k - 1]
        return (
            f"The pass@{found.k} gradient is nil here: pass@{found.k} is {top.value:.3f} (95 %: "
            f"{top.low:.3f} to {top.high:.3f}), and {found.weighted} of {found.prompts} prompts "
            "are solved at times, but seldom enough to raise it. "
            f"{step} would do next to nothing, to pass@1 or else."
        )
    wrong = f"the chance of being wrong is {100 * found.test.chance:.2g} % at most"
    if found.verdict is Verdict.LOWERS:
        return (
            f"{step} would lower pass@1 here: the two gradients oppose each other ({z}; {wrong})."
        )
    if found.verdict is Verdict.RAISES:
        return f"{step} would not lower pass@1 here: it raises it, too ({z}; {wrong})."
    unsure = f"Not sure whether a pass@{found.k} step would lower pass@1 here"
    if found.weighted < LEAST_SIGNAL:
        return (
            f"{unsure}: its gradient rests on {found.weighted} of {found.prompts} prompts, too few "
            f"to tell the sign. {_settle(found)}"
        )
    sure = f"sure from {sure_from} on"
    if not math.isfinite(found.test.threshold):
        sure = "fewer than 32 prompts are never sure"
    lean = {"": "it could do either", "-": "if anything it would lower it"}
    leaning = lean.get(sign, "if anything it would raise it")
    return f"{unsure}: {leaning} ({z}; {sure}). {_settle(found)}"


def _settle(found: PolicyReading) -> str:
    if found.needed is None:
        return "The effect is too small to settle with a feasible number of prompts."
    return (
        f"About {found.needed} prompts in all would settle it, if the effect is as large as it "
        "looks."
    )


def _no_signal(found: PolicyReading) -> str:
    right, rollouts = int(found.correct.sum()), found.rollouts
    kind = "never" if right == 0 else "always" if right == rollouts else "either"
    said = _NOTHING[kind].format(rollouts=rollouts)
    if kind == "either":
        signal = round(found.prompts * (1 - found.no_signal))
        said = (
            f"only {signal} of {found.prompts} prompts have both right and wrong rollouts"
            if signal
            else said
        )
    rewards = ""
    if found.rewards is not None and kind != "either":
        low, high = found.rewards
        rewards = f" The verifier's scores go from {low:g} to {high:g}."
    helps = {
        "never": "easier prompts, or a warm start",
        "always": "harder prompts",
        "either": "prompts that are solved sometimes, or more rollouts each",
    }[kind]
    return (
        f"No signal: {said}, so there is no gradient to compare.{rewards} What helps: {helps}."
        f"{truncation_sentence(found.truncation)}"
    )
