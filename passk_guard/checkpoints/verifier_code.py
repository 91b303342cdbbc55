"""Tells a verifier from another one of the same name: verdicts of both do not mean the same."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from contextlib import suppress
from typing import Any

__all__ = ["verifier_code"]


def verifier_code(func: Any) -> str | None:
    """16 hexadecimal digits from what a function, or an object's class, does.

    Comments and layout do not count; nor does what it calls. ``None`` where there is no text to
    read.

    >>> verifier_code(len) is None
    True
    """
    named = func if inspect.isroutine(func) else type(func)
    try:
        text = textwrap.dedent(inspect.getsource(inspect.unwrap(named)))
    except (OSError, TypeError):
        return None
    with suppress(SyntaxError):  # a lambda's line is only a part of something
        text = ast.dump(ast.parse(text))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
