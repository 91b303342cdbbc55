"""A pytest plugin: each test's outcome at once in a file, so that a killed run leaves what it did.

``python -m pytest -p gpu_log`` with ``PASSK_GUARD_GPU_LOG=file``; one JSON object per line.
"""

from __future__ import annotations

import json
import os
from typing import Any


def pytest_runtest_logreport(report: Any) -> None:
    """One line per test that ran, was skipped, or failed to be set up or torn down."""
    if report.when != "call" and report.outcome == "passed":
        return
    record = {
        "test": report.nodeid.partition("::")[2],
        "outcome": report.outcome,
        "seconds": round(report.duration, 1),
    }
    if reason := _reason(report):
        record["reason"] = reason
    with open(os.environ["PASSK_GUARD_GPU_LOG"], "a") as file:
        file.write(json.dumps(record) + "\n")


def _reason(report: Any) -> str:
    """Why it was skipped, or where it crashed."""
    if report.outcome == "skipped":
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(report.longrepr if crash is None else crash.message)[:2000] if report.failed else ""
