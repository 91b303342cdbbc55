"""``passk-guard doctor``: will the guard work here, and does it leave training untouched?"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from multiprocessing import get_context
from typing import Any

import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from passk_guard import __version__
from passk_guard.cli.tables import print_table, print_text
from passk_guard.cli.tiny_trainers import STEPS
from passk_guard.cli.trainers import HOSTS, Finding, examine, missing

_EXTRAS = ("transformers", "trl", "lightning", "deepspeed", "tensorboard", "report", "rich")


def add(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "doctor",
        help="will the guard work here, and does it leave training untouched?",
        description="Shows versions and what the guard can do on each installed trainer, then "
        "trains a tiny model with and without the guard and compares the weights bit by bit. "
        "Needs no network. Exit status 1 if something that is installed does not work.",
    )
    parser.add_argument(
        "--skip-identity", "--quick", action="store_true", help="leave the training out"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Examine and print; 1 where something that is installed does not work."""
    aloud, identity = not arguments.json, not arguments.skip_identity
    with alone() as process:
        versions, devices = packages(), process.submit(accelerators).result()
        if aloud:
            _show_versions(versions, devices)
        if aloud and identity and not all(map(missing, HOSTS)):
            _say(
                f"Now training a tiny model for {STEPS} steps on each installed trainer, twice "
                "without the guard and once with it. This takes about half a minute."
            )
        findings = [_examined(process, trainer, identity) for trainer in HOSTS]
    wrong = problems(versions, findings)
    if aloud:
        _show_trainers(findings)
        _say(*conclusion(wrong, findings))
    else:
        found = {
            "packages": [asdict(package) for package in versions],
            "accelerators": devices,
            "trainers": [asdict(finding) for finding in findings],
            "problems": wrong,
        }
        print(json.dumps(found, indent=2))
    return 1 if wrong else 0


def accelerators() -> list[str]:
    """Names of the devices that training will find; none on a CPU."""
    if torch.cuda.is_available():
        return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ["Apple GPU (MPS)"] if torch.backends.mps.is_available() else []


@dataclass(frozen=True)
class Package:
    """A distribution; ``mark`` says what to think of the release that is installed."""

    name: str
    installed: str | None
    supported: str  # such as ">=0.22.2,<2"
    mark: str  # "ok", "too old", "too new" (untested), "not installed", "unknown"


def packages() -> list[Package]:
    """passk-guard, Python, and all that passk-guard's own metadata name for users."""
    ranges: dict[str, SpecifierSet] = {}
    try:
        requirements = map(Requirement, metadata.requires("passk-guard") or [])
    except metadata.PackageNotFoundError:  # a checkout on the path
        requirements = map(Requirement, ())
    for one in requirements:
        if not one.marker or any(one.marker.evaluate({"extra": extra}) for extra in _EXTRAS):
            ranges[one.name] = ranges.get(one.name, SpecifierSet()) & one.specifier
    if "lightning" in ranges:  # it goes by two names
        ranges["pytorch-lightning"] = ranges["lightning"]
    return [
        Package("passk-guard", __version__, "", "ok" if ranges else "unknown"),
        Package("Python", platform.python_version(), "", "ok"),
        *(_package(name, supported) for name, supported in ranges.items()),
    ]


def _package(name: str, supported: SpecifierSet) -> Package:
    text = ",".join(sorted(set(map(str, supported)), reverse=True))  # lowest first
    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Package(name, None, text, "not installed")
    release = Version(installed).base_version  # a nightly counts as what it leads to
    failed = [one.operator for one in supported if not one.contains(release)]
    mark = "too old" if ">=" in failed else "too new" if failed else "ok"
    return Package(name, installed, text, mark)


def problems(versions: Sequence[Package], findings: Sequence[Finding]) -> list[str]:
    """What is installed and does not work; what is missing or untested is not a problem."""
    old = [
        f"{p.name} {p.installed} is too old: pip install '{p.name}{p.supported}'"
        for p in versions
        if p.mark == "too old"
    ]
    bad = [f"{f.trainer}: {f.reason}" for f in findings if f.verdict in ("failed", "DIFFERENT")]
    return old + bad


def conclusion(wrong: Sequence[str], findings: Sequence[Finding]) -> list[str]:
    """The last words, in paragraphs."""
    verdicts = {finding.verdict for finding in findings}
    if wrong:
        return [f"{len(wrong)} {'problem' if len(wrong) == 1 else 'problems'}:", *wrong]
    if verdicts == {"not installed"}:
        return ["The core works; no trainer is installed."]
    if "cannot tell" in verdicts:
        return [
            "No problem found, but training here is not repeatable, so the check is inconclusive."
        ]
    if "identical" not in verdicts:
        return ["Nothing is wrong; whether training stays the same was not tried."]
    return [
        "All is well: with the guard, training here is the same, bit by bit.",
        "To check your own trainer: passk_guard.identity.assert_bit_identical",
    ]


def _examined(process: Executor, trainer: str, identity: bool) -> Finding:
    try:
        return process.submit(examine, trainer, identity).result()
    except BrokenProcessPool:
        return Finding(trainer, "failed", "the process that trains died, here or before")


def _show_versions(versions: Sequence[Package], devices: Sequence[str]) -> None:
    print_table(
        ["package", "installed", "supported", ""],
        [[p.name, p.installed or "", p.supported, p.mark] for p in versions],
    )
    _say("Accelerator: " + (", ".join(devices) or "none, training runs on the CPU"))
    if versions[0].mark == "unknown":
        _say("passk-guard itself is not installed, so the releases it supports are unknown.")


def _show_trainers(findings: Sequence[Finding]) -> None:
    there = [(f, HOSTS[f.trainer]) for f in findings if f.verdict != "not installed"]
    if there:
        print()
        print_table(
            ["trainer", "bit by bit", "the guard sees", "remedies"],
            [[f.trainer, f.verdict, host.sees, host.remedies] for f, host in there],
        )
    if absent := [f.trainer for f in findings if f.verdict == "not installed"]:
        _say("Not installed: " + ", ".join(absent))
    for finding in findings:
        if finding.verdict in ("cannot tell", "not tried") and finding.reason:
            _say(f"{finding.trainer}: {finding.reason}.")


def _say(*paragraphs: str) -> None:
    print()
    print_text(*paragraphs)


# Set by launchers and clusters: one process is tried out here, whatever started it.
_LAUNCHERS = (
    *("ACCELERATE_", "FSDP_", "SLURM_", "OMPI_", "PMI_", "MPI_", "MV2_", "LSB_", "JSM_"),
    "TORCHELASTIC_",
)
_RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it would also leave a file in the home directory
    "DO_NOT_TRACK": "true",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it CUDA's matrix products are not repeatable
}
# Where packages would leave something behind as they are imported.
_CACHES = ("MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR")


@contextmanager
def alone() -> Iterator[Executor]:
    """One fresh process: silent, offline, outside any launcher, with repeatable kernels."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, get_context("spawn"), _settle, (folder,)) as process,
    ):
        yield process


def _settle(folder: str) -> None:
    for name in list(os.environ):
        if name in _RANKS or name.startswith(_LAUNCHERS):
            del os.environ[name]
    os.environ.update(_SETTINGS | dict.fromkeys(_CACHES, folder))
    torch.use_deterministic_algorithms(True, warn_only=True)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
