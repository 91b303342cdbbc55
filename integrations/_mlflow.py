"""Keys that MLflow takes: for one key that it cannot store it refuses all scalars of a look."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping

_LONGEST = 200  # MLflow itself stops at 250


def mlflow_keys(values: Mapping[str, float]) -> dict[str, float]:
    """The same values, with groups by keys that every store takes, and that still differ.

    A store of files makes a file of ``track``, so ``track/<group>`` could not be written beside it:
    it becomes ``track.<group>``. Signs of a label that MLflow refuses become underscores, and four
    hexadecimal digits tell it from its like.

    >>> mlflow_keys({"passk_guard/track": 0.5, "passk_guard/track/C++": 0.25})
    {'passk_guard/track': 0.5, 'passk_guard/track.C__-3079': 0.25}
    """
    return {_legal(key): value for key, value in values.items()}


def _legal(key: str) -> str:
    head, name, *label = key.split("/", 2)
    if not label:
        return key
    spelt = re.sub(r"[^0-9A-Za-z_\-. ]", "_", label[0])[:_LONGEST]
    if spelt != label[0]:
        spelt += f"-{zlib.crc32(key.encode()) & 0xFFFF:04x}"
    return f"{head}/{name}.{spelt}"
