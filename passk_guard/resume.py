"""What a resumed run takes up of its checkpoint: piece by piece, by what each piece rests on.

What the user wrote wins. A piece of state names the settings that it depends on, the held-out
prompts among them, and is taken up whole where they are as they were; else it starts afresh.
Action, tolerance, false-alarm chance and interval are in no piece: they may change at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from passk_guard.config import PassKGuardConfig
    from passk_guard.objectives import LiveObjective
    from passk_guard.pool import HeldOutPool

__all__ = ["Piece", "TakenUp", "current_form", "run_settings", "save_pieces", "take_up_pieces"]

State = dict[str, Any]


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Piece:
    """A part of the guard's state that is good or not as a whole.

    Attributes:
        name: in the state, and in messages unless it begins with an underscore.
        depends: names of the settings that it rests on.
        save: gives it, for ``torch.save``.
        load: takes it up.
        afresh: called where it is not taken up.
    """

    name: str
    depends: tuple[str, ...]
    save: Callable[[], Any]
    load: Callable[[Any], None]
    afresh: Callable[[], None] = field(default=_nothing)


@dataclass(frozen=True)
class TakenUp:
    """What became of a state.

    Attributes:
        kept: names of the pieces that go on.
        afresh: of those that start afresh.
        changed: by setting, what it was and what it is, where that made a piece start afresh.
    """

    kept: tuple[str, ...]
    afresh: tuple[str, ...]
    changed: Mapping[str, tuple[Any, Any]]

    @property
    def message(self) -> str | None:
        """What to say; ``None`` where all goes on."""
        if not self.changed:
            return None
        settings = ", ".join(
            f"{k}: {_short(a)} -> {_short(b)}" for k, (a, b) in self.changed.items()
        )
        afresh, kept = (
            ", ".join(name for name in names if not name.startswith("_")) or "nothing"
            for names in (self.afresh, self.kept)
        )
        return (
            f"this run goes on with settings other than its checkpoint's ({settings}). What you "
            f"wrote holds. Starts afresh: {afresh}. Goes on: {kept}."
        )


def save_pieces(pieces: Sequence[Piece], settings: Mapping[str, Any]) -> State:
    """The state of all pieces, by name, each with the settings that it depends on."""
    return {
        piece.name: {
            "depends": {name: settings[name] for name in piece.depends},
            "state": piece.save(),
        }
        for piece in pieces
    }


def take_up_pieces(
    pieces: Sequence[Piece], settings: Mapping[str, Any], state: Mapping[str, Any]
) -> TakenUp:
    """Load every piece whose settings are unchanged, whole.

    Args:
        pieces: in the order in which they are to be loaded.
        settings: of this run, by name.
        state: as :func:`save_pieces` gave it. A piece that it lacks starts afresh.

    Raises:
        Exception: a piece could not be loaded; all of them are as they were before.
    """
    before = [(piece, piece.save()) for piece in pieces]
    kept, afresh, changed = [], [], {}
    try:
        for piece in pieces:
            saved = state.get(piece.name)
            was = {} if saved is None else saved["depends"]
            now = {name: settings.get(name) for name in was}
            differs = {n: (was[n], now[n]) for n in was if was[n] != now[n]}
            if saved is None or differs:
                piece.afresh()
                afresh.append(piece.name)
                changed.update(differs)
            else:
                piece.load(saved["state"])
                kept.append(piece.name)
    except Exception:
        for piece, own in before:
            piece.load(own)
        raise
    return TakenUp(tuple(kept), tuple(afresh), changed)


def run_settings(
    config: PassKGuardConfig,
    pool: HeldOutPool,
    objective: LiveObjective | None,
    sampling: Mapping[str, Any],
) -> dict[str, Any]:
    """The settings that pieces may depend on, as plain values that compare equal after a resume.

    Args:
        config: of the run.
        pool: held-out prompts, by content.
        objective: as the user made it.
        sampling: what else decides what pass@1 means.
    """
    names = ("k", "num_generations", "prompts_per_probe", "seed", "watch", "metric", "floor")
    remedies = [action for action in config.actions if action in ("mix", "adjust_k")]
    settings = {
        **{name: getattr(config, name) for name in (*names, "group_by", "weight_by")},
        **sampling,
        "num_generations": config.n,
        "parameters": config.parameters,
        "prompts": pool.fingerprint,
        # A mix into the trainer's own advantages is no other objective until λ says so.
        "objective": getattr(objective, "estimator", None),
        "pass1_weight": 0.0 if objective is None else objective.pass1_weight,
        "remedy": remedies[0] if remedies else None,
    }
    return {name: _plain(value) for name, value in settings.items()}


def _plain(value: Any) -> Any:
    """A function by its name, a number of NumPy's as one of Python's."""
    if callable(value):
        return getattr(value, "__qualname__", type(value).__name__)
    return value.item() if isinstance(value, np.generic) else value


def current_form(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """A state in today's form. The first release's names no settings: all of it is taken up."""
    if "prober" not in state:
        return state
    prober, levels = state["prober"], state["prober"]["levels"]
    opened = prober["detector"]["active"]
    scale = {} if state["mix_scale"] is None else {"scale": state["mix_scale"]}
    pieces = {
        "open alarms": {"active": opened, "raised": opened},
        "pass@1 and its reference": levels,
        "_floor": levels["floor"],
        "pass@1 of the groups": levels["groups"],
        "_drift of pass@k": {},
        "alignment": {**prober, "cusum": prober["detector"]["cusum"]},
        "held-out order": state["pool"],
        "schedule": state["schedule"],
        "_costs": state["schedule"]["costs"],
        "named states": state["states"],
        "remedy": {
            "objective": {"k": state["k"], "pass1_weight": state["pass1_weight"], **scale},
            "controller": state["remedy"],
        },
    }
    return {name: {"depends": {}, "state": piece} for name, piece in pieces.items()}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:21]}..."
