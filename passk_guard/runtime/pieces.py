"""State in pieces, each of which is taken up by a resumed run or not, as a whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass

__all__ = ["Piece", "State", "TakenUp", "save_pieces", "take_up_pieces"]

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


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:21]}..."
