"""A TRL trainer within a probe: whatever it holds is afterwards what it was."""

from __future__ import annotations

import copy
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from passk_guard.errors import warn
from passk_guard.integrations._trl_beneath import is_stock
from passk_guard.integrations._trl_vllm_adapters import merges_adapters
from passk_guard.runtime.snapshot import MOST_COPIED, Snapshot

_LONG = 1.0  # seconds for a snapshot, from which it is said
_CONTAINERS = (dict, list, deque, set, np.ndarray, torch.Tensor)


class KeptTrainer:
    """Puts back what a trainer's attributes hold; models, optimizer and verifiers set aside.

    Args:
        trainer: a ``GRPOTrainer`` or ``RLOOTrainer``, or a subclass with attributes of its own.
        say: takes messages.
    """

    def __init__(self, trainer: Any, say: Callable[[str], None]) -> None:
        self._trainer, self._say = trainer, say
        self._said: set[str] = set()
        self._own = [cls for cls in type(trainer).__mro__ if not is_stock(cls)]
        own = {cls.__module__.partition(".")[0] for cls in self._own}
        self._packages = own - {"trl", "transformers", "builtins"}

    def name_opaque(self) -> None:
        """Say what the trainer holds of its own that no probe can put back."""
        found = {}
        for name in _own_attributes(self._trainer) if self._own else ():
            value = vars(self._trainer)[name]
            kinds = {type(one).__name__ for one in self._snapshot([value]).opaque}
            if kinds:
                found[name] = ", ".join(sorted(kinds))
        if found:
            named = ", ".join(f"{name} ({kinds})" for name, kinds in found.items())
            self._say(
                f"passk-guard: {type(self._trainer).__name__} holds what a probe cannot put back: "
                f"{named}. Where rollouts are made or scored with it, training goes on otherwise "
                "after a probe than without one."
            )

    def _snapshot(self, values: list[Any]) -> Snapshot:
        trainer = self._trainer
        names = ("model", "model_wrapped", "ref_model", "optimizer", "lr_scheduler", "rollout_func")
        aside = [trainer, *(getattr(trainer, name, None) for name in names)]
        aside.append(getattr(trainer.optimizer, "optimizer", None))  # within accelerate's
        aside += [*trainer.reward_funcs, *(getattr(trainer, "tools", None) or ())]
        for name in ("environments", "environment_factories", "_environment_pool", "_env_tools"):
            aside.append(getattr(trainer, name, None))  # probes have their own
        return Snapshot(values, aside, self._packages)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        trainer = self._trainer
        began = time.perf_counter()
        shared = [v for c in self._own for v in vars(c).values() if isinstance(v, _CONTAINERS)]
        snapshot = self._snapshot([vars(trainer), *shared])
        self._say_costs(snapshot, time.perf_counter() - began)
        if hasattr(trainer, "continuous_batching_config"):  # filled in at the first call
            trainer.continuous_batching_config = copy.deepcopy(trainer.continuous_batching_config)
        try:
            yield
        finally:
            # Weights stay in vLLM. Where adapters are merged for it, training does so as ever.
            last = getattr(trainer, "_last_loaded_step", None)
            changed = snapshot.restore()
            if last == -1 or (last is not None and not merges_adapters(trainer.model)):
                trainer._last_loaded_step = last
            if changed and self._is_new("changed"):
                warn(
                    f"a probe has changed in place what {type(trainer).__name__} keeps in a tensor "
                    f"of shape {tuple(changed[0].shape)}, and could not put it back: probes copy "
                    f"at most {MOST_COPIED / 2**20:.0f} MiB. Training goes on otherwise than "
                    "without the guard. Replace the tensor instead, or keep it on disk."
                )

    def _say_costs(self, snapshot: Snapshot, seconds: float) -> None:
        if (snapshot.too_large or seconds > _LONG) and self._is_new("costs"):
            rest = ", and larger tensors are only watched" if snapshot.too_large else ""
            self._say(
                f"passk-guard: {type(self._trainer).__name__} keeps so much that each probe takes "
                f"{seconds:.1f} s and {snapshot.copied / 2**20:.0f} MiB to note it, so that it can "
                f"be put back{rest}."
            )

    def _is_new(self, what: str) -> bool:
        new = what not in self._said
        self._said.add(what)
        return new


def _own_attributes(trainer: Any) -> list[str]:
    """Attributes of which TRL and transformers know nothing."""
    stock = {sys.modules[cls.__module__] for cls in type(trainer).__mro__ if is_stock(cls)}
    files = [getattr(module, "__file__", None) for module in stock]
    text = "".join(Path(file).read_text(encoding="utf-8") for file in files if file)
    known = set(re.findall(r"self\.(\w+)", text))
    return [name for name in vars(trainer) if name not in known]
