"""A reading of a policy as plain values: what ``--json`` prints and the page is made from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from passk_guard.reporting.conflicts import find_conflicts
from passk_guard.reporting.record import conflict_record
from passk_guard.reporting.snapshot import Snapshot
from passk_guard.statistics.policy_reading import PolicyReading
from passk_guard.statistics.sign_test import SignTest

_MOST_PICTURED = 160  # prompts of a heat map: more are narrower than a pixel is


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
        "picture": {"k": found.k, **_thinned(Snapshot.of(found)).record()},
    }


def _finite(values: Sequence[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]


def _test(test: SignTest) -> dict[str, Any]:
    """Of few prompts no z is sure: JSON has no name for infinity."""
    known = asdict(test)
    return known if math.isfinite(test.threshold) else {**known, "threshold": None}


def _thinned(shown: Snapshot) -> Snapshot:
    """At most so many prompts, spread evenly from hard to easy."""
    if len(shown.rows) <= _MOST_PICTURED:
        return shown
    at = np.linspace(0, len(shown.rows) - 1, _MOST_PICTURED).round().astype(int)
    return replace(
        shown,
        rows=shown.rows[at],
        pass_rates=shown.pass_rates[at],
        agreement=shown.agreement[at],
        weights=shown.weights[at],
        cosines=shown.cosines[np.ix_(at, at)],
    )
