"""A run as its JSONL tells it, while it trains or after."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from passk_guard.reporting.journal import FILE_NAME
from passk_guard.reporting.record import Record
from passk_guard.reporting.snapshot import Snapshot


@dataclass(frozen=True)
class Run:
    """The lines of a run, sorted by kind; see :mod:`passk_guard.reporting.record`.

    Attributes:
        path: of the JSONL.
        start: settings, as of the last start or resume; empty where they were not written.
        resumed: steps at which the run was resumed, or started again.
        step: optimizer steps done, as of the last line; ``None`` where there is none.
        looks: probes and re-scorings, in order; in a run that started again, steps go back.
        lost: probes that failed.
        end: of training; ``None`` while it goes on, and where it was killed.
        damaged: lines that are no record, such as one that was cut off.
        foreign: lines of other runs than the last that started here; they are left out.
    """

    path: Path
    start: Record
    resumed: tuple[int, ...]
    step: int | None
    looks: tuple[Record, ...]
    lost: tuple[Record, ...]
    end: Record | None
    damaged: int
    foreign: int = 0

    @property
    def probes(self) -> list[Record]:
        """Looks with rollouts of their own."""
        return [look for look in self.looks if look["look"] == "probe"]

    @property
    def alarms(self) -> list[Record]:
        """Looks that raised one."""
        return [look for look in self.looks if "fired" in look]

    @property
    def pictures(self) -> list[Snapshot]:
        """Of probes, oldest first, each once."""
        records = [look["picture"] for look in (*self.looks, self.end or {}) if "picture" in look]
        by_step = {r["step"]: Snapshot.read(r["step"], r["k"], r) for r in records}
        return [by_step[step] for step in sorted(by_step)]

    @property
    def conflict(self) -> Record | None:
        """Prompts and pairs behind the conflict seen last; ``None`` where there was none."""
        found = [look["conflict"] for look in self.looks if "conflict" in look]
        return found[-1] if found else None

    @property
    def turnover(self) -> Record | None:
        """Prompts lost and won, with the step, as of the last probe that tells."""
        found = [{"step": p["step"], **p["turnover"]} for p in self.probes if "turnover" in p]
        return found[-1] if found else None


def read_run(folder: str | Path) -> Run:
    """Read a run.

    Args:
        folder: the run's ``output_dir`` or ``default_root_dir``, or the JSONL itself.

    Raises:
        FileNotFoundError: there is no such file; runs in folders below are named.
    """
    path = Path(folder)
    if path.is_dir():
        path = path / FILE_NAME
    if not path.is_file():
        raise FileNotFoundError(_missing(Path(folder)))
    records, damaged = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        record = _record(line)
        damaged += record is None
        if record is not None:
            records.append(record)

    ours = next((r.get("run") for r in reversed(records) if r["look"] == "start"), None)
    read = len(records)
    if ours is not None:
        records = [record for record in records if record.get("run", ours) == ours]

    def kind(*names: str) -> tuple[Record, ...]:
        return tuple(record for record in records if record["look"] in names)

    starts, ends = kind("start"), kind("end")
    return Run(
        path=path,
        start=starts[-1] if starts else {},
        resumed=tuple(record["step"] for record in starts[1:]),
        step=records[-1]["step"] if records else None,
        looks=kind("probe", "rescore"),
        lost=kind("lost"),
        end=ends[-1] if ends and records[-1] is ends[-1] else None,
        damaged=damaged,
        foreign=read - len(records),
    )


def _record(line: str) -> Record | None:
    try:
        record: Any = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and {"step", "look"} <= set(record) else None


def _missing(folder: Path) -> str:
    said = f"{folder} holds no {FILE_NAME}, which the guard writes into the run's folder"
    below = sorted(str(found.parent) for found in folder.glob(f"*/{FILE_NAME}"))[:5]
    if below:
        return f"{said}. There are runs below it: {', '.join(below)}."
    return (
        f"{said} (output_dir, or default_root_dir with Lightning). None is written with "
        "journal=False. In Lightning without logger and checkpoints it takes journal=True."
    )
