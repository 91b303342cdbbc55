"""TRL's environments in a probe: instances of the probe's own, kept from look to look.

From 1.8 on, TRL makes them as batches need them. Earlier releases make all at the start and tell
nobody how: there a probe plays in training's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from passk_guard.errors import ProbeError, reason_of

# TRL's own stand-in for the prompt of a row that leaves it to the environment.
NO_PROMPT = [{"role": "user", "content": ""}]


class ProbeEnvironments:
    """As many instances as a call of the trainer plays in at once.

    Args:
        trainer: whose factories make them; with none there is nothing to do.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._pool: dict[Any, list[Any]] = {}
        if hasattr(trainer, "_environment_pool") and trainer.environment_factories:
            shared = trainer.environment_factories = {
                name: _TrainingFirst(factory)
                for name, factory in trainer.environment_factories.items()
            }
            self._pool = {name: factory.spare for name, factory in shared.items()}

    def __bool__(self) -> bool:
        return bool(self._pool)

    def enter(self) -> None:
        """Let the trainer play in these, until its attributes are put back."""
        if self._pool:
            self._trainer._environment_pool = self._pool

    def make(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Make what is missing for a call with these rows.

        Raises:
            ProbeError: the factory cannot.
        """
        names = [row.get("environment") if None not in self._pool else None for row in rows]
        for name, count in Counter(names).items():
            made = self._pool.get(name)
            while made is not None and len(made) < count:
                try:
                    made.append(self._trainer.environment_factories[name].factory())
                except Exception as error:
                    raise ProbeError(
                        f"environment_factory made {len(made)} of the {count} environments that a "
                        f"probe needs beside training's own ({reason_of(error)}). Let it "
                        "make twice as many as training needs."
                    ) from error


class _TrainingFirst:
    """A factory of environments; one that can make no more takes from those of the probes."""

    def __init__(self, factory: Callable[[], Any]) -> None:
        own: Any = factory.factory if isinstance(factory, _TrainingFirst) else factory
        self.factory: Callable[[], Any] = own
        self.spare: list[Any] = []

    def __call__(self) -> Any:
        try:
            return self.factory()
        except Exception:
            if not self.spare:
                raise
            return self.spare.pop()


def without_stand_in(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as the user passed it."""
    return {k: v for k, v in row.items() if not (k == "prompt" and v is NO_PROMPT)}
