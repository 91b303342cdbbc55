"""What the guard can do on each installed trainer: asked of the adapters and of the trainers."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any

__all__ = ["Support", "is_installed", "one_line", "reporters", "supports"]

_TAKES = {
    "async rewards": "newer trl",
    "tools": "newer trl and transformers",
    "FSDP2": "transformers >= 5.19",
}


@dataclass(frozen=True)
class Support:
    """One trainer.

    Attributes:
        trainer: which.
        installed: whether there is one.
        usable: whether the guard's adapter works with it.
        reason: why not, in one line.
        sees: which gradient the guard compares with the pass@1 gradient.
        remedies: what each remedy needs; ``""`` is nothing.
        features: what else works.
        lacks: what else does not, and what it would take.
    """

    trainer: str
    installed: bool = True
    usable: bool = True
    reason: str | None = None
    sees: str | None = None
    remedies: dict[str, str] = field(default_factory=dict)
    features: list[str] = field(default_factory=list)
    lacks: dict[str, str] = field(default_factory=dict)


def supports() -> list[Support]:
    """Every trainer that there is an adapter for; those that are not installed say so."""
    lightning = [name for name in ("lightning", "pytorch_lightning") if is_installed(name)]
    return [
        _asked("TRL GRPOTrainer", ("trl",), lambda: _trl("GRPOTrainer")),
        _asked("TRL RLOOTrainer", ("trl",), lambda: _trl("RLOOTrainer")),
        _asked("other TRL trainers", ("trl",), _other_trl),
        _asked("transformers.Trainer", ("transformers", "accelerate"), _transformers),
        *(_asked(name, (name,), _lightning(name)) for name in lightning or ["lightning"]),
    ]


def reporters() -> list[str]:
    """Where figures can go beside ``passk_guard.jsonl``: what transformers, or Lightning, knows."""
    if not is_installed("transformers"):
        return [name for name in ("mlflow", "tensorboard", "wandb") if is_installed(name)]
    try:
        from transformers.integrations import get_available_reporting_integrations

        return sorted(get_available_reporting_integrations())
    except Exception:  # transformers is broken, which its own row says
        return []


def is_installed(module: str) -> bool:
    """Whether there is such a module; a user's folder of that name, such as ``trl/``, is none."""
    found = find_spec(module)
    return found is not None and found.origin is not None


def one_line(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def _asked(trainer: str, needs: tuple[str, ...], ask: Callable[[], dict[str, Any]]) -> Support:
    missing = [name for name in needs if not is_installed(name)]
    if missing:
        return Support(trainer, False, False, f"{' and '.join(missing)} not installed")
    try:
        return Support(trainer, **ask())
    except (Exception, SystemExit) as error:
        return Support(trainer, usable=False, reason=one_line(error))


def _trl(name: str) -> dict[str, Any]:
    import trl

    from passk_guard.integrations.trl import PassKGuardCallback

    trainer = getattr(trl, name)
    # What the adapter calls or replaces.
    methods = ("_generate_and_score_completions", "_calculate_rewards", "_prepare_inputs")
    if lacking := [method for method in methods if not hasattr(trainer, method)]:
        raise AttributeError(f"{name} of trl {trl.__version__} has no {', '.join(lacking)}")
    start = inspect.unwrap(trainer.__init__)
    known = {"async rewards": "_has_async_funcs" in start.__code__.co_names}
    if name == "GRPOTrainer":
        takes = "tools" in inspect.signature(trainer).parameters
        known["tools"] = takes and find_spec("transformers.utils.chat_parsing") is not None
    remedies = _remedies(PassKGuardCallback)
    return {"sees": "the update in force", "remedies": remedies, **_features(known)}


def _other_trl() -> dict[str, Any]:
    import_module("passk_guard.integrations.trl")
    return {"sees": "the pass@k gradient", **_features({})}


def _transformers() -> dict[str, Any]:
    from passk_guard.integrations.transformers import PassKGuardCallback

    sees = "the pass@k gradient, or your PassKObjective"
    return {"sees": sees, "remedies": _remedies(PassKGuardCallback), **_features({})}


def _lightning(package: str) -> Callable[[], dict[str, Any]]:
    def ask() -> dict[str, Any]:
        pl: Any = import_module({"lightning": "lightning.pytorch"}.get(package, package))

        from passk_guard.integrations.lightning import PassKGuardCallback

        if not issubclass(PassKGuardCallback, pl.Callback):
            raise ImportError(f"the guard's callback is none of {package}'s")
        fsdp2 = hasattr(pl.strategies, "ModelParallelStrategy")
        sees = "the pass@k gradient, or your PassKObjective"
        remedies = _remedies(PassKGuardCallback)
        return {"sees": sees, "remedies": remedies, **_features({"FSDP2": fsdp2})}

    return ask


def _remedies(callback: type) -> dict[str, str]:
    if "anchor_prompts" in inspect.signature(callback).parameters:
        return {"mix": "objective= or anchor_prompts=", "adjust_k": "objective="}
    return {"mix": "", "adjust_k": "objective="}


def _features(own: dict[str, bool]) -> dict[str, Any]:
    known = {"DDP": True, "FSDP2": _fsdp2(), **own}
    return {
        "features": [name for name, works in known.items() if works],
        "lacks": {name: _TAKES[name] for name, works in known.items() if not works},
    }


def _fsdp2() -> bool:
    """Whether transformers shards a model as it loads it."""
    try:
        from transformers.distributed import DistributedConfig
    except ImportError:
        return False
    return "fsdp_size" in inspect.signature(DistributedConfig).parameters
