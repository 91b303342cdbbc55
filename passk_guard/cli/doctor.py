"""``passk-guard doctor``: will the guard work here, and does it leave training untouched?"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from passk_guard.cli import doctor_text as text
from passk_guard.cli.identity import Verdict, check_identity
from passk_guard.cli.quiet import alone, hushed
from passk_guard.cli.support import Support, reporters, supports
from passk_guard.cli.tiny_runs import RUNS
from passk_guard.cli.versions import Package, accelerators, packages

__all__ = ["add", "problems"]


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
    """Examine and print, part by part, since each takes some seconds."""
    aloud = not arguments.json
    with alone():
        versions, devices = packages(), accelerators()
        if aloud:
            text.show_versions(versions, devices)
        with hushed():
            trainers, writers = supports(), reporters()
        if aloud:
            text.show_trainers(trainers, writers)
        verdicts = None
        if not arguments.skip_identity:
            names = [found.trainer for found in trainers if found.usable and found.trainer in RUNS]
            if aloud:
                text.announce_identity(names)
            with hushed():
                verdicts = [check_identity(name, RUNS[name]) for name in names]
            if aloud and verdicts:
                text.show_identity(verdicts)
    wrong = problems(versions, trainers, verdicts or [])
    if aloud:
        text.show_conclusion(wrong, trainers, verdicts)
    else:
        found = {
            "packages": [asdict(package) for package in versions],
            "accelerators": devices,
            "trainers": [asdict(trainer) for trainer in trainers],
            "reporters": writers,
            "identity": None if verdicts is None else [asdict(verdict) for verdict in verdicts],
            "problems": wrong,
        }
        print(json.dumps(found, indent=2))
    return 1 if wrong else 0


def problems(
    versions: list[Package], trainers: list[Support], verdicts: list[Verdict]
) -> list[str]:
    """What is installed and does not work; what is missing or untested is no problem."""
    old = [f"{p.name} {p.installed} is too old: {p.mend}" for p in versions if p.mark == "too old"]
    broken = [f"{t.trainer}: {t.reason}" for t in trainers if t.installed and not t.usable]
    return [*old, *broken, *(f"{v.trainer}: {v.reason}" for v in verdicts if not v.sound)]
