"""A registry: ways to do one thing, by the name that a user writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Read like a dict; entries are added by :meth:`register`, and never replaced unnoticed.

    Args:
        what: the setting that chooses among the entries, for messages.
        needs: what that which an entry makes must have, by name.

    >>> shapes = Registry[str]("shape")
    >>> shapes.register("square", "four equal sides")
    >>> shapes["circle"]
    Traceback (most recent call last):
        ...
    KeyError: "shape='circle' is not known. Choose one of: square."
    """

    def __init__(self, what: str, needs: Sequence[str] = ()) -> None:
        self._what, self._needs = what, needs
        self._entries: dict[str, T] = {}

    def register(self, name: str, entry: T) -> None:
        """Add an entry; registering the same one again, as a notebook does, changes nothing.

        Raises:
            ValueError: the name is no plain word, or stands for another entry.
        """
        if not name.isidentifier():
            raise ValueError(f"a name for {self._what} must be a plain word, got {name!r}.")
        known = self._entries.get(name, entry)
        if known is not entry and _where(known) != _where(entry):
            raise ValueError(
                f"{self._what}={name!r} is registered already, as {known!r}. Choose another name."
            )
        self._entries[name] = entry

    def make(self, name: str, *arguments: Any) -> Any:
        """Call the entry of that name, a factory, and see that what it gives is whole.

        Raises:
            KeyError: there is none.
            TypeError: something is missing, which would be found out in the middle of a run.
        """
        factory: Any = self[name]
        made = factory(*arguments)
        if missing := [need for need in self._needs if not hasattr(made, need)]:
            raise TypeError(
                f"{self._what}={name!r} gave a {type(made).__name__} without {', '.join(missing)}."
            )
        return made

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[name]
        except KeyError:
            choices = ", ".join(self._entries)
            raise KeyError(
                f"{self._what}={name!r} is not known. Choose one of: {choices}."
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _where(entry: object) -> object:
    """Where it is defined: a cell that is run again makes the same thing anew."""
    module, name = getattr(entry, "__module__", None), getattr(entry, "__qualname__", None)
    return entry if name is None else (module, name)
