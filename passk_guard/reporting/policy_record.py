"""A reading of a policy as plain values: what ``--json`` prints and the page is made from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from passk_guard.reporting.conflicts import find_conflicts
from passk_guard.reporting.record import conflict_record
from passk_guard.reporting.snapshot import Snapshot
from passk_guard.statistics.policy_reading import PolicyReading
from passk_guard.statistics.sign_test import SignTest


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


def _test(test: SignTest) -> dict[str, Any]:
    """Of few prompts no z is sure: JSON has no name for infinity."""
    known = asdict(test)
    return known if math.isfinite(test.threshold) else {**known, "threshold": None}
