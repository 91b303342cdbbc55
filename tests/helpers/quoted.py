"""Figures in documents, compared with the results of the commands that are named beside them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from typing import Any

from places import ROOT

RESULTS = ROOT / "tests" / "benchmarks" / "results"


class Words(str):
    """A document without its line breaks, which notes what was asked for and found in it."""

    def __new__(cls, text):
        new = super().__new__(cls, text)
        new.found = set()
        return new

    def __contains__(self, said):
        if there := super().__contains__(said):
            self.found.add(said)
        return there


def words(name):
    return Words(" ".join((ROOT / name).read_text().split()))


def table(name):
    return list(csv.DictReader((RESULTS / name).read_text().splitlines()))


def figures(name):
    return json.loads((RESULTS / name).read_text())


def share(value, places=3):
    """As documents write it: .643."""
    return f"{float(value):.{places}f}".replace("0.", ".", 1)


def figures_left_out(document):
    text = str(document)
    known = [re.finditer(re.escape(said), text) for said in document.found]
    known.append(re.finditer(r"```.*?```|`[^`]*`|\]\([^)]*\)", text))  # code, links
    known.append(re.finditer(r"95 %|## All of them .* ## Choosing", text))  # it has its own test
    spans = [found.span() for several in known for found in several]
    return [
        text[max(figure.start() - 30, 0) : figure.end() + 20]
        for figure in re.finditer(r"(?<!Apache-)(?<![\w.])(?:\d*\.\d+|\d+(?= ?%))", text)
        if not any(low <= figure.start() and figure.end() <= high for low, high in spans)
    ]


def call_all(module: Mapping[str, Any], but: str) -> None:
    """Every test of a module, with each of its parameters: documents note what is found."""
    for name, test in list(module.items()):
        if name.startswith("test_") and name != but:
            marks = getattr(test, "pytestmark", [])
            for values in marks[0].args[1] if marks else [()]:
                test(*(values if isinstance(values, tuple) else [values]))
