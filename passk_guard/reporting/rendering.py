"""Pages that need nothing else: no network, no script to be readable.

Whatever a prompt, a verifier's error or a file name holds is shown as text. Jinja escapes every
value, and characters that HTML has no place for are spelt out. A content security policy forbids
the page to load anything, and to run any script but its own, which sorts tables and reads the heat
map out.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import partial
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from passk_guard.reporting.visible import visible

_LONGEST = 400  # characters of a prompt


def render(template: str, texts: Mapping[int, str], **values: Any) -> str:
    """A template of this folder, with the style and the script that all pages have.

    Args:
        template: its file's name.
        texts: prompts by row, for the heat map.
        **values: what it shows.
    """
    environment = Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        finalize=_spelt,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": _number,
        "signed": partial(_number, sign="+"),
        "visible": lambda text: visible(str(text), _LONGEST),
    }
    script = _source("page.js")
    return environment.get_template(template).render(
        **values,
        texts=texts,
        style=_source("page.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def quoted(conflict: Mapping[str, Any]) -> dict[int, str]:
    """Prompts by row, as far as the record of a conflict quotes them."""
    named = [
        *conflict["prompts"],
        *(p[end] for p in conflict["pairs"] for end in ("first", "second")),
    ]
    return {one["row"]: visible(one["prompt"], _LONGEST) for one in named if "prompt" in one}


def _source(name: str) -> str:
    return (files("passk_guard.reporting") / name).read_text(encoding="utf-8")


def _spelt(value: Any) -> Any:
    return visible(value, len(value)) if type(value) is str else value  # not Markup


def _number(value: Any, digits: int = 3, sign: str = "") -> str:
    if value is None:
        return "–"
    return format(value, f"{sign}z.{digits}f").replace("-", "−")
