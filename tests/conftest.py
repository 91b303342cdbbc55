"""Shared by all tests: offline, one thread, examples importable; what a lane does without."""

import gc
import os
import subprocess
import tempfile

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

from extras import DECLARED, QUICK, TRAINERS, WITHOUT, is_installed, left_out, needs
from gpu_lane import why_left_out
from tiny import KINDS, LANGUAGE_MODELS

# No tests in these, and some import an extra.
collect_ignore = ["helpers", "workers", "benchmarks", "data"]


def pytest_configure(config):
    """A lane that has what it says it does without would leave tests out for nothing."""
    config.addinivalue_line("markers", "needs(*packages): see tests/helpers/extras.py")
    config.addinivalue_line("markers", "trainers: given to what needs one, by its own words")
    config.addinivalue_line("markers", "vllm: a real vLLM engine; see `make lane-vllm`")
    config.addinivalue_line("markers", "long: over a second and a half; not in `make check`")
    config.addinivalue_line("markers", "simulation: long, of statistics alone; in `make test` only")
    if found := sorted(package for package in WITHOUT if is_installed(package)):
        raise pytest.UsageError(f"PASSK_GUARD_WITHOUT names {', '.join(found)}: installed here")


def pytest_itemcollected(item):
    """``-m trainers``: the tests that a release of a trainer can break."""
    if TRAINERS & DECLARED.get(str(item.path), frozenset()):
        item.add_marker("trainers")


def pytest_collection_finish():
    """Leave what the imports made out of every later search for garbage.

    A trainer searches after each run, and the trainers' modules hold more than a million objects:
    a third of a small run's time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def quick():
    """What ``make check`` leaves out is found as it starts a process, compilers included."""
    with pytest.MonkeyPatch.context() as patch:
        if QUICK:

            def start(*arguments, **settings):
                left_out("starts no process")

            patch.setattr(subprocess.Popen, "__init__", start)
        yield


@pytest.fixture
def faults(monkeypatch):
    """For tests that inject faults: what a user gets, where a fault costs what it hits."""
    monkeypatch.delenv("PASSK_GUARD_ON_ERROR")


def pytest_report_header():
    """Say what is left out."""
    return f"left out: tests that need {', '.join(sorted(WITHOUT))}" if WITHOUT else None


def pytest_runtest_setup(item):
    """The markers that leave a test out."""
    if item.get_closest_marker("gpu") and (why := why_left_out()):
        pytest.skip(why)
    if QUICK and any(map(item.get_closest_marker, ("long", "simulation"))):
        left_out("leaves out what takes long")
    for mark in item.iter_markers("needs"):
        needs(*mark.args)


@pytest.fixture(params=KINDS)
def tiny_lm(request):
    """Makes a tiny language model, with ``tied=`` and ``seed=``: plain torch's, and a Llama."""
    return LANGUAGE_MODELS[request.param]


@pytest.fixture
def doors():
    """What a test registers is gone after it."""
    from passk_guard import counts, detection, gradients, objectives, remedies

    registries = [
        counts.FORMATS,
        detection.DETECTORS,
        gradients.ENGINES,
        objectives.ESTIMATORS,
        remedies.ACTIONS,
        remedies.CONTROLLERS,
    ]
    before = [dict(registry._entries) for registry in registries]
    yield
    for registry, entries in zip(registries, before, strict=True):
        registry._entries = entries
