"""How much memory is free, and whether an error says that there is none."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import torch

from passk_guard.runtime.processes import world

# As accelerate's find_executable_batch_size knows them.
_RAN_OUT = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


def ran_out_of_memory(error: Exception) -> bool:
    """Whether half as much at once may go well."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _RAN_OUT)


def free_memory(device: torch.device) -> float:
    """Bytes that this process may take on a device; infinite where that is not known."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type != "cpu":
        return float("inf")
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 0)) or world()[1]
    return min(_of_machine(), *_of_containers()) / processes


def _of_machine() -> float:
    found = re.search(r"MemAvailable: *(\d+)", _read(Path("/proc/meminfo")))
    if found:
        return int(found[1]) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
    except (AttributeError, ValueError):  # Windows
        return float("inf")


def _of_containers() -> Iterator[float]:
    """What is left of the limits that containers and batch systems set: Linux's cgroups, v2."""
    own = re.search(r"(?m)^0::/(.*)", _read(Path("/proc/self/cgroup")))
    root = Path("/sys/fs/cgroup")
    for folder in (root, root / (own[1] if own else "")):
        most, used = _read(folder / "memory.max"), _read(folder / "memory.current")
        cache = re.search(r"(?m)^inactive_file (\d+)$", _read(folder / "memory.stat"))
        limited = most.strip().isdigit() and used
        yield int(most) - int(used) + int(cache[1] if cache else 0) if limited else float("inf")


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
