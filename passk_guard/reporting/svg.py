"""Figures as pictures inside a page, in its colours, light and dark."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from passk_guard.reporting.figures import BAD, BASE, GOOD, MUTED

_INK = "#010203"  # of text and axes; no figure uses it for anything else
_STYLE: Any = {  # releases differ in the type of a key
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "svg.fonttype": "path",  # looks the same wherever it is opened
    "svg.hashsalt": "passk-guard",  # and comes out the same each time
}
# In the dark lighter ones, at the same contrast.
_THEME = {
    _INK: ("ink", "#1c1c1a", "#ececea"),
    GOOD: ("good", GOOD, "#5fc47e"),
    BAD: ("bad", BAD, "#f0746a"),
    BASE: ("base", BASE, "#6fb1f0"),
    MUTED: ("muted", MUTED, "#a3a3a0"),
}


@dataclass(frozen=True)
class Picture:
    """A figure for ``<img>``.

    Attributes:
        uri: the SVG as a ``data:`` URI: it can load nothing and run nothing.
        alt: what it shows, in words.
        width, height: in CSS pixels.
        box: left, top, width and height of its first axes, as shares of the whole.
    """

    uri: str
    alt: str
    width: int
    height: int
    box: tuple[float, float, float, float]


def picture(draw: Callable[[], Figure], alt: str) -> Picture:
    """Draw a figure for a page that may be light or dark."""
    with mpl.rc_context(_STYLE):
        figure = draw()
        file = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    svg = file.getvalue()
    for color, (name, _, _) in _THEME.items():
        svg = svg.replace(color, f"var(--{name})")
    light, dark = (
        "".join(f"--{name}:{shades[at]};" for name, *shades in _THEME.values()) for at in (0, 1)
    )
    style = f"svg{{{light}}}@media(prefers-color-scheme:dark){{svg{{{dark}}}}}"
    svg = svg.replace("</style>", f"{style}</style>", 1)
    left, bottom, width, height = figure.axes[0].get_position().bounds
    inches = figure.get_size_inches() * 96
    return Picture(
        uri="data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode(),
        alt=alt,
        width=round(inches[0]),
        height=round(inches[1]),
        box=(left, 1 - bottom - height, width, height),
    )
