"""inspect_ai: ``.json`` logs, which are read as they are, and ``.eval`` logs, which it unpacks."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from passk_guard.counts.counts import Counts, PromptCount, gather
from passk_guard.counts.formats import Choices, Format, Source
from passk_guard.counts.lines import listed, short
from passk_guard.counts.verdicts import Verdicts, chosen, meant_for

_ZIP = b"PK\x03\x04"
# What its value_to_float makes of words.
_WORDS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
_RIGHT = 1.0  # as its reducer pass_at has it: partial credit is not right

Tally = dict[str, tuple[int, int]]


class _Sample(NamedTuple):
    """One epoch of one sample, without its transcript."""

    id: str
    epoch: Any
    text: str | None
    scores: Mapping[str, Any]


@dataclass(frozen=True)
class _Log:
    """All epochs of all samples, and everything else as ``header``."""

    path: Path
    header: Mapping[str, Any]
    samples: list[_Sample]

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


def _recognises(source: Source) -> bool:
    return bool(_logs_in(source)) if source.is_folder else _is_log(source)


def _read(source: Source, choices: Choices) -> Counts:
    logs = [_read_log(p) for p in (_logs_in(source) if source.is_folder else [source.path])]
    if not logs:
        raise ValueError(f"{source.path} has no log of inspect_ai: no .eval and no .json file.")
    tasks: dict[str, list[str]] = {}
    for log in logs:
        tasks.setdefault(log.task, []).append(log.path.name)
    for task, names in tasks.items():
        if len(names) > 1:
            raise ValueError(
                f"{source.path} has several logs of the task {task}: {listed(names)}. Name one "
                "file."
            )
    found: list[PromptCount] = []
    remarks: list[str] = []
    metrics: list[str] = []
    scorers = [_metrics(log) for log in logs]
    for log, known in zip(logs, scorers, strict=True):
        wanted = meant_for(choices.metric, known, scorers)
        metric, verdicts, tally = _counted(log, known, wanted, choices.threshold)
        remarks += _said(log, verdicts)
        metrics.append(metric)
        texts = {sample.id: sample.text for sample in log.samples}
        start, group = (f"{log.task}/", log.task) if len(logs) > 1 else ("", None)
        found += [PromptCount(start + id, *tally[id], group, texts[id]) for id in tally]
    return gather(
        source.name,
        found,
        verifier="inspect_ai: " + "; ".join(dict.fromkeys(metrics)),
        settings=_settings(logs[0]),
        remarks=remarks,
    )


def _is_log(source: Source) -> bool:
    """By its first bytes."""
    head = source.head
    return head.startswith(_ZIP) or (
        head.startswith(b"{") and b'"eval"' in head and b'"status"' in head
    )


def _logs_in(source: Source) -> list[Path]:
    """The logs of a folder: the ``.eval`` files, or else the ``.json`` files."""
    return source.below("*.eval") or [p for p in source.below("*.json") if _is_log(Source(p))]


def _read_log(path: Path) -> _Log:
    """Read a log, finished or not.

    Raises:
        ValueError: it is damaged, has no samples, or is no log.
        ModuleNotFoundError: it is packed, and inspect_ai is not installed.
    """
    if Source(path).head.startswith(_ZIP) or path.suffix == ".eval":
        return _unpacked(path)
    try:
        header = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}. Copy the log again.") from None
    samples = header.pop("samples", None) if isinstance(header, dict) else None
    if not isinstance(samples, list):
        raise ValueError(
            f"{path} has no samples: it is the header of a log, or was written with "
            "--no-log-samples. Give the whole log."
        )
    return _Log(path, header, list(_samples(samples, path)))


def _unpacked(path: Path) -> _Log:
    """By inspect_ai itself: the header and the summaries, not the long transcripts."""
    try:
        log = import_module("inspect_ai.log")
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{path} is a packed log, and reading it needs inspect_ai: pip install inspect_ai. "
            "Where it is installed, `inspect log convert --to json` makes one that is read "
            "without it."
        ) from None
    try:
        header = log.read_eval_log(str(path), header_only=True).model_dump()
        samples = [one.model_dump() for one in log.read_eval_log_sample_summaries(str(path))]
    except Exception as error:  # whatever its parts raise
        raise ValueError(
            f"{path} cannot be read by inspect_ai: {type(error).__name__}: {short(error, 200)}. "
            "Copy it again; where a run was killed, `inspect log recover` may save what is there."
        ) from None
    return _Log(path, header, list(_samples(samples, path)))


def _samples(samples: list[Any], path: Path) -> Iterator[_Sample]:
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
        text = one.get("input")
        yield _Sample(
            id=str(one["id"]),
            epoch=one.get("epoch"),
            text=text if isinstance(text, str) else None,
            scores={name: score.get("value") for name, score in scores.items()},
        )


def _counted(
    log: _Log,
    metrics: dict[str, tuple[str, str]],
    wanted: str | None,
    threshold: float | None,
) -> tuple[str, Verdicts, Tally]:
    """The score that decides, and the counts that it gives."""
    judges: dict[str, Verdicts] = {}
    tallies: dict[str, Tally] = {}
    refused: list[ValueError] = []
    for metric, (name, key) in metrics.items():
        if wanted not in (None, metric):
            tallies[metric] = {}
            continue
        judge = Verdicts(_RIGHT if threshold is None else threshold, _WORDS)
        judges[metric] = judge
        tally: Tally = {}
        try:
            for sample in log.samples:
                where = f"{log.path}, sample {sample.id!r}, epoch {sample.epoch},"
                c, n = judge(_under(key, sample.scores.get(name)), where)
                before = tally.get(sample.id, (0, 0))
                tally[sample.id] = before[0] + c, before[1] + n
        except ValueError as error:  # a scorer may note something else than a score
            refused.append(error)
        else:
            tallies[metric] = tally
    if refused and not any(tallies.values()):
        raise refused[0]
    metric, tally = chosen(wanted, tallies, "metric", "scorers", str(log.path))
    return metric, judges[metric], tally


def _metrics(log: _Log) -> dict[str, tuple[str, str]]:
    """Scorers by name; one that gives several values, as a dict or list, by ``name/key``."""
    keys: dict[str, list[str]] = {}
    for sample in log.samples:
        for name, value in sample.scores.items():
            if not keys.setdefault(name, []) and isinstance(value, (dict, list)):
                keys[name] = [
                    str(k) for k in (value if isinstance(value, dict) else range(len(value)))
                ]
    if not keys:
        status, error = log.header.get("status"), log.part("error").get("message")
        why = f": {short(error, 200)}" if error else ""
        ended = "" if status == "success" else f" Its run has the status {status!r}{why}."
        raise ValueError(
            f"{log.path} has no scores.{ended} Score it with `inspect score`, or run it again."
        )
    return {
        f"{name}/{key}" if key else name: (name, key)
        for name, of_name in keys.items()
        for key in of_name or [""]
    }


def _under(key: str, value: Any) -> Any:
    """The value under a key; a scorer that has no verdict gives a plain NaN or nothing."""
    if isinstance(value, dict):
        return value.get(key)
    if isinstance(value, list):
        return value[int(key)] if key.isdigit() and int(key) < len(value) else None
    return None if key and isinstance(value, float) and math.isnan(value) else value


def _said(log: _Log, verdicts: Verdicts) -> list[str]:
    name = log.path.name
    said = verdicts.remarks(name)
    if (status := log.header.get("status")) not in (None, "success"):
        said.append(
            f"{name}: the run has not ended well (status {status!r}); what is there counts."
        )
    if log.header.get("invalidated"):
        said.append(f"{name}: some of its samples were marked as invalid. They are counted.")
    return said


def _settings(log: _Log) -> dict[str, Any]:
    """Model, temperature and the like."""
    generate = {**log.part("eval", "model_generate_config"), **log.part("plan", "config")}
    known = {"model": log.part("eval").get("model")}
    known |= {name: generate.get(name) for name in ("temperature", "top_p", "max_tokens")}
    return {name: value for name, value in known.items() if value is not None}


INSPECT_AI = Format(
    what="logs of inspect_ai (.eval, .json)",
    recognises=_recognises,
    read=_read,
    takes=frozenset({"metric", "threshold"}),
)
