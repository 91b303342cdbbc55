"""What a resumed run takes up of its checkpoint: piece by piece, by what each piece rests on.

What the user wrote wins. A piece of state names the settings that it depends on, the held-out
prompts among them, and is taken up whole where they are as they were; else it starts afresh.
Action, tolerance, false-alarm chance and interval are in no piece: they may change at any time.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from passk_guard.config import PassKGuardConfig
from passk_guard.detection.episodes import DEFAULT_DETECTORS
from passk_guard.detection.named_states import StateWatch
from passk_guard.objectives.live import LiveObjective
from passk_guard.prober import Prober
from passk_guard.prompts.pool import HeldOutPool
from passk_guard.remedies.remedy import Remedy
from passk_guard.runtime.schedule import Schedule
from passk_guard.runtime.stored import Piece, Stored, TakenUp, save_pieces, take_up_pieces

SCHEMA = 1


class RunIdentity(Stored):
    """Which run this is: made as a run begins, and kept over its resumes.

    Attributes:
        id: eight hexadecimal digits, from the system's own source: no random state of the run's
            is touched.
        began: time in UTC, as ISO 8601 has it.
    """

    _stored = ("id", "began")

    def __init__(self) -> None:
        self.id = secrets.token_hex(4)
        self.began = datetime.now(UTC).isoformat(timespec="seconds")

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Be the run that :meth:`state_dict` was called in.

        Raises:
            ValueError: it names no run.
        """
        int(state["id"], 16)  # it becomes part of a file's name
        datetime.fromisoformat(state["began"])
        super().load_state_dict(state)


def run_settings(
    config: PassKGuardConfig,
    pool: HeldOutPool,
    objective: LiveObjective | None,
    sampling: Mapping[str, Any],
) -> dict[str, Any]:
    """The settings that pieces may depend on, as plain values that compare equal after a resume.

    Args:
        config: the run's.
        pool: held-out prompts, by content.
        objective: the user's own.
        sampling: further settings that decide what pass@1 means.
    """
    sizes = ("reference_prompts", "num_generations", "rollouts_per_look")
    names = ("k", *sizes, "seed", "watch", "metric", "floor")
    settings = {
        **{name: getattr(config, name) for name in (*names, "group_by", "weight_by")},
        **sampling,
        "num_generations": config.n,
        "parameters": config.parameters,
        "prompts": pool.fingerprint,
        # A mix into the trainer's own advantages is no other objective until λ says so.
        "objective": getattr(objective, "estimator", None),
        "pass1_weight": 0.0 if objective is None else objective.pass1_weight,
        "remedy": config.remedy,
        "controller": config.controller,
    }
    return {name: _plain(value) for name, value in settings.items()}


def _plain(value: Any) -> Any:
    """A function by its name, a number of NumPy's as one of Python's."""
    if callable(value):
        return getattr(value, "__qualname__", type(value).__name__)
    return value.item() if isinstance(value, np.generic) else value


def guard_pieces(
    prober: Prober,
    schedule: Schedule,
    states: StateWatch,
    objective: LiveObjective | None,
    remedy: Remedy | None,
    run: RunIdentity,
    sampling: Mapping[str, Any],
) -> list[Piece]:
    """All pieces of a guard's state, in the order in which they are loaded."""
    about = ("prompts", "weight_by", *sampling)
    return [
        Piece("_run", (), run.state_dict, run.load_state_dict),
        *_prober_pieces(prober, about),
        Piece("schedule", (), schedule.state_dict, schedule.load_state_dict),
        Piece(
            "_costs",
            ("reference_prompts", "rollouts_per_look"),
            lambda: schedule.costs,
            lambda costs: setattr(schedule, "costs", costs),
        ),
        Piece(
            "named states",
            (*about, "k"),
            *_together(states=states, verifier=prober.verifier),
        ),
        Piece(
            "remedy",
            ("k", "objective", "pass1_weight", "remedy", "controller"),
            *_together(objective=objective, remedy=remedy),
        ),
    ]


def _prober_pieces(prober: Prober, about: tuple[str, ...]) -> list[Piece]:
    """What a prober knows of pass@1 and of the alarms; ``about`` says which pass@1 is meant."""
    levels, detector = prober.levels, prober.detector
    reference = "pass@1 and its reference"
    evidence = (
        *about,
        *("k", "objective", "pass1_weight", "watch", "metric", "parameters"),
        *("reference_prompts", "num_generations", "rollouts_per_look"),
    )

    return [
        Piece("open alarms", (), detector.state_dict, detector.load_state_dict),
        Piece(
            reference,
            about,
            levels.state_dict,
            levels.load_state_dict,
            lambda: detector.forget(lambda kind: not kind.leading and kind.group is None),
        ),
        Piece(
            "_floor",
            (*about, "floor"),
            levels.floor.state_dict,
            levels.floor.load_state_dict,
            rests_on=(reference,),
        ),
        Piece(
            "pass@1 of the groups",
            (*about, "group_by"),
            levels.groups_state,
            levels.load_groups,
            lambda: detector.forget(lambda kind: kind.group is not None),
            rests_on=(reference,),
        ),
        Piece(
            "alignment",
            evidence,
            prober.alignment_state,
            prober.load_alignment,
            lambda: detector.forget(lambda kind: kind.leading),
        ),
        *(
            Piece(f"detector {name}", evidence, one.state_dict, one.load_state_dict)
            for name, one in detector.detectors.items()
            if name not in DEFAULT_DETECTORS  # the level's keeps none, the other's is above
        ),
    ]


def _together(**parts: Any) -> tuple[Callable[[], dict[str, Any]], Callable[[Any], None]]:
    """Saves and loads several objects as one; ``None`` stands for one that this run has not."""

    def save() -> dict[str, Any]:
        return {name: None if one is None else one.state_dict() for name, one in parts.items()}

    def load(state: Mapping[str, Any]) -> None:
        for name, one in parts.items():
            if one is not None and state[name] is not None:
                one.load_state_dict(state[name])

    return save, load


def guard_state(pieces: list[Piece], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint keeps of a guard."""
    return {"schema": SCHEMA, **save_pieces(pieces, settings)}


def load_guard_state(pieces: list[Piece], settings: Mapping[str, Any], state: Any) -> TakenUp:
    """Take up what :func:`guard_state` gave, as far as it can be."""
    schema = state.get("schema") if isinstance(state, Mapping) else None
    if schema == SCHEMA:
        return take_up_pieces(pieces, settings, state)
    for piece in pieces:
        piece.afresh()
    why = f"it has schema {schema}, and this release of passk-guard reads {SCHEMA}"
    return TakenUp((), tuple(piece.name for piece in pieces), {}, {"all of it": why})
