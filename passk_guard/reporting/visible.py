"""Text that comes from elsewhere, shown as what it is."""

from __future__ import annotations

import unicodedata

LONGEST = 160


def visible(text: str, longest: int = LONGEST) -> str:
    r"""Text on one line, at most ``longest`` characters before they are spelt out.

    Line breaks, control characters and characters that change the direction of what follows
    (Unicode categories C and Z) are spelt out.

    >>> visible("a\nb")
    'a\\nb'
    """
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    return "".join(
        char.encode("unicode_escape").decode()
        if char != " " and unicodedata.category(char)[0] in "CZ"
        else char
        for char in text
    )
