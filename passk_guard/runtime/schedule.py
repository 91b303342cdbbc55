"""When to probe, and when to score stored rollouts again: at fixed steps, or within a budget."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from passk_guard.runtime.stored import Stored

Task = Literal["probe", "rescore"]

_CLOSEST = 10  # steps between self-spaced probes, at least
_CLOSEST_RESCORE = 5
_DEFAULT_OVERHEAD = 0.02
_MARGIN = 1.5  # a busy machine: the next one may well be dearer
_RESCORING = 0.25  # share of the budget that scoring again may take
_MOST = 3.0  # times the budget of a short run, that its first look may cost without a word


@dataclass(frozen=True)
class Forecast:
    """What a budget buys.

    Attributes:
        probe_steps: cost of a probe, in training steps.
        rescore_steps: cost of scoring stored rollouts again, in training steps; ``None`` where
            that is never done by itself.
        interval: training steps from one probe to the next.
        probes: number in the whole run, done ones included; ``None`` where its length is not known.
        first_steps: what the first look cost, with the reference; ``None`` after a resume.
        looks: the same with every time that stored rollouts are scored again between them.
    """

    probe_steps: float
    rescore_steps: float | None
    interval: float
    probes: int | None
    looks: int | None
    first_steps: float | None


class Schedule(Stored):
    """Decides which optimizer steps get a probe or a re-scoring. The first probe is due at once.

    Args:
        every: steps between probes; alone, it is kept to the letter, and stored rollouts are
            scored again at probes only.
        max_overhead: share of wall time that the guard may take, 0.02 where neither is given. A
            probe is due once it fits into the share of the time so far, its own cost included, and
            never closer than ``every`` (10) steps. Re-scoring, forward only, gets a quarter of the
            share, at most every 5 steps. The next one is taken to cost
            1.5 x the dearest of the last three of its kind.
    """

    _stored = ("_last", "_spent", "_training", "_steps")

    def __init__(self, every: int | None = None, max_overhead: float | None = None) -> None:
        self._closest = every or _CLOSEST
        self._overhead = max_overhead
        if every is None and max_overhead is None:
            self._overhead = _DEFAULT_OVERHEAD
        self._last: dict[str, int] = {}  # step of the last probe, of the last re-scoring
        self._costs: dict[str, list[float]] = {"probe": [], "rescore": []}  # the last few
        self._spent = {"probe": 0.0, "rescore": 0.0, "other": 0.0, "remedy": 0.0}
        self._first: float | None = None  # seconds of the first probe
        self._training = 0.0
        self._steps = 0.0

    def due(self, step: int) -> Task | None:
        """What should be done now that ``step`` optimizer steps are done."""
        last = self._last.get("probe")
        if last is None or step < last:  # a new run of the same trainer
            return "probe"
        if self._overhead is None:
            return "probe" if step >= last + self._closest else None
        if step >= last + self._closest and self._fits("probe", self._overhead):
            return "probe"
        measured = max(last, self._last.get("rescore", last))
        if step >= measured + _CLOSEST_RESCORE and self._fits(
            "rescore", _RESCORING * self._overhead
        ):
            return "rescore"
        return None

    def _fits(self, task: Task, share: float) -> bool:
        cost = _MARGIN * self._cost(task)
        # The remedy's own cost must not starve the probes that steer it.
        spent = self._spent["rescore"] if task == "rescore" else self.spent - self._spent["remedy"]
        return spent + cost <= share * (self._total + cost)

    def _cost(self, task: str) -> float:
        """The next one's, as far as known: the dearest of the last three."""
        return max(self._costs[task], default=0.0)

    def did(self, task: Task, step: int, seconds: float, again: float | None = None) -> None:
        """Note a probe or a re-scoring, lost or not.

        Args:
            task: which.
            step: optimizer steps done.
            seconds: cost of it.
            again: cost of the next one, if another.
        """
        if not self._last:
            self._first = seconds
        self._last[task] = step
        self._spent[task] += seconds
        self._costs[task] = [*self._costs[task][-2:], seconds if again is None else again]

    def also(self, seconds: float, *, remedy: bool = False) -> None:
        """Note time that went into anything else than training: reports, or the remedy's term.

        Both count in :attr:`share`; the remedy's is not held against the next probe.
        """
        self._spent["remedy" if remedy else "other"] += seconds

    def trained(self, seconds: float, steps: int = 1) -> None:
        """Note time spent on training."""
        self._training += seconds
        self._steps += steps

    @property
    def timed(self) -> bool:
        """Whether the clock has a say in it."""
        return self._overhead is not None

    def budget(self, seconds: float) -> float | None:
        """Seconds that the guard may take of a run of so many; ``None`` where no share is set."""
        return None if self._overhead is None else self._overhead * seconds

    @property
    def step_seconds(self) -> float | None:
        """What a training step takes; ``None`` before the first one was timed."""
        return self._training / self._steps if self._steps and self._training else None

    @property
    def spent(self) -> float:
        """Seconds that the guard took so far."""
        return sum(self._spent.values())

    @property
    def _total(self) -> float:
        return self._training + self.spent

    @property
    def share(self) -> float:
        """Share of the time so far that the guard took."""
        return self.spent / self._total if self._total else 0.0

    def forecast(self, total_steps: int | None) -> Forecast | None:
        """What is to be expected of a run; ``None`` before the first step was timed."""
        step = self.step_seconds
        if step is None:
            return None
        probe = self._cost("probe") / step
        if self._overhead is None:
            interval: float = self._closest
            probes = None if total_steps is None else total_steps // self._closest + 1
        else:
            share = (1 - _RESCORING) * self._overhead
            interval = max(probe / share, self._closest)
            probes = None
            if total_steps is not None:
                # The budget also pays for the first probe, with its reference.
                first = (self._spent["probe"] - self._cost("probe")) / step
                left = share * total_steps - max(first, 0.0)
                probes = 1 + max(0, int(min(left / max(probe, 1e-9), total_steps / interval)))
        rescore = self._cost("rescore") / step if "rescore" in self._last else None
        looks = probes
        if rescore is not None and probes is not None and total_steps is not None:
            share = _RESCORING * (self._overhead or _DEFAULT_OVERHEAD)
            closest = max(rescore / share, _CLOSEST_RESCORE)
            looks = max(probes, 1 + int(total_steps / min(closest, interval)))
        first_steps = None if self._first is None else self._first / step
        return Forecast(probe, rescore, interval, probes, looks, first_steps)

    @property
    def costs(self) -> dict[str, list[float]]:
        """Seconds that the last few looks of each kind took; restored apart, for they depend on
        the size of a look."""
        return {task: list(seconds) for task, seconds in self._costs.items()}

    @costs.setter
    def costs(self, costs: Mapping[str, list[float]]) -> None:
        self._costs = {task: list(costs[task]) for task in self._costs}


@dataclass(frozen=True)
class FirstLook:
    """What the first look will cost, by what its first chunk of prompts has cost.

    Attributes:
        chunks: number of chunks of the reference's prompts, the first one included.
        wanted: number of chunks in a run that is long enough.
        seconds: cost of the whole look.
        budget: seconds that the run's steps allow for all looks.
        over: whether the look exceeds the budget more than threefold all the same.
    """

    chunks: int
    wanted: int
    seconds: float
    budget: float
    over: bool


def plan_first_look(each: float, wanted: int, budget: float) -> FirstLook:
    """As many chunks of prompts as keep the look within three times the budget, one at least.

    Args:
        each: seconds that a chunk takes.
        wanted: chunks.
        budget: seconds for all looks of the run.

    >>> plan_first_look(5.0, 8, budget=6.0)
    FirstLook(chunks=3, wanted=8, seconds=15.0, budget=6.0, over=False)
    """
    chunks = max(1, min(wanted, int(_MOST * budget / max(each, 1e-9))))
    seconds = chunks * each
    return FirstLook(chunks, wanted, seconds, budget, over=seconds > _MOST * budget)


def wait_for_gpu() -> float:
    """Wait until a GPU has done all that was queued: Python runs ahead of it.

    A look would wait for it all the same, and take for its own cost what training has queued.

    Returns:
        Seconds that it took; without a GPU in use, next to none.
    """
    began = time.perf_counter()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter() - began
