"""Each trainer that there is an adapter for: what the guard can do on it, and whether it does."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from passk_guard.cli.tiny_trainers import make_lightning, make_transformers, make_trl
from passk_guard.errors import reason_of
from passk_guard.identity import NotIdenticalError, NotRepeatableError, assert_bit_identical


@dataclass(frozen=True)
class Host:
    """A trainer: the modules and the adapter it needs, what the guard can do, a small one."""

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


_UPDATE, _OWN, _ALL = "the update in force", "pass@k, or your PassKObjective", "mix, adjust_k"
_PL, _PL2 = "lightning.pytorch", "pytorch_lightning"
HOSTS = {
    "TRL GRPOTrainer": Host(("trl",), "trl", _UPDATE, _ALL, partial(make_trl, "GRPO")),
    "TRL RLOOTrainer": Host(("trl",), "trl", _UPDATE, _ALL, partial(make_trl, "RLOO")),
    "other TRL trainers": Host(("trl",), "trl", "pass@k", "none"),
    "transformers.Trainer": Host(
        ("transformers", "accelerate"), "transformers", _OWN, _ALL, make_transformers
    ),
    "lightning": Host(("lightning",), "lightning", _OWN, _ALL, partial(make_lightning, _PL)),
    "pytorch_lightning": Host((_PL2,), "lightning", _OWN, _ALL, partial(make_lightning, _PL2)),
}


def examine(trainer: str, identity: bool) -> Finding:
    """Import the adapter and, for ``identity``, train a small model with and without the guard.

    Whatever goes wrong is part of the finding: the next trainer is tried all the same.
    """
    host = HOSTS[trainer]
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
    """What would have to be installed for it."""
    return [name for name in HOSTS[trainer].needs if not _is_installed(name)]


def _is_installed(module: str) -> bool:
    """Whether there is such a module; a user's folder of that name, such as ``trl/``, is none."""
    found = find_spec(module)
    return found is not None and found.origin is not None
