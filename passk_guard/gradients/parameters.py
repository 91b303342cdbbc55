"""Which parameters gradients are taken by."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from torch.nn import Parameter

__all__ = ["ParameterFilter", "select_parameters"]

ParameterFilter = str | Callable[[str, Parameter], bool] | None


def select_parameters(
    named: Iterable[tuple[str, Parameter]], wanted: ParameterFilter = None
) -> list[tuple[str, Parameter]]:
    """The trainable parameters to differentiate with respect to.

    Args:
        named: as ``model.named_parameters()`` gives them.
        wanted: a regular expression searched for in the name, a callable ``f(name, parameter)``,
            or ``None`` for all trainable ones.

    Raises:
        ValueError: nothing trainable is left.
    """
    trainable = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    if isinstance(wanted, str):
        pattern = re.compile(wanted)
        chosen = [(name, p) for name, p in trainable if pattern.search(name)]
    elif wanted is not None:
        chosen = [(name, p) for name, p in trainable if wanted(name, p)]
    else:
        chosen = trainable
    if not chosen:
        some = ", ".join(name for name, _ in trainable[:3]) or "none"
        raise ValueError(
            f"parameters={wanted!r} selects no trainable parameter. The model has "
            f"{len(trainable)}, such as: {some}."
        )
    return chosen
