"""The identity check: does a guard leave training untouched here, bit by bit?"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from passk_guard.cli.support import one_line
from passk_guard.cli.tiny_runs import LOOKS, Run, Trained

__all__ = ["Verdict", "check_identity"]


@dataclass(frozen=True)
class Verdict:
    """What the runs of one trainer showed.

    Attributes:
        trainer: which.
        verdict: ``"identical"``; ``"DIFFERENT"``; ``"cannot tell"``, where two runs without the
            guard differ; or ``"failed"``.
        remedy: ``"acts"``: after an alarm ``action="mix"`` changed training, as it should;
            ``"failed"``; or ``None`` where it was not tried.
        reason: of anything but success.
        device: that was trained on.
        seconds: that it took.
    """

    trainer: str
    verdict: str
    remedy: str | None
    reason: str | None
    device: str | None
    seconds: float

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong with the guard; where nothing can be told, that is so."""
        return self.verdict in ("identical", "cannot tell") and self.remedy != "failed"


def check_identity(trainer: str, run: Run) -> Verdict:
    """Train without the guard, again, and with it; then with an alarm and a remedy.

    Whatever goes wrong is part of the verdict: the next trainer is tried all the same.
    """
    began = time.perf_counter()
    verdict = "failed"
    remedy: str | None = None
    reason: str | None = None
    device: str | None = None
    try:
        with tempfile.TemporaryDirectory() as folder:
            plain, again = (run(Path(folder) / name, "plain") for name in ("plain", "again"))
            device = plain.device
            watched = run(Path(folder) / "watched", "watched")
            verdict, reason = compare(plain, again, watched)
            if verdict == "identical":
                remedy = "failed"
                reason = _remedy_fails(plain, run(Path(folder) / "remedied", "remedied"))
                remedy = "failed" if reason else "acts"
    except (Exception, SystemExit) as error:
        reason = one_line(error)
    seconds = round(time.perf_counter() - began, 1)
    return Verdict(trainer, verdict, remedy, reason, device, seconds)


def compare(plain: Trained, again: Trained, watched: Trained) -> tuple[str, str | None]:
    """The verdict on three runs, and a reason where it is not ``"identical"``.

    A check that cannot fail is none: weights must have moved, and the guard must have looked.
    """
    if _differing(plain.start, plain.end) == [] or not _finite(plain.end):
        return "failed", "training changed no weight, or made them NaN: nothing can be compared"
    if lost := watched.guard.failures:
        return "failed", f"{len(lost)} of {len(LOOKS)} probes were lost: {lost[0].reason}"
    if [probe.step for probe in watched.guard.history] != LOOKS:
        return "failed", f"the guard did not probe at steps {LOOKS}"
    if _differing(plain.end, again.end):
        return "cannot tell", (
            "two runs without the guard differ: training is not repeatable on this machine"
        )
    if names := _differing(plain.end, watched.end):
        return "DIFFERENT", (
            f"with the guard {len(names)} of {len(plain.end)} trained tensors differ, such as "
            f"{names[0]}: please report this, with the output of --json"
        )
    return "identical", None


def _remedy_fails(plain: Trained, remedied: Trained) -> str | None:
    guard: Any = remedied.guard
    if guard.failures:
        return f"with action='mix' a probe was lost: {guard.failures[0].reason}"
    if guard.objective is None:
        return "the pass@k objective cannot be installed in this release; the guard only watches"
    if not guard.pass1_weight > 0:
        return "action='mix' did not set in after an alarm"
    if not _differing(plain.end, remedied.end):
        return "action='mix' set in, but training went on as without it"
    return None


def _differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    if one.keys() != other.keys():
        return sorted(one.keys() ^ other.keys())
    return [name for name in one if not torch.equal(_bits(one[name]), _bits(other[name]))]


def _bits(tensor: Tensor) -> Tensor:
    """So that NaN equals itself, and 0 is not -0."""
    return tensor.flatten().view(torch.uint8)


def _finite(weights: dict[str, Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in weights.values())
