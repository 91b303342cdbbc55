"""As many digits as a sentence needs."""

from __future__ import annotations


def apart(*values: float, digits: int = 1, kind: str = "f") -> list[str]:
    """Numbers in as few digits as keep different ones apart.

    >>> apart(3.56, 3.58)
    ['3.56', '3.58']
    """
    for precision in range(digits, 17):
        texts = [f"{value:z,.{precision}{kind}}" for value in values]
        if len(set(texts)) == len(set(values)):
            break
    return texts
