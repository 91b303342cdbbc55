"""What a test needs beyond torch, NumPy and the test runner; what a lane does without.

A test file says ``needs("trl")`` above its other imports, a single test
``@pytest.mark.needs("rich")``. It is left out where ``PASSK_GUARD_WITHOUT`` names the package, and
nowhere else: the lanes of the Makefile set that. Anywhere else a missing package is an error, so
that nothing is left out unnoticed.

``make check`` sets ``PASSK_GUARD_QUICK``: a file that needs a trainer is left out before it imports
one, a test that starts a process as it does so, and one that says ``@pytest.mark.long`` or
``@pytest.mark.simulation``.
"""

from __future__ import annotations

import importlib.util
import os
import sys

import pytest

WITHOUT = frozenset(os.environ.get("PASSK_GUARD_WITHOUT", "").split())
QUICK = os.environ.get("PASSK_GUARD_QUICK") == "1"
TRAINERS = frozenset({"lightning", "pytorch_lightning", "transformers", "trl"})
DECLARED: dict[str, frozenset[str]] = {}  # what each test file has said, by its path


def left_out(what: str) -> None:
    pytest.skip(f"`make check` {what}", allow_module_level=True)


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def needs(*packages: str) -> None:
    """Skip the test file, or the test, if this lane does without one of them.

    Args:
        *packages: names as they are imported.
    """
    DECLARED[sys._getframe(1).f_globals["__file__"]] = frozenset(packages)
    if QUICK and TRAINERS & set(packages):
        left_out("starts no trainer")
    if without := sorted(WITHOUT & set(packages)):
        pytest.skip(f"this lane does without {', '.join(without)}", allow_module_level=True)
    if missing := [package for package in packages if not is_installed(package)]:
        pytest.fail(
            f"{', '.join(missing)}: not installed. Run `make test`, or name what this environment "
            "does without in PASSK_GUARD_WITHOUT",
            pytrace=False,
        )
