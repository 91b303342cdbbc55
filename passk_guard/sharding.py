"""Parameters that are split over processes (FSDP2): who holds what, and who does what.

Every process must run the same forwards and backwards, because each of them gathers the parameters
from all. So the rollouts of each prompt are shared out, not the prompts.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Replicate, Shard

from passk_guard.processes import world

__all__ = ["is_sharded", "local_part", "my_rollouts", "reshard"]


def is_sharded(parameters: Iterable[Tensor]) -> bool:
    """Whether any of them is split over processes."""
    return any(
        isinstance(p, DTensor) and any(not isinstance(how, Replicate) for how in p.placements)
        for p in parameters
    )


def reshard(module: nn.Module) -> None:
    """Let go of gathered parameters: after a forward without backward FSDP2 keeps the root's."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def local_part(gradient: Tensor) -> tuple[Tensor, int]:
    """What this process holds of a gradient, flat, and where that begins in the flattened whole.

    Raises:
        ValueError: it is split in another way than FSDP2 does, along the first dimension.
    """
    if not isinstance(gradient, DTensor):
        return gradient.detach().flatten(), 0
    if tuple(gradient.placements) != (Shard(0),):
        raise ValueError(
            f"a parameter is split as {gradient.placements}. passk-guard supports FSDP2 over one "
            "dimension of processes; not tensor parallelism, and not HSDP."
        )
    rows = -(-gradient.shape[0] // gradient.device_mesh.size())  # as torch.chunk gives them
    start = min(gradient.device_mesh.get_local_rank() * rows, gradient.shape[0])
    per_row = gradient.numel() // max(gradient.shape[0], 1)
    return gradient.to_local().detach().flatten(), start * per_row


def my_rollouts(n: int) -> tuple[Tensor, Tensor]:
    """This process's share of ``n`` rollouts, as many on every process.

    Returns:
        Their indices, and the weight of each: the number of processes, since gradients are averaged
        over them, or 0 where the share was filled up.
    """
    rank, size = world()
    index = rank + size * torch.arange(-(-n // size))
    return index.clamp(max=n - 1), size * (index < n).float()
