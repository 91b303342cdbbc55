"""verl: validation dumps, ``<step>.jsonl`` in ``trainer.validation_data_dir``; a line a rollout."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from passk_guard.counts.counts import Counts, PromptCount, gather
from passk_guard.counts.formats import Choices, Format, Source
from passk_guard.counts.lines import at, listed, read_lines, short
from passk_guard.counts.verdicts import Verdicts

_KEYS = frozenset({"input", "output", "score"})
# Its older trainer writes what JSON does not know, such as NumPy's booleans, as text.
_WORDS = {"true": 1.0, "false": 0.0, "none": float("nan")}
_NONE = PromptCount("", 0, 0)


def _recognises(source: Source) -> bool:
    if source.is_folder:
        steps = _steps(source)
        return bool(steps) and set(Source(steps[0]).first) >= _KEYS
    return set(source.first) >= _KEYS


def _steps(source: Source) -> list[Path]:
    """Dumps in a folder, in the order of their steps."""
    found = [p for p in source.path.glob("*.jsonl") if p.stem.isdigit()]
    return sorted(found, key=lambda path: int(path.stem))


def _read(source: Source, choices: Choices) -> Counts:
    if source.is_folder:
        steps = _steps(source)
        if len(steps) != 1:
            raise ValueError(
                f"{source.path} holds the dumps of several steps: "
                f"{listed(path.name for path in steps)}. Name one file; compare two of them to see "
                "what training changed."
                if steps
                else f"{source.path} holds no dump <step>.jsonl. Name one file."
            )
        source = Source(steps[0])
    path = source.path
    # Its own summary of a validation takes "acc" where a reward function gives it: the score may
    # have other parts, such as one for length.
    metric = choices.metric or ("acc" if "acc" in source.first else "score")
    judge = Verdicts(choices.threshold, _WORDS)
    remarks: list[str] = []
    seen: set[str] = set()  # rollouts whose lines may go on
    ids: dict[tuple[str, str], str] = {}
    found: dict[str, PromptCount] = {}
    outputs = rollouts = 0
    for number, line in read_lines(path, remarks):
        where = at(path, number)
        if not set(line) >= _KEYS or not isinstance(line["input"], str):
            raise ValueError(
                f"{where} is no rollout of verl: input, output or score is missing among "
                f"{sorted(line)}."
            )
        if metric not in line:
            raise ValueError(f"{where} has no {metric!r} (metric). It has {sorted(line)}.")
        if line.get("step") != source.first.get("step"):
            raise ValueError(
                f"{where} is of step {short(line.get('step'))}, the first line of "
                f"{short(source.first.get('step'))}. Give each step a file of its own."
            )
        outputs += 1
        # Several outputs of one rollout, as agents have them, carry the score of the whole. Their
        # inputs grow; the first, in the order in which verl writes them, is the prompt.
        key = _rollout(line.get("uid"))
        if key is not None:
            if key in seen:
                continue
            seen.add(key)
        rollouts += 1
        asked = line["input"], _plain(line.get("gts"))
        if asked not in ids:
            ids[asked] = _id(*asked)
        c, n = judge(line[metric], where)
        before = found.get(ids[asked], _NONE)
        found[ids[asked]] = PromptCount(
            ids[asked], before.correct + c, before.n + n, text=before.text or line["input"]
        )
    if outputs > rollouts:
        remarks.append(
            f"{path.name}: {outputs} outputs belong to {rollouts} rollouts, which are counted."
        )
    return gather(
        source.name,
        found.values(),
        verifier=f"verl: {metric}",
        settings={"step": source.first.get("step")} if "step" in source.first else {},
        remarks=[*remarks, *judge.remarks(path.name)],
    )


def _rollout(uid: Any) -> str | None:
    """``<prompt>_<rollout>`` of ``<prompt>_<rollout>_<output>``; ``None`` of anything else."""
    parts = uid.rsplit("_", 2) if isinstance(uid, str) else []
    if len(parts) != 3 or not (parts[1].isdigit() and parts[2].isdigit()):
        return None
    return f"{parts[0]}_{parts[1]}"


def _plain(answer: Any) -> str:
    return answer if isinstance(answer, str) else json.dumps(answer, sort_keys=True)


def _id(text: str, answer: str) -> str:
    """The same in every run: verl draws new ids each time. Equal texts may want two answers."""
    return hashlib.sha256(f"{text}\0{answer}".encode(errors="replace")).hexdigest()[:16]


VERL = Format(
    what="validation dumps of verl",
    recognises=_recognises,
    read=_read,
    takes=frozenset({"metric", "threshold"}),
)
