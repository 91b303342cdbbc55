"""A process in which other packages can be tried out, without a trace."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

import torch

__all__ = ["alone"]

# Set by launchers and clusters: one process is tried out here, whatever started it.
_LAUNCHERS = (
    *("ACCELERATE_", "FSDP_", "SLURM_", "OMPI_", "PMI_", "MPI_", "MV2_", "LSB_", "JSM_"),
    "TORCHELASTIC_",
)
_RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it would also leave a file in the home directory
    "DO_NOT_TRACK": "true",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it CUDA's matrix products are not repeatable
}
# Where packages would leave something behind as they are imported.
_CACHES = ("MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR")


@contextmanager
def alone() -> Iterator[Executor]:
    """One fresh process: silent, offline, outside any launcher, with repeatable kernels."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, get_context("spawn"), _settle, (folder,)) as process,
    ):
        yield process


def _settle(folder: str) -> None:
    for name in list(os.environ):
        if name in _RANKS or name.startswith(_LAUNCHERS):
            del os.environ[name]
    os.environ.update(_SETTINGS | dict.fromkeys(_CACHES, folder))
    torch.use_deterministic_algorithms(True, warn_only=True)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
