"""What a GPU was told to do and has not done yet: Python runs ahead of it."""

from __future__ import annotations

import time

import torch


def wait_for_gpu() -> float:
    """Wait until all that was queued is done.

    A look would wait for it all the same, and take for its own cost what training has queued.

    Returns:
        Seconds that it took; without a GPU in use, next to none.
    """
    began = time.perf_counter()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter() - began
