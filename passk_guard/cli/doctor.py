"""``passk-guard doctor``: will the guard work here, and does it leave training untouched?"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module, metadata
from importlib.util import find_spec
from multiprocessing import get_context
from typing import Any

import torch

from passk_guard.cli.output import print_table, print_text
from passk_guard.cli.tiny_trainers import STEPS, make_lightning, make_transformers, make_trl
from passk_guard.errors import reason_of
from passk_guard.identity import NotIdenticalError, NotRepeatableError, assert_bit_identical
from passk_guard.version import __version__


@dataclass(frozen=True)
class Trainer:
    """Packages and adapter that it needs, what the guard can do on it, and how to make one."""

    needs: tuple[str, ...]
    adapter: str
    sees: str
    remedies: str
    make: Callable[[str, bool], Any] | None = None


@dataclass(frozen=True)
class Finding:
    """What a trainer showed, and the reason for anything but success."""

    trainer: str
    verdict: str  # "identical", "DIFFERENT", "cannot tell", "not tried", "not installed", "failed"
    reason: str | None = None


_UPDATE, _OWN, _BOTH = "the update in force", "pass@k, or your PassKObjective", "mix, adjust_k"
_PL, _PL2 = "lightning.pytorch", "pytorch_lightning"
TRAINERS = {
    "TRL GRPOTrainer": Trainer(("trl",), "trl", _UPDATE, _BOTH, partial(make_trl, "GRPO")),
    "TRL RLOOTrainer": Trainer(("trl",), "trl", _UPDATE, _BOTH, partial(make_trl, "RLOO")),
    "other TRL trainers": Trainer(("trl",), "trl", "pass@k", "none"),
    "transformers.Trainer": Trainer(
        ("transformers", "accelerate"), "transformers", _OWN, _BOTH, make_transformers
    ),
    "lightning": Trainer(("lightning",), "lightning", _OWN, _BOTH, partial(make_lightning, _PL)),
    "pytorch_lightning": Trainer((_PL2,), "lightning", _OWN, _BOTH, partial(make_lightning, _PL2)),
}


def add(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "doctor",
        help="will the guard work here, and does it leave training untouched?",
        description="Shows what the guard can do on each installed trainer, and trains a tiny "
        "model with and without the guard to compare the weights bit by bit. Needs no network. "
        "Exit status 1 if something that is installed does not work.",
    )
    parser.add_argument(
        "--skip-identity", "--quick", action="store_true", help="leave the training out"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Examine and print; 1 where something that is installed does not work."""
    aloud, identity = not arguments.json, not arguments.skip_identity
    versions = installed_versions()
    if aloud:
        print_text(", ".join(f"{name} {version}" for name, version in versions.items()))
        if identity and not all(map(missing, TRAINERS)):
            print_text(
                f"Training a tiny model for {STEPS} steps on each installed trainer, twice without "
                "the guard and once with it. This takes about half a minute."
            )
    with fresh_process() as process:
        findings = [_examine_in(process, trainer, identity) for trainer in TRAINERS]
    problems = [f for f in findings if f.verdict in ("failed", "DIFFERENT")]
    if aloud:
        _show(findings)
        print_text(_conclusion(findings), *(f"{f.trainer}: {f.reason}" for f in problems))
    else:
        found = {
            "versions": versions,
            "trainers": [asdict(finding) for finding in findings],
            "problems": [f"{f.trainer}: {f.reason}" for f in problems],
        }
        print(json.dumps(found, indent=2))
    return 1 if problems else 0


def installed_versions() -> dict[str, str]:
    """What a report of a fault should quote."""
    found = {"passk-guard": __version__, "Python": platform.python_version()}
    for name in ("torch", "numpy", "transformers", "trl", "lightning", "pytorch-lightning"):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def examine(trainer: str, identity: bool) -> Finding:
    """Import the adapter and, for ``identity``, train a small model with and without the guard.

    Whatever goes wrong is part of the finding: the next trainer is tried all the same.
    """
    host = TRAINERS[trainer]
    if lacking := missing(trainer):
        return Finding(trainer, "not installed", f"{' and '.join(lacking)} not installed")
    try:
        import_module(f"passk_guard.integrations.{host.adapter}")
        if not identity or host.make is None:
            return Finding(trainer, "not tried")
        if not _is_installed("transformers"):
            return Finding(trainer, "not tried", "the small model needs transformers")
        with tempfile.TemporaryDirectory() as out:
            assert_bit_identical(partial(host.make, out))
    except NotIdenticalError as error:
        return Finding(
            trainer, "DIFFERENT", f"{error}. Please report it, with the output of --json"
        )
    except NotRepeatableError as error:
        return Finding(trainer, "cannot tell", str(error))
    except (Exception, SystemExit) as error:
        return Finding(trainer, "failed", reason_of(error))
    return Finding(trainer, "identical")


def missing(trainer: str) -> list[str]:
    """Packages that would have to be installed for it."""
    return [name for name in TRAINERS[trainer].needs if not _is_installed(name)]


def _is_installed(module: str) -> bool:
    """A user's folder of that name, such as ``trl/``, is no module: it has no origin."""
    found = find_spec(module)
    return found is not None and found.origin is not None


def _examine_in(process: Executor, trainer: str, identity: bool) -> Finding:
    try:
        return process.submit(examine, trainer, identity).result()
    except BrokenProcessPool:
        return Finding(trainer, "failed", "the process that trains died, here or before")


def _show(findings: Sequence[Finding]) -> None:
    there = [(f, TRAINERS[f.trainer]) for f in findings if f.verdict != "not installed"]
    if there:
        print()
        print_table(
            ["trainer", "bit by bit", "the guard sees", "remedies"],
            [[f.trainer, f.verdict, host.sees, host.remedies] for f, host in there],
        )
        print()
    if absent := [f.trainer for f in findings if f.verdict == "not installed"]:
        print_text("Not installed: " + ", ".join(absent))
    for finding in findings:
        if finding.verdict in ("cannot tell", "not tried") and finding.reason:
            print_text(f"{finding.trainer}: {finding.reason}.")


def _conclusion(findings: Sequence[Finding]) -> str:
    verdicts = {finding.verdict for finding in findings}
    if verdicts & {"failed", "DIFFERENT"}:
        return "This does not work:"
    if verdicts == {"not installed"}:
        return "The core works; no trainer is installed."
    if "cannot tell" in verdicts:
        return "No problem found, but training here is not repeatable: the check is inconclusive."
    if "identical" not in verdicts:
        return "No problem found; whether training stays the same was not tried."
    return (
        "All is well: with the guard, training here is the same, bit by bit. To check your own "
        "trainer: passk_guard.identity.assert_bit_identical"
    )


# Set by launchers and clusters, which might have started the doctor: it trains on one process.
_LAUNCHERS = (
    *("RANK", "LOCAL_", "WORLD_SIZE", "MASTER_", "ACCELERATE_", "FSDP_", "TORCHELASTIC_"),
    *("SLURM_", "OMPI_", "PMI_", "MPI_", "MV2_", "LSB_", "JSM_"),
)
_SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it would also leave a file in the home directory
    "DO_NOT_TRACK": "true",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it CUDA's matrix products are not repeatable
}
_CACHES = ("MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR")  # imports leave files there


@contextmanager
def fresh_process() -> Iterator[Executor]:
    """One process: silent, offline, outside any launcher, with repeatable kernels."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, get_context("spawn"), _settle, (folder,)) as process,
    ):
        yield process


def _settle(folder: str) -> None:
    for name in list(os.environ):
        if name.startswith(_LAUNCHERS):
            del os.environ[name]
    os.environ.update(_SETTINGS | dict.fromkeys(_CACHES, folder))
    torch.use_deterministic_algorithms(True, warn_only=True)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
