"""The guard's settings, checked at once: a bad argument fails before training starts."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import InitVar, dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypedDict

from passk_guard.checks import (
    check_between,
    check_bytes,
    check_call,
    check_column,
    check_filter,
    check_flag,
    check_one_of,
    check_whole,
)
from passk_guard.detection import DETECTORS
from passk_guard.gradients import ENGINES
from passk_guard.gradients.accumulators import DEFAULT_MEMORY_LIMIT
from passk_guard.gradients.parameters import ParameterFilter
from passk_guard.objectives import ESTIMATORS
from passk_guard.remedies import ACTIONS, CONTROLLERS
from passk_guard.remedies.remedy import REMEDIES

Action = str | Callable[..., Any]
# The list first: jsonargparse (LightningCLI) takes the first that fits, and would save a list as
# the import path of a callable.
Actions = list[Action] | Action
Names = list[str] | str

if TYPE_CHECKING:
    _Actions = Actions
    _Floor = str | float
    _Names = Names
    _Parameters = ParameterFilter
    _Rollouts = int | None
    _Seed = int
else:
    # transformers' and TRL's argument parsers read the settings' types at run time, and know one
    # simple type for each. What they give is a string, which __post_init__ takes apart.
    _Actions = _Floor = _Names = str
    _Parameters = str | None
    # The parsers take each name once, and these two are the trainers' own: no fields, for them.
    _Rollouts = InitVar[int | None]
    _Seed = InitVar[int]

_ON_ERROR = ("continue", "raise")
_ON_ERROR_VARIABLE = "PASSK_GUARD_ON_ERROR"
LEAST_PROMPTS = 4
"""In a probe: the variance of a U-statistic needs as many."""
_WHOLE = {
    "k": 1,
    "reference_prompts": LEAST_PROMPTS,
    "rollouts_per_look": 1,
    "seed": 0,
    "every": 1,
    "num_generations": 1,
}
# Ends are left out; 0 is allowed where the lower one is just below it.
_RANGES = {
    "false_alarms": (0.0, 0.5),
    "pass1_tolerance": (-1e-12, 1.0),
    "max_overhead": (0.0, 1.0),
    "report_temperature": (-1e-12, 100.0),
    "verifier_timeout": (0.0, 4e6),  # what a timer takes on every system
}
_OPTIONAL = ("every", "num_generations", "max_overhead", "report_temperature")


class Settings(TypedDict, total=False):  # noqa: D101  # its docstring is the config's
    k: int
    reference_prompts: int
    num_generations: int | None
    rollouts_per_look: int
    every: int | None
    max_overhead: float | None
    action: Actions
    pass1_tolerance: float
    floor: str | float
    false_alarms: float
    watch: str
    metric: str
    engine: str
    detectors: Names
    controller: str
    report_temperature: float | None
    group_by: str | None
    weight_by: str | None
    parameters: ParameterFilter
    memory_limit: int
    verifier_timeout: float
    log_prompts: bool
    journal: bool | None
    on_error: str | None
    seed: int


@dataclass(frozen=True, eq=False)
class PassKGuardConfig:
    """Settings of a guard, the same on every trainer.

    A dataclass that ``HfArgumentParser`` and ``TrlParser`` can fill, from the command line or YAML,
    beside the trainer's own arguments; pass it on as
    ``PassKGuardCallback(trainer, **vars(config))``. A parser takes each name once, so
    ``num_generations`` and ``seed`` come from the trainer's arguments.

    Attributes:
        k: the k that the run optimises.
        objective: ``None`` leaves the trainer's advantages alone; ``"pkpo"``, ``"analytic"``,
            ``"best_minus_second"``, ``"maxrl"`` or a registered one installs pass@k ones.
        reference_prompts: prompts of the pool that every look solves again, all of a smaller pool.
        num_generations: rollouts of each at the start, more than ``k``; ``None`` means 3k/2, at
            least 4.
        rollouts_per_look: fresh rollouts at each later look, spread evenly over these prompts: one
            of each at least, and no more than at the start.
        every: optimizer steps between probes; ``None`` spaces them by ``max_overhead``.
        max_overhead: share of wall time that probes may take; 0.02 where ``every`` is ``None`` too.
        action: ``"warn"``, ``"mix"`` (a pass@1 term), ``"adjust_k"``, ``"checkpoint"``, ``"stop"``,
            the name of a registered one, a callable ``f(look, guard)`` run at an alarm, or a list;
            ``"warn,mix"`` is one, too.
        pass1_tolerance: how far pass@1 may fall below its floor.
        floor: ``"start"``, ``"best"`` so far by its lower bound, or a number.
        false_alarms: chance of a false alarm per look (a probe, or stored rollouts scored again),
            all alarms together.
        watch: ``"update"`` tests the update in force, ``"target_k"`` the pass@k gradient.
        metric: inner products of gradients: ``"euclidean"``, or ``"adam"`` along the steps that
            Adam takes.
        engine: what takes per-prompt gradients: ``"hooks"`` watches layers, many prompts per
            backward, ``"backward"`` takes one for each, ``"auto"`` the first where it can. See
            :mod:`passk_guard.gradients.engine`.
        detectors: what raises alarms, a list or ``"alignment,level"``; they share
            ``false_alarms``. See :mod:`passk_guard.detection.detector`.
        controller: what decides how strongly a remedy acts: ``"mpc"`` goes by where pass@1 is
            heading; see :mod:`passk_guard.remedies.controller`.
        report_temperature: also measure pass@1 at this temperature, the one that production
            serves; 0 is greedy.
        group_by: column; each of its values has a pass@1, a floor and a verdict of its own.
        weight_by: column with each prompt's weight, such as its share of production traffic.
        parameters: parameters to differentiate with respect to: a regular expression, a
            callable ``f(name, parameter)`` or ``None`` for all trainable ones.
        memory_limit: bytes that a probe's gradients may take; above it they are sketched.
        verifier_timeout: seconds after which a hanging verifier is reported; an async one is
            interrupted.
        log_prompts: let prompt text, not only row ids, into alarms, tables and the JSONL.
        journal: whether each look is written to ``passk_guard.jsonl`` in the run's folder, which
            ``passk-guard report`` reads; ``None``: where the trainer keeps files itself, which a
            Lightning trainer without logger and checkpoints does not.
        on_error: what becomes of a fault of the guard, of the verifier or of a reporter while
            training: ``"continue"`` drops that probe (or log entry) with a warning; ``"raise"``
            ends the run, for tests and for development. ``None`` reads the environment variable
            ``PASSK_GUARD_ON_ERROR``, and is ``"continue"`` where that is not set.
        seed: seed of the guard's own draws.
    """

    k: int = 8
    objective: str | None = None
    reference_prompts: int = 512
    num_generations: _Rollouts = None
    rollouts_per_look: int = 1024
    every: int | None = None
    max_overhead: float | None = None
    action: _Actions = "warn"
    pass1_tolerance: float = 0.01
    floor: _Floor = "start"
    false_alarms: float = 1e-3
    watch: str = "update"
    metric: str = "euclidean"
    engine: str = "auto"
    detectors: _Names = "alignment,level"
    controller: str = "mpc"
    report_temperature: float | None = None
    group_by: str | None = None
    weight_by: str | None = None
    parameters: _Parameters = None
    memory_limit: int = DEFAULT_MEMORY_LIMIT
    verifier_timeout: float = 300.0
    log_prompts: bool = False
    journal: bool | None = None
    on_error: str | None = None
    seed: _Seed = 0

    def __post_init__(self, *hidden: Any) -> None:
        """Check every argument that can be checked alone; numbers become plain Python ones."""
        for name, value in zip(("num_generations", "seed"), hidden, strict=True):
            self._set(name, value)
        if isinstance(self.action, str) and "," in self.action:
            self._set("action", _parts(self.action))
        if isinstance(self.floor, str):
            with suppress(ValueError):
                self._set("floor", float(self.floor))
        for name, least in _WHOLE.items():
            if getattr(self, name) is not None or name not in _OPTIONAL:
                self._set(name, check_whole(name, getattr(self, name), least))
        for name, (low, high) in _RANGES.items():
            if getattr(self, name) is not None or name not in _OPTIONAL:
                self._set(name, check_between(name, getattr(self, name), low, high))
        if self.journal is not None:
            self._set("journal", check_flag("journal", self.journal))
        if self.on_error is not None:
            check_one_of("on_error", self.on_error, _ON_ERROR, or_none=True)
        elif variable := os.environ.get(_ON_ERROR_VARIABLE):
            check_one_of(_ON_ERROR_VARIABLE, variable, _ON_ERROR)
        if self.objective is not None:
            check_one_of("objective", self.objective, tuple(ESTIMATORS), or_none=True)
        check_one_of("watch", self.watch, ("update", "target_k"))
        check_one_of("metric", self.metric, ("euclidean", "adam"))
        check_one_of("engine", self.engine, tuple(ENGINES))
        check_one_of("controller", self.controller, tuple(CONTROLLERS))
        self._check_detectors()
        if isinstance(self.floor, str):
            check_one_of("floor", self.floor, ("start", "best"), extra=" or a pass@1 such as 0.62")
        else:
            self._set("floor", check_between("floor", self.floor, 0.0, 1.0))
        if {"mix", "adjust_k"} <= {action for action in self.actions if isinstance(action, str)}:
            raise ValueError("action lists both 'mix' and 'adjust_k'. Choose one remedy.")
        for action in self.actions:
            if callable(action):
                check_call("action", action, "look, guard")
            else:
                known = ("warn", *REMEDIES, *(name for name in ACTIONS if name != "warn"))
                check_one_of("action", action, known, extra=" or a callable f(look, guard)")
        for name in ("group_by", "weight_by"):
            check_column(name, getattr(self, name))
        check_filter("parameters", self.parameters)
        self._set("memory_limit", check_bytes("memory_limit", self.memory_limit))
        self._set("log_prompts", check_flag("log_prompts", self.log_prompts))
        if self.num_generations is not None and self.num_generations <= self.k:
            raise ValueError(
                f"k={self.k} needs more than {self.k} rollouts per held-out prompt, got "
                f"num_generations={self.num_generations}. "
                f"Lower k, or raise num_generations to {self.k + 1} or better {_usual(self.k)}."
            )

    def _check_detectors(self) -> None:
        names = self.detectors
        names = _parts(names) if isinstance(names, str) else names
        if not isinstance(names, (list, tuple)) or not names or len(set(names)) < len(names):
            raise ValueError(
                f"detectors must be names such as 'alignment,level', got {self.detectors!r}."
            )
        for name in names:
            check_one_of("detectors", name, tuple(DETECTORS))
        self._set("detectors", list(names))

    def __eq__(self, other: object) -> bool:
        """Whether all settings are equal."""
        return vars(self) == vars(other) if isinstance(other, type(self)) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # lists are among the settings

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @classmethod
    def names(cls) -> list[str]:
        """Names of all settings."""
        return list(inspect.signature(cls).parameters)

    @property
    def actions(self) -> list[Action]:
        """The actions as a list."""
        return list(self.action) if isinstance(self.action, (list, tuple)) else [self.action]

    @property
    def remedy(self) -> str | None:
        """The remedy that the actions ask for."""
        return next((a for a in self.actions if isinstance(a, str) and a in REMEDIES), None)

    @property
    def strict(self) -> bool:
        """Whether a fault while training is raised."""
        return (self.on_error or os.environ.get(_ON_ERROR_VARIABLE)) == "raise"

    @property
    def n(self) -> int:
        """Rollouts per held-out prompt at the start."""
        return self.num_generations or _usual(self.k)

    def rollouts(self, prompts: int) -> int:
        """Fresh rollouts of each of so many prompts at a later look."""
        return min(max(self.rollouts_per_look // prompts, 1), self.n)


Settings.__doc__ = PassKGuardConfig.__doc__  # what LightningCLI shows as help


def check_keywords(callback: type, settings: Mapping[str, Any]) -> None:
    """Refuse keywords that a callback does not have.

    Raises:
        TypeError: names the keyword, and the one that was probably meant.
    """
    own = [name for name in inspect.signature(callback).parameters if name != "settings"]
    known = [*own, *Settings.__annotations__]
    for name in settings:
        if name not in known:
            close = get_close_matches(name, known, 1)
            meant = f" Did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"{callback.__name__} has no keyword {name!r}.{meant}")


def _usual(k: int) -> int:
    """With k + 1, the least that gradients allow, the weights of hard prompts get noisy."""
    return max(-(-3 * k // 2), 4)


def _parts(names: str) -> list[str]:
    """What commas separate."""
    return [part.strip() for part in names.split(",")]
