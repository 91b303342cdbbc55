"""Counts as JSONL or CSV: ``prompt_id``, ``correct``, ``n``; so is a probe's journal."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from passk_guard.counts.counts import Counts, PromptCount, gather
from passk_guard.counts.formats import Choices, Format, Source
from passk_guard.counts.lines import at, read_lines, short

_MANY = 2**53  # no file has as many rollouts
_LINE = 'such as {"prompt_id": "a", "correct": 3, "n": 8}'


def _prompt_counts(
    lines: Iterable[tuple[int, Mapping[str, Any]]], path: Path
) -> Iterator[PromptCount]:
    """One count a line; a line without ``n`` is one rollout: right, wrong or ``null``."""
    for number, line in lines:
        where = at(path, number)
        id = line.get("prompt_id")
        if isinstance(id, bool) or not isinstance(id, (str, int)) or id == "":
            raise ValueError(
                f"{where} has prompt_id={short(id)}. It names the prompt, by text or a whole "
                f"number, {_LINE}."
            )
        if "correct" not in line:
            raise ValueError(f"{where} has no 'correct', it has {sorted(line)}. A line is {_LINE}.")
        correct, n = _of_line(line["correct"], line.get("n"), where)
        group, text = line.get("group"), line.get("prompt")
        yield PromptCount(
            id=str(id),
            correct=correct,
            n=n,
            group=None if group is None or group != group else str(group),  # NaN: a table's gap
            text=text if isinstance(text, str) else None,
        )


def _of_line(correct: Any, n: Any, where: str) -> tuple[int, int]:
    if n is None:
        if correct is None or (isinstance(correct, float) and math.isnan(correct)):
            return 0, 0
        if correct not in (0, 1):
            raise ValueError(
                f"{where} has correct={short(correct)} and no n, so it is one rollout: true or "
                "false, 1 or 0. For several, add n, the number of rollouts."
            )
        return int(correct), 1
    c, total = _whole(correct), _whole(n)
    if c is None or total is None or not c <= total:
        raise ValueError(
            f"{where} has correct={short(correct)} of n={short(n)}. correct is the number of right "
            "rollouts, a whole number from 0 to n."
        )
    return c, total


def _whole(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if 0 <= value < _MANY and value == int(value) else None


def _recognises(source: Source) -> bool:
    return {"prompt_id", "correct"} <= set(source.first) or _is_csv(source)


def _is_csv(source: Source) -> bool:
    header = source.head.split(b"\n", 1)[0].decode("utf-8", "replace")
    return {"prompt_id", "correct"} <= {name.strip() for name in header.split(",")}


def _csv_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
        for row in reader:
            line: dict[str, Any] = {key: value or None for key, value in row.items() if key}
            for name in ("correct", "n"):
                if (value := line.get(name)) is not None:
                    line[name] = _number(value, name, at(path, reader.line_num))
            yield reader.line_num, line


def _number(text: str, name: str, where: str) -> float | bool:
    if (word := text.strip().lower()) in ("true", "false"):
        return word == "true"
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"{where} has {name}={text!r}, which is no number.") from None


def _read(source: Source, choices: Choices) -> Counts:
    remarks: list[str] = []
    lines: Iterable[tuple[int, Mapping[str, Any]]]
    if _is_csv(source):
        lines = _csv_lines(source.path)
    else:
        lines = read_lines(source.path, remarks)
    found = _prompt_counts(lines, source.path)
    return gather(source.name, found, remarks=remarks)


PLAIN = Format(
    what="counts: JSONL or CSV with prompt_id, correct, n",
    recognises=_recognises,
    read=_read,
)


# The others say which probe it is, and are to differ: weights, seed and the like.
_SAMPLING = ("temperature", "max_completion_length", "success_threshold")


def _is_probe(source: Source) -> bool:
    return source.first.get("passk_guard") == "probe"


def _read_probe(source: Source, choices: Choices) -> Counts:
    if not _is_probe(source):
        raise ValueError(
            f"{source.path} is no journal of `passk-guard probe`: that begins with a line "
            '{"passk_guard": "probe", ...}.'
        )
    remarks: list[str] = []
    given = source.first.get("settings")
    settings: dict[str, Any] = given if isinstance(given, dict) else {}

    def prompts() -> Iterator[PromptCount]:
        lines = read_lines(source.path, remarks)
        yield from _prompt_counts(
            ((number, line) for number, line in lines if line.get("look") == "prompt"), source.path
        )

    verifier = settings.get("verifier")
    return gather(
        source.name,
        prompts(),
        verifier=None if verifier is None else str(verifier),
        settings={key: settings[key] for key in _SAMPLING if key in settings},
        remarks=remarks,
    )


PROBE = Format(what="the journal of `passk-guard probe`", recognises=_is_probe, read=_read_probe)


def write_counts(counts: Counts, path: str | Path) -> None:
    """Write counts as JSONL: ``prompt_id``, ``correct``, ``n``, and ``group``, ``prompt`` if known.

    :func:`passk_guard.counts.read_counts` gives the same prompts and counts back. What the lines
    have no room for is lost: verifier, settings and remarks.

    Args:
        counts: to write.
        path: of the file; one that is there is replaced.

    Raises:
        OSError: it cannot be written.
    """
    with Path(path).open("w", encoding="utf-8") as file:
        for i, id in enumerate(counts.ids):
            line: dict[str, Any] = {
                "prompt_id": id,
                "correct": int(counts.correct[i]),
                "n": int(counts.n[i]),
            }
            if counts.groups is not None and counts.groups[i]:
                line["group"] = counts.groups[i]
            if id in counts.texts:
                line["prompt"] = counts.texts[id]
            file.write(json.dumps(line) + "\n")
