"""Which releases are installed, and whether passk-guard's own metadata allows for them."""

from __future__ import annotations

import operator
import platform
import re
from dataclasses import dataclass
from importlib import metadata
from itertools import zip_longest

import torch

__all__ = ["Package", "accelerators", "mark", "own_ranges", "packages"]

# Lightning goes by two names, released together under one number.
_SAME_RELEASES = {"pytorch-lightning": "lightning"}
_LIGHTNING = ("lightning", "pytorch-lightning")
_NAMES = (
    *("torch", "numpy", "transformers", "accelerate", "trl", *_LIGHTNING),
    *("peft", "tensorboard", "matplotlib", "rich"),
)
# Extras that are no user's first choice for what they lack.
_COLLECTIONS = ("all", "dev")
_Range = tuple[str, list[str]]  # specifiers, and the extras that ask for them
_COMPARE = {">=": operator.ge, "<": operator.lt}


@dataclass(frozen=True)
class Package:
    """One line of the first table.

    Attributes:
        name: of the distribution.
        installed: its version, if it is.
        supported: specifiers such as ``">=0.22.2,<2"``; ``""`` is any, ``None`` unknown.
        mark: ``"ok"``, ``"too old"``, ``"too new"`` (untested), ``"not installed"``, or
            ``"unknown"`` where the range is.
        mend: a command, where there is something to mend.
    """

    name: str
    installed: str | None
    supported: str | None
    mark: str
    mend: str | None = None


def packages() -> list[Package]:
    """passk-guard, Python, and all that the guard works with."""
    from passk_guard import __version__

    ranges = own_ranges()
    python: _Range | None = None
    if ranges is not None:
        python = (metadata.metadata("passk-guard")["Requires-Python"], [])
    found = [
        Package("passk-guard", __version__, None, "ok"),
        _package("Python", platform.python_version(), python),
    ]
    lightning = [name for name in _LIGHTNING if _installed(name)] or ["lightning"]
    for name in _NAMES:
        if name not in _LIGHTNING or name in lightning:
            known = _SAME_RELEASES.get(name, name)
            own = None if ranges is None else ranges.get(known, ("", []))
            found.append(_package(name, _installed(name), own))
    return found


def own_ranges() -> dict[str, _Range] | None:
    """Specifiers and extras of each requirement, from the package's metadata.

    ``None`` where there is none: a checkout that is on the path, but not installed.
    """
    try:
        requirements = metadata.requires("passk-guard") or []
    except metadata.PackageNotFoundError:
        return None
    ranges: dict[str, _Range] = {}
    for requirement in requirements:
        what, _, condition = requirement.partition(";")
        parts = re.fullmatch(r"([\w.-]+)(\[.*\])?\s*\(?([^()]*)\)?\s*", what.strip())
        if parts is None or parts[1] == "passk-guard":  # an extra that is made of others
            continue
        name = re.sub(r"[-_.]+", "-", parts[1]).lower()
        specifiers, extras = ranges.get(name, ("", []))
        both = {*specifiers.split(","), *parts[3].replace(" ", "").split(",")} - {""}
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", condition)
        lowest_first = ",".join(sorted(both, reverse=True))
        ranges[name] = (lowest_first, extras + ([extra[1]] if extra else []))
    return ranges


def mark(version: str | None, specifiers: str | None) -> str:
    """What to say of a version: see :class:`Package`.

    Numbers are compared, as far as they go: a nightly build counts as the release it leads to, and
    ``+cpu`` is no part of it.

    >>> mark("0.20", ">=0.22.2,<2"), mark("1.0rc1", ">=0.22.2,<2"), mark("2.1", ">=0.22.2,<2")
    ('too old', 'ok', 'too new')
    """
    if version is None:
        return "not installed"
    if specifiers is None:
        return "unknown"
    for specifier in filter(None, specifiers.split(",")):
        parts = re.fullmatch(r"(>=|<)([\d.]+)", specifier)
        if parts is None or not _release(version):
            return "unknown"
        pairs = zip_longest(_release(version), _release(parts[2]), fillvalue=0)
        difference = next((a - b for a, b in pairs if a != b), 0)
        if not _COMPARE[parts[1]](difference, 0):
            return "too old" if parts[1] == ">=" else "too new"
    return "ok"


def accelerators() -> list[str]:
    """Names of the devices that training will find; none on a CPU."""
    if torch.cuda.is_available():
        kind = "ROCm" if torch.version.hip else "CUDA"
        release = torch.version.hip or torch.version.cuda
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return [f"{name} ({kind} {release})" for name in names]
    if torch.backends.mps.is_available():
        return ["Apple GPU (MPS)"]
    return []


def _release(version: str) -> list[int]:
    numbers = re.match(r"v?(?:\d+!)?(\d+(?:\.\d+)*)", version)
    return [int(part) for part in numbers[1].split(".")] if numbers else []


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _package(name: str, installed: str | None, own: _Range | None) -> Package:
    specifiers = None if own is None else own[0]
    found = mark(installed, specifiers)
    mend = None
    if found == "not installed":
        extras = [e for e in (own[1] if own else []) if e not in _COLLECTIONS]
        extra = name if name in extras or not extras else extras[0]
        mend = f"pip install 'passk-guard[{extra}]'" if extras else f"pip install {name}"
    elif found == "too old":
        mend = f"pip install '{name}{specifiers}'"
        if name == "Python":
            mend = f"use Python {specifiers}"
    return Package(name, installed, specifiers, found, mend)
