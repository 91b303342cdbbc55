"""Rollouts of a prompt as one line of JSON, so that an interrupted probe loses none of them."""

from __future__ import annotations

import base64
import math
import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from passk_guard.rollouts.group import RolloutGroup
from passk_guard.runtime.stored import Unfit, entry, flag, items, mapping, whole

__all__ = ["load_rollouts", "stored_rollouts"]

_TENSORS = ("input_ids", "attention_mask", "completion_mask")


def stored_rollouts(group: RolloutGroup) -> dict[str, Any]:
    """Tokens and verdicts, for JSON; ``null`` where the verifier gave no verdict.

    JSON has no infinite numbers, which some verifiers score with: they become text.
    """
    return {
        "shape": list(group.input_ids.shape),
        **{name: _packed(_whole(getattr(group, name))) for name in _TENSORS},
        "sampling_log_probs": None if group.told is None else _packed(group.told.cpu().numpy()),
        "success": _numbers(group.success),
        "rewards": None if group.rewards is None else _numbers(group.rewards),
        "truncated": None if group.truncated is None else group.truncated.tolist(),
    }


def load_rollouts(row: int, stored: Any) -> RolloutGroup:
    """What :func:`stored_rollouts` gave.

    Args:
        row: of the pool.
        stored: what it gave.

    Raises:
        Unfit: it is not whole.
    """
    n, length = (whole({"shape": size}, "shape", 1) for size in items(stored, "shape", 2))
    ids, attention, sampled = (
        _unpacked(entry(stored, name), name, n, length).long() for name in _TENSORS
    )
    rewards, told = stored.get("rewards"), stored.get("sampling_log_probs")
    cut = stored.get("truncated")  # earlier releases did not tell
    return RolloutGroup(
        row,
        ids,
        attention,
        sampled,
        success=_tensor(items(stored, "success", n)),
        rewards=None if rewards is None else _tensor(items(stored, "rewards", n)),
        sampling_log_probs=None
        if told is None
        else _unpacked(told, "sampling_log_probs", n, length).float(),
        truncated=None
        if cut is None
        else torch.tensor(
            [flag({"cut": one}, "cut") for one in items(stored, "truncated", n)], device="cpu"
        ),
    )


def _whole(values: Tensor) -> np.ndarray:
    array = values.cpu().numpy()
    is_mask = bool(((array == 0) | (array == 1)).all())
    return array.astype(np.int8 if is_mask else np.int32)


def _packed(array: np.ndarray) -> dict[str, str]:
    small = array if array.dtype.kind == "i" else array.astype(np.float32)
    data = base64.b64encode(zlib.compress(small.astype(small.dtype.newbyteorder("<")).tobytes()))
    return {"dtype": small.dtype.name, "data": data.decode()}


def _unpacked(stored: Any, name: str, n: int, length: int) -> Tensor:
    found = mapping({name: stored}, name)
    dtype = {"int32": "<i4", "int8": "<i1", "float32": "<f4"}.get(str(found.get("dtype")))
    if dtype is None:
        raise Unfit(f"{name} has the dtype {found.get('dtype')!r}, which is not known here")
    try:
        data = zlib.decompress(base64.b64decode(str(found.get("data")), validate=True))
        array = np.frombuffer(data, dtype).reshape(n, length)
    except (ValueError, zlib.error) as error:
        raise Unfit(f"{name} cannot be read: {error}") from None
    return torch.from_numpy(array.copy())


def _numbers(values: Tensor) -> list[float | str | None]:
    return [_number(value) for value in values.tolist()]


def _number(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else str(value)


def _tensor(values: list[Any]) -> Tensor:
    known = (int, float, type(None))
    if not all(isinstance(value, known) or value in ("inf", "-inf") for value in values):
        raise Unfit("verdicts must be numbers or null")
    each = [math.nan if value is None else float(value) for value in values]
    return torch.tensor(each, dtype=torch.float32, device="cpu")
