"""Which parameters gradients are taken by."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from torch.nn import Parameter

ParameterFilter = str | Callable[[str, Parameter], bool] | None


class NothingTrainable(ValueError):
    """All parameters are frozen: gradual unfreezing may come to those that are wanted."""


def select_parameters(
    named: Iterable[tuple[str, Parameter]], wanted: ParameterFilter = None
) -> list[tuple[str, Parameter]]:
    """The trainable parameters to differentiate with respect to.

    Args:
        named: as ``model.named_parameters()`` gives them.
        wanted: a regular expression searched for in the name, a callable ``f(name, parameter)``,
            or ``None`` for all trainable ones.

    Raises:
        NothingTrainable: none is trainable, wanted or not.
        ValueError: none that is wanted is trainable, or has such a name.
    """

    def selects(name: str, parameter: Parameter) -> bool:
        if isinstance(wanted, str):
            return re.search(wanted, name) is not None
        return wanted is None or wanted(name, parameter)

    named = list(named)
    trainable = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    chosen = [(name, parameter) for name, parameter in trainable if selects(name, parameter)]
    if chosen:
        return chosen
    none = f"parameters={wanted!r} selects no trainable parameter. The model has"
    if not trainable and any(callable(wanted) or selects(*pair) for pair in named):
        raise NothingTrainable(f"{none} {len(named)}, all of them frozen.")
    some = ", ".join(name for name, _ in trainable[:3]) or "none"
    raise ValueError(f"{none} {len(trainable)} trainable ones, such as: {some}.")
