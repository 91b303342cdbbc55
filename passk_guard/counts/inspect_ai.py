"""inspect_ai: ``.eval`` and ``.json`` logs. They are read as they are, without inspect_ai."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from passk_guard.counts.counts import Counts, PromptCount, gather
from passk_guard.counts.formats import Choices, Format
from passk_guard.counts.lines import listed, short
from passk_guard.counts.source import Source
from passk_guard.counts.verdicts import Verdicts, chosen
from passk_guard.counts.zstd_zip import ZipMembers

__all__ = ["INSPECT_AI"]

_ZIP = b"PK\x03\x04"
# What its value_to_float makes of words.
_WORDS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
_RIGHT = 1.0  # as its reducer pass_at has it: partial credit is not right

Tally = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class _Log:
    """What a log has that matters here; samples as in the list of summaries."""

    path: Path
    header: Mapping[str, Any]
    samples: list[Mapping[str, Any]]

    @property
    def task(self) -> str:
        """Name of the task."""
        return str(_dict(self.header.get("eval")).get("task", ""))

    def __post_init__(self) -> None:
        for number, sample in enumerate(self.samples):
            scores = _dict(sample).get("scores", {})
            whole = isinstance(_dict(sample).get("id"), (str, int)) and (
                scores is None
                or (isinstance(scores, dict) and all(isinstance(s, dict) for s in scores.values()))
            )
            if not whole:
                raise ValueError(
                    f"{self.path}, sample {number}, is not what inspect_ai writes: "
                    f"{short(sample, 120)}."
                )


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _recognises(source: Source) -> bool:
    if source.is_folder:
        return bool(_logs(source))
    if source.head.startswith(_ZIP):
        return True
    return source.head.startswith(b"{") and b'"eval"' in source.head and b'"status"' in source.head


def _logs(source: Source) -> list[Path]:
    """Logs in a folder."""
    found = source.below("*.eval")
    return found or [p for p in source.below("*.json") if _recognises(Source(p))]


def _read(source: Source, choices: Choices) -> Counts:
    files = _logs(source) if source.is_folder else [source.path]
    logs = [_log(path) for path in files]
    if not logs:
        raise ValueError(f"{source.path} has no log of inspect_ai: no .eval and no .json file.")
    tasks: dict[str, list[str]] = {}
    for log in logs:
        tasks.setdefault(log.task, []).append(log.path.name)
    for task, names in tasks.items():
        if len(names) > 1:
            raise ValueError(
                f"{source.path} has several logs of the task {task}: {listed(names)}. Name "
                "one file."
            )
    found: list[PromptCount] = []
    remarks: list[str] = []
    names = []
    for log in logs:
        metric, verdicts, tally = _counted(log, choices)
        remarks += _said(log, verdicts)
        names.append(metric)
        texts = {str(s["id"]): s.get("input") for s in log.samples}
        start, group = (f"{log.task}/", log.task) if len(logs) > 1 else ("", None)
        for id, (c, n) in tally.items():
            text = texts[id]
            found.append(
                PromptCount(start + id, c, n, group, text if isinstance(text, str) else None)
            )
    return gather(
        source.name,
        found,
        verifier="inspect_ai: " + "; ".join(dict.fromkeys(names)),
        settings=_settings(logs[0].header),
        remarks=remarks,
    )


def _log(path: Path) -> _Log:
    """Read a log, finished or not."""
    if not Source(path).head.startswith(_ZIP) and path.suffix != ".eval":
        whole = _parsed(path.read_bytes(), str(path))
        samples = _dict(whole).get("samples")
        if not isinstance(samples, list):
            raise ValueError(
                f"{path} has no samples: it is the header of a log, or was written with "
                "--no-log-samples. Give the whole log."
            )
        return _Log(path, whole, samples)
    with ZipMembers(path) as members:
        names = set(members.names)

        def of(name: str) -> Any:
            return _parsed(members.read(name), f"{path}, {name}")

        def listed_in(name: str) -> list[Any]:
            if not isinstance(found := of(name), list):
                raise ValueError(f"{path}, {name}, is not what inspect_ai writes: no list.")
            return found

        if "header.json" in names:
            header = _dict(of("header.json"))
        elif "_journal/start.json" in names:
            header = _dict(of("_journal/start.json")) | {"status": "started"}
        else:
            raise ValueError(
                f"{path} is a zip file, but no log of inspect_ai: it has no header.json."
            )
        # Summaries have what is needed, without transcripts, which may be a thousand times longer.
        if "summaries.json" in names:
            return _Log(path, header, listed_in("summaries.json"))
        parts = [n for n in members.names if n.startswith("_journal/summaries/")]
        parts.sort(key=lambda name: int(Path(name).stem) if Path(name).stem.isdigit() else 0)
        if parts:
            every = _Log(path, header, [s for name in parts for s in listed_in(name)]).samples
            again = {(s["id"], str(s.get("epoch"))): s for s in every}
            return _Log(path, header, list(again.values()))
        full = [n for n in members.names if n.startswith("samples/") and n.endswith(".json")]
        return _Log(path, header, [of(name) for name in full])


def _parsed(data: bytes, where: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON: {error}. Copy the log again.") from None


def _counted(log: _Log, choices: Choices) -> tuple[str, Verdicts, Tally]:
    """The score that decides, and the counts that it gives."""
    scored = [(s, s.get("scores") or {}) for s in log.samples]
    kinds: dict[str, list[str]] = {}  # keys of scores that are dicts or lists, by scorer
    for _, scores in scored:
        for name, score in scores.items():
            kinds.setdefault(name, [])
            value = score.get("value")
            if not kinds[name] and isinstance(value, (dict, list)):
                kinds[name] = [str(key) for key in _keys(value)]
    metrics = {
        f"{name}/{key}" if key else name: (name, key)
        for name, keys in kinds.items()
        for key in keys or [""]
    }
    threshold = _RIGHT if choices.threshold is None else choices.threshold
    judges: dict[str, Verdicts] = {}
    tallies: dict[str, Tally] = {}
    refused: list[ValueError] = []
    for metric, (name, key) in metrics.items():
        if choices.metric not in (None, metric):
            tallies[metric] = {}
            continue
        judges[metric] = judge = Verdicts(threshold, _WORDS)
        tally: Tally = {}
        try:
            for sample, scores in scored:
                where = f"{log.path}, sample {sample['id']!r}, epoch {sample.get('epoch')},"
                c, n = judge(_value(scores.get(name), key), where)
                before = tally.get(str(sample["id"]), (0, 0))
                tally[str(sample["id"])] = before[0] + c, before[1] + n
        except ValueError as error:  # a scorer may note something else than a score
            refused.append(error)
        else:
            tallies[metric] = tally
    if refused and not any(tallies.values()):
        raise refused[0]
    metric, tally = chosen(choices.metric, tallies, "metric", "scorers", str(log.path))
    return metric, judges[metric], tally


def _keys(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value) if isinstance(value, dict) else list(range(len(value)))


def _value(score: Mapping[str, Any] | None, key: str) -> Any:
    """The value under a key; a scorer that has no verdict gives a plain NaN or nothing."""
    value = None if score is None else score.get("value")
    if isinstance(value, dict):
        value = value.get(key)
    elif isinstance(value, list):
        value = value[int(key)] if key.isdigit() and int(key) < len(value) else None
    elif key and isinstance(value, float) and math.isnan(value):
        value = None
    return value


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


def _settings(header: Mapping[str, Any]) -> dict[str, Any]:
    """Model, temperature and the like."""
    asked = _dict(header.get("eval"))
    generate = _dict(asked.get("model_generate_config"))
    generate |= _dict(_dict(header.get("plan")).get("config"))
    known = {"model": asked.get("model")}
    known |= {name: generate.get(name) for name in ("temperature", "top_p", "max_tokens")}
    return {name: value for name, value in known.items() if value is not None}


INSPECT_AI = Format(
    what="logs of inspect_ai (.eval, .json)",
    recognises=_recognises,
    read=_read,
    takes=frozenset({"metric", "threshold"}),
)
