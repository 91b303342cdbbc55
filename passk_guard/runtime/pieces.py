"""State in pieces, each of which is taken up by a resumed run or not, as a whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from passk_guard.errors import reason_of
from passk_guard.runtime.stored import Unfit, check_finite

State = dict[str, Any]

_LONGEST_REASON = 160


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Piece:
    """A part of the guard's state that is good or not as a whole.

    Attributes:
        name: in the state, and in messages. One with an underscore in front follows another one,
            and is named only where it alone is concerned.
        depends: names of the settings that it rests on.
        save: gives it, for ``torch.save``.
        load: takes it up; raises where it is not what it must be.
        afresh: called where it is not taken up.
        rests_on: pieces further up the list that mean nothing without each other: where one of
            them starts afresh, so does this one.
    """

    name: str
    depends: tuple[str, ...]
    save: Callable[[], Any]
    load: Callable[[Any], None]
    afresh: Callable[[], None] = field(default=_nothing)
    rests_on: tuple[str, ...] = ()


@dataclass(frozen=True)
class TakenUp:
    """What became of a state.

    Attributes:
        kept: names of the pieces that go on.
        afresh: of those that start afresh.
        changed: by setting, what it was and what it is, where that made a piece start afresh.
        unfit: by piece, why what was stored of it could not be taken up.
    """

    kept: tuple[str, ...]
    afresh: tuple[str, ...]
    changed: Mapping[str, tuple[Any, Any]]
    unfit: Mapping[str, str] = field(default_factory=dict)

    @property
    def message(self) -> str | None:
        """What to say; ``None`` where all goes on."""
        said = []
        if self.changed:
            settings = ", ".join(
                f"{k}: {_short(a)} -> {_short(b)}" for k, (a, b) in self.changed.items()
            )
            said.append(
                f"this run resumes with settings that differ from its checkpoint's ({settings}). "
                "The new settings apply."
            )
        if self.unfit:
            reasons = "; ".join(f"{_readable(name)}: {why}" for name, why in self.unfit.items())
            said.append(f"not all of the guard state in this checkpoint can be read ({reasons}).")
        if not said:
            return None
        return (
            f"{' '.join(said)} Starts afresh: {_listed(self.afresh) or _all(self.afresh)}. "
            f"Goes on: {_listed(self.kept) or 'nothing'}."
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
    """Load every piece whose settings are unchanged and which is whole; the others start afresh.

    Nothing that is wrong with a state is raised: it costs the piece that it is found in, and those
    that rest on it.

    Args:
        pieces: in the order in which they are to be loaded.
        settings: of this run, by name.
        state: as :func:`save_pieces` gave it.
    """
    kept: list[str] = []
    afresh: list[str] = []
    changed: dict[str, tuple[Any, Any]] = {}
    unfit: dict[str, str] = {}
    for piece in pieces:
        try:
            differs = _differs(settings, state[piece.name])
        except Exception as error:
            differs = {}
            unfit[piece.name] = _reason(error)
        changed.update(differs)
        if not (differs or piece.name in unfit or set(piece.rests_on) & set(afresh)):
            why = _loaded(piece, state[piece.name])
            if why is None:
                kept.append(piece.name)
                continue
            unfit[piece.name] = why
        piece.afresh()
        afresh.append(piece.name)
    return TakenUp(tuple(kept), tuple(afresh), changed, unfit)


def nothing_taken_up(pieces: Sequence[Piece], why: str) -> TakenUp:
    """All pieces start afresh, for one reason."""
    for piece in pieces:
        piece.afresh()
    return TakenUp((), tuple(piece.name for piece in pieces), {}, {"all of it": why})


def _differs(settings: Mapping[str, Any], saved: Any) -> dict[str, tuple[Any, Any]]:
    """Settings that are others than those the stored piece rests on."""
    was = saved["depends"]
    now = {name: settings.get(name) for name in was}
    return {name: (was[name], now[name]) for name in was if bool(was[name] != now[name])}


def _loaded(piece: Piece, saved: Any) -> str | None:
    """Load a piece, or leave it as it is and say why."""
    before = piece.save()
    try:
        check_finite(saved["state"])
        piece.load(saved["state"])
    except Exception as error:
        with suppress(Exception):  # a running guard's own state may hold what no load lets in
            piece.load(before)
        return _reason(error)
    return None


def _reason(error: Exception) -> str:
    text = str(error) if isinstance(error, Unfit) else reason_of(error)
    if isinstance(error, KeyError):
        text = f"{error.args[0]} is missing"
    return text if len(text) <= _LONGEST_REASON else f"{text[: _LONGEST_REASON - 3]}..."


def _listed(names: Sequence[str]) -> str:
    """Names for a message, without those that follow another one."""
    return ", ".join(name for name in names if not name.startswith("_"))


def _all(names: Sequence[str]) -> str:
    return ", ".join(map(_readable, names)) or "nothing"


def _readable(name: str) -> str:
    return name.removeprefix("_")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:21]}..."
