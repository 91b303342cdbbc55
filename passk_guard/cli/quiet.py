"""What other packages print while they are tried out is not shown, and what they find is fixed."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import torch

__all__ = ["alone", "hushed"]

# Set by launchers and clusters: one process is tried out here, whatever started it.
_LAUNCHERS = ("ACCELERATE_", "FSDP_", "SLURM_", "OMPI_", "PMI_", "MPI_", "MV2_", "TORCHELASTIC_")
_RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it would also leave a file in the home directory
    "DO_NOT_TRACK": "true",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it CUDA's matrix products are not repeatable
}


@contextmanager
def hushed() -> Iterator[None]:
    """Within, nothing is printed: not by Python, by loggers, as warnings, nor by C libraries."""
    level = logging.root.manager.disable
    with open(os.devnull, "w") as nowhere, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sys.stdout.flush()
        sys.stderr.flush()
        kept = [os.dup(1), os.dup(2)]
        try:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
            logging.disable(logging.CRITICAL)
            with redirect_stdout(nowhere), redirect_stderr(nowhere):
                yield
        finally:
            logging.disable(level)
            for number, copy in enumerate(kept, start=1):
                os.dup2(copy, number)
                os.close(copy)


# Where packages would leave something behind as they are imported.
_CACHES = ("MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR")


@contextmanager
def alone() -> Iterator[None]:
    """Within, there is one process, no network, and torch's repeatable kernels where it has any.

    Caches that are filled at import lie in a temporary folder.

    To be entered before a framework is imported: some read their environment then.
    """
    kept = dict(os.environ)
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    for name in kept:
        if name in _RANKS or name.startswith(_LAUNCHERS):
            del os.environ[name]
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(_OFFLINE | dict.fromkeys(_CACHES, folder))
        try:
            torch.use_deterministic_algorithms(True, warn_only=True)
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            for name in os.environ.keys() - kept.keys():
                del os.environ[name]
            os.environ.update(kept)
