"""Checkpoints in a folder that a trainer writes to: which are whole, and their weights."""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Trainer, TRL, Lightning's own exports; prime-rl; verl with hf_model among its saved contents.
_LAYOUTS = (
    r"checkpoint-(\d+)",
    r"step_(\d+)",
    r"weights/step_(\d+)",
    r"global_step_(\d+)/actor/huggingface",
)
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True, order=True)
class Checkpoint:
    """One checkpoint.

    Attributes:
        step: optimizer steps done, as its name has it.
        path: folder that transformers or PEFT can load.
    """

    step: int
    path: Path


def checkpoints(folder: Path, pattern: str | None = None) -> list[Checkpoint]:
    """All that are whole by now, in the order of their steps.

    Args:
        folder: that the trainer writes to.
        pattern: regular expression for a path below it, with one group, the step; by default the
            layouts of transformers and TRL (``checkpoint-N``), of prime-rl (``step_N``) and of
            verl (``global_step_N/actor/huggingface``).
    """
    layouts = _LAYOUTS if pattern is None else (pattern,)
    depth = max(layout.count("/") for layout in layouts) + 1
    found = {}
    for path in _folders(folder, depth):
        for layout in layouts:
            name = path.relative_to(folder).as_posix()
            if (match := re.fullmatch(layout, name)) and is_whole(path):
                found[int(match[1])] = path
    return sorted(Checkpoint(step, path) for step, path in found.items())


def _folders(folder: Path, depth: int) -> list[Path]:
    try:
        here = [path for path in folder.iterdir() if path.is_dir()]
    except OSError:  # rotated away meanwhile
        return []
    return here + [found for path in here if depth > 1 for found in _folders(path, depth - 1)]


def is_whole(path: Path) -> bool:
    """Whether config and weights are there, to the last byte of every shard."""
    try:
        if (path / "adapter_config.json").is_file():
            return any(_is_whole_file(path / name) for name in _ADAPTERS)
        if not (path / "config.json").is_file():
            return False
        for name in _WEIGHTS:
            index = path / f"{name}.index.json"
            if index.is_file():
                shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
                return all(_is_whole_file(path / shard) for shard in shards)
            if (path / name).is_file():
                return _is_whole_file(path / name)
    except (OSError, ValueError, KeyError):  # half-written, or rotated away meanwhile
        pass
    return False


def _is_whole_file(path: Path) -> bool:
    if path.suffix == ".bin":
        return zipfile.is_zipfile(path)  # torch's files end with their table of contents
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        tensors = json.loads(file.read(length))
    ends = [one["data_offsets"][1] for name, one in tensors.items() if name != "__metadata__"]
    return path.stat().st_size == 8 + length + max(ends, default=0)


def load_weights(model: Any, path: Path) -> None:
    """Put a checkpoint's weights into a model of the same architecture, in place.

    Raises:
        OSError, ValueError, RuntimeError: it cannot be read, or is of another architecture.
    """
    if (path / "adapter_config.json").is_file():
        from peft import load_peft_weights, set_peft_model_state_dict

        set_peft_model_state_dict(model, load_peft_weights(str(path), device="cpu"))
        return
    fresh = type(model).from_pretrained(path, dtype=next(model.parameters()).dtype)
    model.load_state_dict(fresh.state_dict())
