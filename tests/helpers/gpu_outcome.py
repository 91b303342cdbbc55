"""What a part of the GPU lane came to, and all of them in one document: pure functions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["DONE", "OUTCOMES", "document", "outcome", "records", "table"]

OUTCOMES = ("passed", "failed", "skipped", "timed out", "not run")
DONE = "passed"  # what is not run again

_TAIL = 4000  # characters of a failed part's output
_NO_TESTS = 5  # pytest's exit status where it collected none


def records(log: str) -> list[dict[str, Any]]:
    """The lines of :mod:`gpu_log`; a last one that was cut off is left out."""
    found = []
    for line in log.splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def outcome(
    status: int | None,
    seconds: float,
    limit: float,
    *,
    tests: Sequence[Mapping[str, Any]] = (),
    figures: Any = None,
    output: str = "",
) -> dict[str, Any]:
    """One part's.

    Args:
        status: exit status; ``None`` where it was stopped at its limit.
        seconds: that it took.
        limit: that it might have taken.
        tests: from :func:`records`, where it consists of tests.
        figures: what it measured, even where it failed later.
        output: what it printed.
    """
    found: dict[str, Any] = {"outcome": "passed", "seconds": round(seconds, 1)}
    failed = [test for test in tests if test["outcome"] == "failed"]
    skipped = [test for test in tests if test["outcome"] == "skipped"]
    if status is None:
        found |= {"outcome": "timed out", "reason": f"stopped after {limit:.0f} s"}
    elif status == _NO_TESTS:
        found |= {"outcome": "skipped", "reason": "no test was found"}
    elif status or failed:
        named = f"{len(failed)} of {len(tests)} tests" if failed else f"exit status {status}"
        found |= {"outcome": "failed", "reason": named}
    elif tests and len(skipped) == len(tests):
        reasons = dict.fromkeys(str(test.get("reason", "")) for test in skipped)
        found |= {"outcome": "skipped", "reason": "; ".join(reasons)}
    if tests:
        found["tests"] = {
            test["test"]: {key: value for key, value in test.items() if key != "test"}
            for test in tests
        }
    if figures is not None:
        found["figures"] = figures
    if found["outcome"] in ("failed", "timed out"):
        found["output"] = output[-_TAIL:]
    return found


def document(
    machine: Mapping[str, Any], names: Sequence[str], parts: Mapping[str, Any], *, rehearsal: bool
) -> dict[str, Any]:
    """All of it: every part is in it, those that did not run as such.

    Args:
        machine: device, driver, releases, source.
        names: of all parts, in their order.
        parts: outcomes by name, of those that there are.
        rehearsal: on a CPU: nothing in it is a GPU's.
    """
    missing = {"outcome": "not run"}
    return {
        "rehearsal": rehearsal,
        **machine,
        "parts": {name: parts.get(name, missing) for name in names},
    }


def table(found: Mapping[str, Any]) -> str:
    """For people: a line for each part."""
    lines = []
    for name, part in found["parts"].items():
        tests = part.get("tests", {})
        counts = Counter(test["outcome"] for test in tests.values())
        said = ", ".join(f"{count} {name}" for name, count in counts.items())
        why = part.get("reason", "")
        told = "; ".join(text for text in (said, why) if text)
        lines.append(f"{name:24} {part['outcome']:10} {part.get('seconds', 0):6.0f} s  {told}")
    return "\n".join(lines)
