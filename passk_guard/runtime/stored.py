"""What a checkpoint keeps, and how it is read back.

Objects name the attributes that they keep (:class:`Stored`). The guard's state is a list of pieces,
each of which a resumed run takes up as a whole or not at all (:class:`Piece`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from passk_guard.errors import reason_of

_KINDS: tuple[type, ...] = (bool, Real, str, dict, list)
_LONGEST_REASON = 160


class Unfit(ValueError):
    """A stored value that cannot be used, and why."""


class Stored:
    """Keeps its attributes named in ``_stored`` in a checkpoint, without leading underscores.

    They are plain values, arrays, or objects with a ``state_dict`` of their own, also in a dict.
    """

    _stored: ClassVar[tuple[str, ...]] = ()

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on after a resume, as plain values and tensors."""
        return {name.lstrip("_"): _plain(getattr(self, name)) for name in self._stored}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave.

        Raises:
            Unfit: a value is of another kind or shape; those before it are taken over.
            KeyError: a value is missing; likewise.
        """
        for name in self._stored:
            key = name.lstrip("_")
            setattr(self, name, _taken(getattr(self, name), state[key], key))


def _plain(value: Any) -> Any:
    if hasattr(value, "state_dict"):
        return value.state_dict()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _taken(now: Any, value: Any, key: str) -> Any:
    """A stored value in the place of the present one, whose kind it must have."""
    if hasattr(now, "load_state_dict"):
        now.load_state_dict(value)
        return now
    if value is None or now is None:
        return value
    if isinstance(now, np.ndarray):
        found = np.array(value, float)
        if found.shape != now.shape:
            raise Unfit(f"{key} must have the shape {now.shape}, got {found.shape}")
        return found
    kind = next(kind for kind in _KINDS if isinstance(now, kind))
    if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
        raise Unfit(f"{key} must be a {kind.__name__}, got {value!r:.40}")
    if isinstance(value, Mapping):
        return {name: _taken(now.get(name), one, name) for name, one in value.items()}
    return value


def check_finite(state: Any, key: str = "it") -> None:
    """See that there is no NaN among plain numbers, at any depth.

    >>> check_finite({"probe": [1.0, float("nan")]})
    Traceback (most recent call last):
    passk_guard.runtime.stored.Unfit: probe must be finite, got nan
    """
    if isinstance(state, float) and not math.isfinite(state):
        raise Unfit(f"{key} must be finite, got {state}")
    if isinstance(state, Mapping):
        for name, value in state.items():
            check_finite(value, str(name))
    elif isinstance(state, list | tuple):
        for value in state:
            check_finite(value, key)


def tensor(state: Mapping[str, Any], key: str, *shape: int, finite: bool = True) -> Tensor:
    """A stored tensor.

    Raises:
        Unfit: it is none, or of another shape, or not finite where it must be.
    """
    value = state[key]
    if not isinstance(value, Tensor) or value.shape != shape:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise Unfit(f"{key} must be a tensor of shape {shape}, got {got}")
    if finite and not bool(value.isfinite().all()):
        raise Unfit(f"{key} must be finite")
    return value


@dataclass(frozen=True)
class Piece:
    """A part of the guard's state that is good or not as a whole.

    Attributes:
        name: key in the state, and name in messages. One with an underscore in front is named
            only where it alone is concerned.
        depends: names of the settings that it rests on.
        save: returns the state, for ``torch.save``.
        load: takes a state over; raises where it is not what it must be.
        afresh: called where the piece starts afresh.
        rests_on: names of earlier pieces: where one of them starts afresh, so does this one.
    """

    name: str
    depends: tuple[str, ...]
    save: Callable[[], Any]
    load: Callable[[Any], None]
    afresh: Callable[[], None] = lambda: None
    rests_on: tuple[str, ...] = ()


@dataclass(frozen=True)
class TakenUp:
    """What became of a state.

    Attributes:
        kept: names of the pieces that go on.
        afresh: names of those that start afresh.
        changed: old and new value of each setting that made a piece start afresh.
        unfit: reason why a stored piece could not be loaded, by piece.
    """

    kept: tuple[str, ...]
    afresh: tuple[str, ...]
    changed: Mapping[str, tuple[Any, Any]]
    unfit: Mapping[str, str] = field(default_factory=dict)

    @property
    def message(self) -> str | None:
        """What to say; ``None`` where all goes on."""
        if not self.changed and not self.unfit:
            return None
        said = ""
        if self.changed:
            settings = ", ".join(
                f"{k}: {_cut(a, 24)} -> {_cut(b, 24)}" for k, (a, b) in self.changed.items()
            )
            said += (
                f"this run resumes with settings that differ from its checkpoint's ({settings}). "
                "The new settings apply. "
            )
        if self.unfit:
            reasons = "; ".join(f"{k.removeprefix('_')}: {why}" for k, why in self.unfit.items())
            said += f"not all of the guard state in this checkpoint can be read ({reasons}). "
        afresh, kept = (
            ", ".join(name for name in names if not name.startswith("_"))
            for names in (self.afresh, self.kept)
        )
        afresh = afresh or ", ".join(name.removeprefix("_") for name in self.afresh)
        return f"{said}Starts afresh: {afresh or 'nothing'}. Goes on: {kept or 'nothing'}."


def save_pieces(pieces: Sequence[Piece], settings: Mapping[str, Any]) -> dict[str, Any]:
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
    """Load every piece whose settings are unchanged and which is whole; the others start afresh.

    Nothing that is wrong with a state is raised: it costs the piece that it is found in, and those
    that rest on it.

    Args:
        pieces: pieces, in the order of loading.
        settings: this run's settings, by name.
        state: result of :func:`save_pieces`.
    """
    kept: list[str] = []
    afresh: list[str] = []
    changed: dict[str, tuple[Any, Any]] = {}
    unfit: dict[str, str] = {}
    for piece in pieces:
        before = piece.save()
        try:
            was = state[piece.name]["depends"]
            now = {name: settings.get(name) for name in was}
            differs = {name: (was[name], now[name]) for name in was if bool(was[name] != now[name])}
            changed.update(differs)
            loads = not differs and not set(piece.rests_on) & set(afresh)
            if loads:
                check_finite(state[piece.name]["state"])
                piece.load(state[piece.name]["state"])
        except Exception as error:
            loads = False
            unfit[piece.name] = _why(error)
            with suppress(Exception):  # a running guard's own state may hold what no load lets in
                piece.load(before)
        if loads:
            kept.append(piece.name)
        else:
            piece.afresh()
            afresh.append(piece.name)
    return TakenUp(tuple(kept), tuple(afresh), changed, unfit)


def _why(error: Exception) -> str:
    if isinstance(error, KeyError):
        return _cut(f"{error.args[0]} is missing", _LONGEST_REASON)
    return _cut(error if isinstance(error, Unfit) else reason_of(error), _LONGEST_REASON)


def _cut(value: Any, longest: int) -> str:
    text = str(value)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
