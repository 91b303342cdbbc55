"""Which releases are installed, and whether passk-guard's own metadata allows for them."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from passk_guard import __version__

__all__ = ["Package", "packages"]

_NAMES = (
    *("torch", "numpy", "transformers", "accelerate", "trl", "lightning", "pytorch-lightning"),
    *("deepspeed", "peft", "tensorboard", "matplotlib", "jinja2", "rich"),
)
# Lightning goes by two names, released together under one number.
_SAME_RELEASES = {"pytorch-lightning": "lightning"}


@dataclass(frozen=True)
class Package:
    """A distribution; ``mark`` says what to think of the version that is installed."""

    name: str
    installed: str | None
    supported: str  # such as ">=0.22.2,<2"
    mark: str  # "ok", "too old", "too new" (untested), "not installed", "unknown"

    @property
    def mend(self) -> str:
        """The command that brings a supported release."""
        return f"pip install '{self.name}{self.supported}'"


def packages() -> list[Package]:
    """passk-guard, Python, and all that the guard works with."""
    python = Package("Python", platform.python_version(), "", "ok")
    ranges = _ranges()
    return [
        Package("passk-guard", __version__, "", "ok" if ranges else "unknown"),
        python,  # pip sees to its range
        *(_package(name, ranges.get(_SAME_RELEASES.get(name, name), set())) for name in _NAMES),
    ]


def _ranges() -> dict[str, set[str]]:
    """Specifiers by name; none for a checkout that is on the path, but not installed."""
    ranges: dict[str, set[str]] = {}
    try:
        for requirement in map(Requirement, metadata.requires("passk-guard") or []):
            ranges.setdefault(requirement.name, set()).update(map(str, requirement.specifier))
    except metadata.PackageNotFoundError:
        pass
    return ranges


def _package(name: str, specifiers: set[str]) -> Package:
    supported = ",".join(sorted(specifiers, reverse=True))  # lowest first
    try:
        installed = metadata.version(name)
        release = Version(installed).base_version  # a nightly counts as what it leads to
    except metadata.PackageNotFoundError:
        return Package(name, None, supported, "not installed")
    except InvalidVersion:
        return Package(name, installed, supported, "unknown")
    failed = [specifier for specifier in SpecifierSet(supported) if not specifier.contains(release)]
    too_old = any(specifier.operator == ">=" for specifier in failed)
    mark = "too old" if too_old else "too new" if failed else "ok"
    return Package(name, installed, supported, mark)
