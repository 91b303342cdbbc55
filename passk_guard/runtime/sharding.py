"""Parameters that are split over processes: who holds what, and who does what.

Every process must run the same forwards and backwards, because each of them gathers the parameters
from all. FSDP averages gradients as they come, and leaves each process its part: so the rollouts of
each prompt are shared out, not the prompts. ZeRO-3 leaves whole gradients to a probe. Duck-typed:
not every build of torch has ``torch.distributed.fsdp`` and ``.tensor``, and older ones have them
elsewhere; DeepSpeed need not be there.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from passk_guard.runtime.fsdp1 import flat_parameters, is_flat
from passk_guard.runtime.processes import world

_ZERO3 = "ds_shape"  # DeepSpeed's, of a parameter that it has split
_FLAT = "_unpadded_unsharded_size"  # torch's, of FSDP1's
_TENSOR_PARALLEL = {"tp", "ep"}  # dimensions of processes, by the names that transformers gives


def is_sharded(parameters: Iterable[Tensor]) -> bool:
    """Whether gradients come averaged over processes, and in parts."""
    return any(
        is_flat(p) or any(not how.is_replicate() for how in _placements(p)) for p in parameters
    )


def named_parameters(module: nn.Module) -> Iterable[tuple[str, Parameter]]:
    """A module's, as gradients come: split, and end to end where FSDP1 has laid them so."""
    reshard(module)
    return flat_parameters(module) or module.named_parameters()


def generating(module: nn.Module) -> AbstractContextManager[Any]:
    """To be entered for ``module.generate``, which goes past the call by which FSDP1 gathers."""
    summon: Any = getattr(module, "summon_full_params", None)
    return nullcontext() if summon is None else summon(module, recurse=False, writeback=False)


def runs_together(parameters: Iterable[Tensor]) -> bool:
    """Whether processes wait for one another in every forward and backward."""
    parameters = list(parameters)
    return is_sharded(parameters) or any(hasattr(p, _ZERO3) for p in parameters)


def whole_shape(parameter: Tensor) -> torch.Size:
    """A parameter's, whatever of it is here: between passes ZeRO-3 leaves nothing."""
    return torch.Size(getattr(parameter, _FLAT if is_flat(parameter) else _ZERO3, parameter.shape))


def whole_numel(parameter: Tensor) -> int:
    """How many numbers a parameter has, whatever of it is here."""
    return whole_shape(parameter).numel()


def refuse_splits(module: nn.Module) -> None:
    """Refuse parameters that are split in other ways than FSDP splits them, before training.

    Raises:
        ValueError: names the first one.
    """
    for name, parameter in module.named_parameters():
        placements = _placements(parameter)
        mesh: Any = getattr(parameter, "device_mesh", None)
        names: tuple[str, ...] = getattr(mesh, "mesh_dim_names", None) or ()
        plain = all(how.is_replicate() or how.is_shard(0) for how in placements)
        if len(placements) > 1 or not plain or _TENSOR_PARALLEL & set(names):
            raise ValueError(
                f"{name!r} is split over processes as {placements} of {names or 'one dimension'}, "
                "which passk-guard does not support: FSDP2 over one dimension of processes works, "
                "tensor and expert parallelism and HSDP do not."
            )


def _placements(tensor: Tensor) -> tuple[Any, ...]:
    """How a ``DTensor`` is split over each dimension of processes; nothing for a plain tensor."""
    placements: tuple[Any, ...] = getattr(tensor, "placements", ())
    return placements


def reshard(module: nn.Module) -> None:
    """Let go of gathered parameters: after a forward without backward FSDP2 keeps the root's."""
    for part in module.modules():
        let_go = getattr(part, "reshard", None)
        if callable(let_go):  # an FSDPModule
            let_go()


def local_part(gradient: Tensor) -> tuple[Tensor, int]:
    """What this process holds of a gradient, flat, and where that begins in the flattened whole.

    Raises:
        ValueError: it is split in another way than FSDP2 does, along the first dimension.
    """
    placements = _placements(gradient)
    if not placements:
        return gradient.detach().flatten(), 0
    if len(placements) > 1 or not placements[0].is_shard(0):
        raise ValueError(
            f"a parameter is split as {placements}. passk-guard supports FSDP2 over one dimension "
            "of processes; not tensor parallelism, and not HSDP."
        )
    split: Any = gradient
    rows = -(-split.shape[0] // split.device_mesh.size())  # as torch.chunk gives them
    start = min(split.device_mesh.get_local_rank() * rows, split.shape[0])
    per_row = split.numel() // max(split.shape[0], 1)
    local: Tensor = split.to_local()
    return local.detach().flatten(), start * per_row


def my_rollouts(n: int) -> tuple[Tensor, Tensor]:
    """This process's share of ``n`` rollouts, as many on every process.

    Returns:
        Their indices, and the weight of each: the number of processes, since gradients are averaged
        over them, or 0 where the share was filled up.
    """
    rank, size = world()
    index = rank + size * torch.arange(-(-n // size), device="cpu")
    return index.clamp(max=n - 1), size * (index < n).float()
