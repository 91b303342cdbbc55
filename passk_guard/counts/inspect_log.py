"""What a log of inspect_ai has of each sample, out of its zip file or its JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from passk_guard.counts.lines import short
from passk_guard.counts.source import Source
from passk_guard.counts.zstd_zip import ZipMembers

__all__ = ["InspectLog", "LogSample", "is_log", "logs_in", "read_log"]

_ZIP = b"PK\x03\x04"
_BETWEEN = re.compile(r"[\s,]*")


class LogSample(NamedTuple):
    """One epoch of one sample, without its transcript.

    Attributes:
        id: of the sample, the same in all its epochs.
        epoch: its number.
        text: what was asked, where that is text.
        scores: what each scorer has given.
    """

    id: str
    epoch: Any
    text: str | None
    scores: Mapping[str, Any]


@dataclass(frozen=True)
class InspectLog:
    """What a log has that matters here.

    Attributes:
        path: of it.
        header: everything but the samples.
        samples: all epochs of all of them.
    """

    path: Path
    header: Mapping[str, Any]
    samples: list[LogSample]

    def part(self, *names: str) -> Mapping[str, Any]:
        """A part of the header, by the names that lead to it; empty where it has none."""
        found: Any = self.header
        for name in names:
            found = found.get(name) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else {}

    @property
    def task(self) -> str:
        """Name of the task."""
        return str(self.part("eval").get("task", ""))


def is_log(source: Source) -> bool:
    """Whether a file is a log, by its first bytes."""
    head = source.head
    if head.startswith(_ZIP):
        return True
    return head.startswith(b"{") and b'"eval"' in head and b'"status"' in head


def logs_in(source: Source) -> list[Path]:
    """The logs of a folder: the ``.eval`` files, or else the ``.json`` files."""
    return source.below("*.eval") or [p for p in source.below("*.json") if is_log(Source(p))]


def read_log(path: Path) -> InspectLog:
    """Read a log, finished or not.

    Raises:
        ValueError: it is damaged, has no samples, or is no log.
        ModuleNotFoundError: nothing here reads its compression.
    """
    if Source(path).head.startswith(_ZIP) or path.suffix == ".eval":
        with ZipMembers(path) as members:
            return _unzipped(path, members)
    whole = _parsed(path.read_bytes(), str(path))
    samples = whole.pop("samples", None) if isinstance(whole, dict) else None
    if not isinstance(samples, list):
        raise ValueError(
            f"{path} has no samples: it is the header of a log, or was written with "
            "--no-log-samples. Give the whole log."
        )
    return InspectLog(path, whole, list(_thin(samples, path)))


def _unzipped(path: Path, members: ZipMembers) -> InspectLog:
    names = set(members.names)
    # A run that goes on has its beginning only.
    first = next((n for n in ("header.json", "_journal/start.json") if n in names), None)
    if first is None:
        raise ValueError(f"{path} is a zip file, but no log of inspect_ai: it has no header.json.")
    header = _parsed(members.read(first), f"{path}, {first},")
    header = header if isinstance(header, dict) else {}
    if first != "header.json":
        header["status"] = "started"

    def each(name: str) -> Iterator[Any]:
        return _elements(members.read(name), f"{path}, {name},")

    # Summaries have what is needed, without transcripts, which may be a thousand times longer.
    if "summaries.json" in names:
        return InspectLog(path, header, list(_thin(each("summaries.json"), path)))
    parts = [n for n in members.names if n.startswith("_journal/summaries/")]
    parts.sort(key=lambda name: int(Path(name).stem) if Path(name).stem.isdigit() else 0)
    if parts:
        every = _thin((one for name in parts for one in each(name)), path)
        # A sample that was run again is there twice; the last counts.
        last = {(sample.id, str(sample.epoch)): sample for sample in every}
        return InspectLog(path, header, list(last.values()))
    full = (n for n in members.names if n.startswith("samples/") and n.endswith(".json"))
    found = (_parsed(members.read(name), f"{path}, {name},") for name in full)
    return InspectLog(path, header, list(_thin(found, path)))


def _thin(samples: Iterable[Any], path: Path) -> Iterator[LogSample]:
    """What is needed of each, as it is read."""
    texts: dict[str, str | None] = {}
    for number, sample in enumerate(samples):
        one = sample if isinstance(sample, dict) else {}
        scores = one.get("scores") or {}
        if (
            not isinstance(one.get("id"), (str, int))
            or not isinstance(scores, dict)
            or not all(isinstance(score, dict) for score in scores.values())
        ):
            raise ValueError(
                f"{path}, sample {number}, is not what inspect_ai writes: {short(sample, 120)}."
            )
        id, text = str(one["id"]), one.get("input")
        yield LogSample(
            id=id,
            epoch=one.get("epoch"),
            text=texts.setdefault(id, text if isinstance(text, str) else None),
            scores={name: score.get("value") for name, score in scores.items()},
        )


def _parsed(data: bytes, where: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON: {error}. Copy the log again.") from None


def _elements(data: bytes, where: str) -> Iterator[Any]:
    """Of a JSON list, one by one: all at once would take much more memory than the text."""
    try:
        text = data.decode()
        place = _end(text, 0)
        if text[place : place + 1] != "[":
            raise ValueError("it is no list")
        decoder = json.JSONDecoder()
        place = _end(text, place + 1)
        while text[place : place + 1] != "]":
            element, place = decoder.raw_decode(text, place)
            yield element
            place = _end(text, place)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON: {error}. Copy the log again.") from None


def _end(text: str, place: int) -> int:
    """Of what stands between two elements."""
    found = _BETWEEN.match(text, place)
    return found.end() if found else place
