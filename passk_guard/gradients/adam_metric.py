"""Adam moves along ``P ∇J``, not ``∇J``: the metric in which its steps are straight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

_FAMILY = (torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam)


def adam_scales(optimizer: Any, parameters: Sequence[tuple[str, Parameter]]) -> dict[str, Tensor]:
    """``P^(1/2)`` by parameter, with ``P = 1 / (sqrt(v̂) + ε)`` from Adam's second moments.

    Gradients scaled by it have ``⟨∇J_k, P ∇J_1⟩`` as inner products: the change of pass@1 along
    the step that Adam takes for ``∇J_k``, momentum and weight decay aside (Kingma & Ba 2015).

    Args:
        optimizer: one of torch's Adam family, or a wrapper with the real one as ``.optimizer``.
        parameters: names and parameters to differentiate by.

    Returns:
        By name, in float32 and the parameter's shape; empty before the first optimizer step.

    Raises:
        ValueError: another optimizer, or one that does not train some of the parameters.
    """
    optimizer = check_adam(optimizer)
    epsilon, amsgrad = {}, {}
    decay = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            epsilon[parameter], decay[parameter] = group["eps"], group["betas"][1]
            amsgrad[parameter] = group.get("amsgrad", False)
    foreign = [name for name, parameter in parameters if parameter not in epsilon]
    if foreign:
        raise ValueError(
            f"metric='adam': the optimizer does not train {foreign[0]!r}. Pass parameters=... that "
            "it does train, or metric='euclidean'."
        )
    if not any(optimizer.state.get(parameter) for _, parameter in parameters):
        return {}
    scales = {}
    for name, parameter in parameters:
        state = optimizer.state.get(parameter)
        if not state:  # never had a gradient: it does not move
            scales[name] = torch.zeros_like(parameter, dtype=torch.float32)
            continue
        moment = state["max_exp_avg_sq" if amsgrad[parameter] else "exp_avg_sq"].float()
        corrected = moment / (1 - decay[parameter] ** float(state["step"]))
        scales[name] = (corrected.sqrt() + epsilon[parameter]).rsqrt()
    return scales


def check_adam(optimizer: Any) -> torch.optim.Optimizer:
    """The real optimizer, if it keeps second moments as torch's Adam does.

    Raises:
        ValueError: it does not.
    """
    while hasattr(optimizer, "optimizer"):  # accelerate and Lightning wrap it
        optimizer = optimizer.optimizer
    if not isinstance(optimizer, _FAMILY):
        kind = f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"
        raise ValueError(
            f"metric='adam' reads the second moments of torch.optim.Adam, AdamW, NAdam or RAdam, "
            f"but the optimizer is {kind}. Use one of those, or metric='euclidean'."
        )
    return optimizer
