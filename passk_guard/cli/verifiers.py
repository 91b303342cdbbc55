"""The verifier that a command line names."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from passk_guard.errors import reason_of

Verifier = Callable[..., Any]
_FORMS = "math, my_module:verify or path/to/file.py:verify"


def named_verifier(name: str) -> Verifier:
    """``math``, or a function as ``my_module:verify`` or ``path/to/file.py:verify``.

    Raises:
        ValueError: it names nothing that can be called.
    """
    if name == "math":
        return _math_verifier()
    source, colon, attribute = name.rpartition(":")
    if not colon or not source or not attribute:
        raise ValueError(f"--verifier {name} names no verifier. Give {_FORMS}.")
    module = _module(source, name)
    found: Any = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        there = [n for n in vars(module) if callable(vars(module)[n]) and not n.startswith("_")]
        raise ValueError(
            f"--verifier {name}: {source} has no function {attribute!r}. It has: "
            f"{', '.join(there[:10]) or 'none'}."
        )
    verifier: Verifier = found
    return verifier


def _module(source: str, name: str) -> Any:
    try:
        if not source.endswith(".py"):
            if os.getcwd() not in sys.path:  # as python itself has it
                sys.path.insert(0, os.getcwd())
            return importlib.import_module(source)
        path = Path(source)
        if not path.is_file():
            raise ValueError(f"--verifier {name}: there is no file {source}.")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None, "the name ends in .py"
        assert spec.loader is not None, "a file has one"
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        return module
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(
            f"--verifier {name}: {source} cannot be imported: {reason_of(error)}."
        ) from error


def _math_verifier() -> Verifier:
    """Math-verify against the column ``answer``; of ``... #### 42`` what stands behind."""
    try:
        from math_verify import parse, verify
    except ImportError:
        raise ValueError(
            "--verifier math needs math-verify: pip install math-verify. Or name a function of "
            "yours: my_module:verify."
        ) from None

    def math(completions: list[Any], answer: list[Any], **_: Any) -> list[float]:
        gold = [parse(str(one).rpartition("####")[2].strip()) for one in answer]
        said = [parse(_text(completion)) for completion in completions]
        return [float(verify(g, s)) for g, s in zip(gold, said, strict=True)]

    return math


def _text(completion: Any) -> str:
    return str(completion if isinstance(completion, str) else completion[-1]["content"])
