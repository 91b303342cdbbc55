"""The lane for machines with a GPU: where its tests compute, and when they are left out.

``PASSK_GUARD_GPU_REHEARSAL=1`` runs all of it on the CPU, at the same toy size. That shows that the
lane itself works, and nothing about a GPU.
"""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch

# Before the first kernel: cuBLAS repeats itself only with a workspace of a fixed size.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
REHEARSAL = os.environ.get("PASSK_GUARD_GPU_REHEARSAL") == "1"
DEVICE = "cpu" if REHEARSAL else "cuda"


def why_left_out() -> str | None:
    """Why tests marked ``gpu`` cannot run here; ``None`` where they can."""
    if REHEARSAL or torch.cuda.is_available():
        return None
    return (
        "no GPU: torch.cuda.is_available() is false. PASSK_GUARD_GPU_REHEARSAL=1 rehearses on the "
        "CPU"
    )


def has_bf16() -> bool:
    """Whether the device computes in bfloat16 by itself."""
    return REHEARSAL or torch.cuda.is_bf16_supported(including_emulation=False)


def optional(package: str) -> None:
    """Leave a test out where a package is missing that not everybody with a GPU has."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
