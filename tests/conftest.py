"""Shared by all tests: offline, one thread, examples importable; the core without extras."""

import importlib.util
import os
import re
import sys
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
# A fault of the guard fails the test; what injects one asks for on_error="continue".
os.environ["PASSK_GUARD_ON_ERROR"] = "raise"
# trackio asks for its folder as it is imported, which TRL does where it is installed.
_TRACKIO = tempfile.TemporaryDirectory(prefix="trackio-")
os.environ["TRACKIO_DIR"] = _TRACKIO.name
sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

# In the lane without any extra, only what needs torch and NumPy alone is collected.
WITHOUT_EXTRAS = importlib.util.find_spec("transformers") is None
_NEEDS_EXTRAS = re.compile(
    r"\b(trl|trl_runs|hosts|own_loss|lightning|transformers|tiny_llama|ambiguous_arithmetic"
    r"|matplotlib|examples|figures|ddp_worker)\b"
)
collect_ignore = (
    [
        path.name
        for path in Path(__file__).parent.glob("*.py")
        if _NEEDS_EXTRAS.search(path.read_text())
    ]
    if WITHOUT_EXTRAS
    else []
)
WITHOUT_TRACKERS = any(importlib.util.find_spec(m) is None for m in ("wandb", "trackio", "mlflow"))
if WITHOUT_TRACKERS:
    collect_ignore += ["test_reporters.py", "tracked.py"]


@pytest.fixture
def faults(monkeypatch):
    """For tests that inject faults: what a user gets, where a fault costs what it hits."""
    monkeypatch.delenv("PASSK_GUARD_ON_ERROR")


def pytest_report_header():
    """Say what is left out."""
    if WITHOUT_EXTRAS:
        return f"no extras installed: {len(collect_ignore)} test files that need them are left out"
    if WITHOUT_TRACKERS:
        return "extra 'reporters' not installed: test_reporters.py is left out"
    return None
