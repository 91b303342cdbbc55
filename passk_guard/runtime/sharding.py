"""Parameters that are split over processes (FSDP2): who holds what, and who does what.

Every process must run the same forwards and backwards, because each of them gathers the parameters
from all. So the rollouts of each prompt are shared out, not the prompts. Duck-typed: not every
build of torch has ``torch.distributed.fsdp`` and ``.tensor``, and older ones have them elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from passk_guard.runtime.processes import world

__all__ = ["is_sharded", "local_part", "my_rollouts", "reshard"]


def is_sharded(parameters: Iterable[Tensor]) -> bool:
    """Whether any of them is split over processes."""
    return any(not how.is_replicate() for p in parameters for how in _placements(p))


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
    index = rank + size * torch.arange(-(-n // size))
    return index.clamp(max=n - 1), size * (index < n).float()
