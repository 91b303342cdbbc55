"""A probe leaves the host training run bit for bit as it found it."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from passk_guard.runtime.sharding import reshard


@contextmanager
def isolated(*modules: nn.Module, seed: int) -> Iterator[None]:
    """Within, modules are in eval mode and randomness is seeded; after, all is as before.

    Kept: the state of every random generator (torch CPU, CUDA and MPS, NumPy, Python), each
    submodule's train/eval flag, gradient-checkpointing switches and the hooks on embeddings that
    come with them, ``config.use_cache``, ``generation_config``, and each parameter's ``.grad``.
    Also when the body raises, Ctrl-C included.

    Args:
        *modules: the policy, and whatever else the probe may touch.
        seed: for the probe's own sampling.
    """
    with ExitStack() as stack:
        stack.enter_context(kept_rng())
        for module in modules:
            stack.enter_context(_kept_module(module))
        _seed(seed)
        for module in modules:
            module.eval()
        yield


@contextmanager
def kept_rng() -> Iterator[None]:
    """Restore every random generator's state."""
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    cpu_state = torch.get_rng_state()
    # A process forked from one that used a GPU has none, and asking for it is an error.
    has_cuda = torch.cuda.is_available() and not torch.cuda._is_in_bad_fork()
    cuda_states = torch.cuda.get_rng_state_all() if has_cuda else None
    mps_state = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(cpu_state)
        if cuda_states is not None:
            torch.cuda.set_rng_state_all(cuda_states)
        if mps_state is not None:
            torch.mps.set_rng_state(mps_state)


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


# On a CPU bitsandbytes repacks 4-bit weights for good at the first forward in eval mode, where its
# layers have this flag: training would go on with other kernels.
_REPACKS = "support_avx512bf16_for_cpu"

# What generation helpers switch on submodules and do not always switch back after an error.
_MODULE_FLAGS = (
    _REPACKS,
    *("training", "gradient_checkpointing", "_gradient_checkpointing_func"),
    *("_require_grads_hook", "_require_grads_hooks"),
)


@contextmanager
def _kept_module(module: nn.Module) -> Iterator[None]:
    flags = [
        (m, {flag: m.__dict__[flag] for flag in _MODULE_FLAGS if flag in m.__dict__})
        for m in module.modules()
    ]
    hooks = [(m, _input_hooks(m)) for m in module.modules()]
    grads = [(p, p.grad) for p in module.parameters()]
    with ExitStack() as stack:
        for m, _ in flags:
            if "generation_config" in m.__dict__:
                stack.enter_context(kept_attributes(m, "generation_config", copied=True))
        for config in {id(c): c for m, _ in flags for c in _configs(m)}.values():
            stack.enter_context(kept_attributes(config, "use_cache"))
        for m, kept in flags:
            if _REPACKS in kept:
                m.__dict__[_REPACKS] = False
        try:
            yield
        finally:
            reshard(module)
            for m, kept in flags:
                m.__dict__.update(kept)
            for m, input_hooks in hooks:
                for key in _input_hooks(m):
                    del m._forward_hooks[key]
                m._forward_hooks.update(input_hooks)
            for parameter, grad in grads:
                parameter.grad = grad


def _input_hooks(module: nn.Module) -> dict[int, Any]:
    """Hooks on embeddings, of which transformers adds one whenever checkpointing comes back on."""
    name = "make_inputs_require_grad"
    hooks = module._forward_hooks.items()
    return {key: hook for key, hook in hooks if getattr(hook, "__name__", "").startswith(name)}


def _configs(module: nn.Module) -> list[Any]:
    config = module.__dict__.get("config")
    return [config] if config is not None and hasattr(config, "use_cache") else []


@contextmanager
def kept_attributes(obj: Any, *names: str, copied: bool = False) -> Iterator[None]:
    """Restore attributes of an object, those that it has.

    Args:
        obj: any object.
        *names: attributes; missing ones are passed over.
        copied: work on a deep copy within, for values that may be changed in place.
    """
    kept = {name: getattr(obj, name) for name in names if hasattr(obj, name)}
    if copied:
        for name, value in kept.items():
            setattr(obj, name, copy.deepcopy(value))
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(obj, name, value)


@contextmanager
def instead(obj: Any, name: str, method: Callable[..., Any]) -> Iterator[None]:
    """Another method on one object; what it had of its own comes back."""
    own = vars(obj).get(name)
    setattr(obj, name, method)
    try:
        yield
    finally:
        delattr(obj, name)
        if own is not None:
            setattr(obj, name, own)


@contextmanager
def kept_modes(module: nn.Module | None) -> Iterator[None]:
    """Restore each submodule's train/eval flag.

    Around a call of somebody else's generation: some of them end in train mode, whatever they
    began in, and what a probe does next would be under dropout, and be taken for training.
    """
    flags = [] if module is None else [(m, m.training) for m in module.modules()]
    try:
        yield
    finally:
        for m, training in flags:
            m.training = training


@contextmanager
def checkpointing_without_dropout(module: nn.Module) -> Iterator[None]:
    """Keep gradient checkpointing on in eval mode, for a backward with dropout off.

    Hugging Face models checkpoint only where a layer's own ``training`` flag is set. The flag is
    set on the checkpointing layers alone, not on their children; a layer that applies dropout by
    itself (it has a non-zero ``*dropout*`` number) stays in eval mode, without checkpointing.
    Without gradients there is nothing to save, and nothing is switched.
    """
    layers = [
        m
        for m in module.modules()
        if m.__dict__.get("gradient_checkpointing") and not m.training and not _drops_out(m)
    ]
    if not torch.is_grad_enabled():
        layers = []
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False


def _drops_out(module: nn.Module) -> bool:
    return any(
        "dropout" in name and isinstance(value, float) and value > 0
        for name, value in module.__dict__.items()
    )
