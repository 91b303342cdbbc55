"""Which parameters' gradients the watched layers get right: found out by comparison, once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from passk_guard.gradients.backward import add_gradient
from passk_guard.gradients.hooked_pass import UnsupportedModelError, hooked_pass
from passk_guard.gradients.two_sided import TwoSidedGramian
from passk_guard.gradients.watching import Layers, Watch, known_layers
from passk_guard.rollouts.batching import PassSize
from passk_guard.rollouts.group import RolloutGroup
from passk_guard.rollouts.policy import Policy
from passk_guard.rollouts.scores import score
from passk_guard.runtime.sharding import is_sharded, runs_together, whole_shape

_SIZE = 16
_SLACK, _HALF_SLACK = 0.01, 0.05  # for rounding: autograd's may be TF32's, or bfloat16's


def unknown_parameters(
    policy: Policy,
    model: nn.Module,
    groups: Sequence[RolloutGroup],
    parameters: Sequence[tuple[str, Parameter]],
    size: PassSize,
) -> frozenset[str] | None:
    """Names of those that no known layer holds, and of those where autograd finds something else.

    Four rollouts of two prompts go through both ways together, so that a layer that mixes up
    rollouts is found. Both are reduced from both sides, by the same signs: no more than one
    parameter's gradient is ever there.

    Args:
        policy: scores rollouts.
        model: module whose layers are watched.
        groups: prompts with a signal.
        parameters: names and parameters to differentiate by.
        size: rollouts in a forward and backward.

    Returns:
        ``None`` where a gradient is not finite, which tells nothing. No error: it may be so on one
        process only.

    Raises:
        UnsupportedModelError: checkpointing is re-entrant.
    """
    layers = known_layers(model, parameters)
    known = {name for _, names in layers.values() for name in names.values()}
    if not known:
        return frozenset(name for name, _ in parameters)
    few = [  # a right and a wrong rollout of each
        group.those(torch.stack([group.success.argmax(), group.success.argmin()]))
        for group in groups[:2]
    ]
    shapes = {name: whole_shape(parameter) for name, parameter in parameters}
    truth = TwoSidedGramian(len(few), shapes, _SIZE)
    for row, group in enumerate(few):
        add_gradient(truth, row, policy, [group], parameters, size)
    tensors = [parameter for _, parameter in parameters]
    if is_sharded(tensors):
        truth.merge(parameters)
    together = runs_together(tensors)
    watch, found = _watched(policy, model, layers, few, shapes, size, together=together)
    want = {name: truth.sketch(name) for name in known}
    whole = float(torch.cat([sketch.flatten() for sketch in want.values()]).norm())
    if not math.isfinite(whole):
        return None
    slack = _HALF_SLACK if watch.half else _SLACK
    wrong = {name for name in known if _differ(found.sketch(name), want[name], whole, slack)}
    return frozenset(shapes) - known | wrong | watch.unattributed


def _watched(
    policy: Policy,
    model: nn.Module,
    layers: Layers,
    groups: Sequence[RolloutGroup],
    shapes: Mapping[str, torch.Size],
    size: PassSize,
    *,
    together: bool,
) -> tuple[Watch, TwoSidedGramian]:
    """What watching gives. Lookups for all rollouts at once are spread out, if the model can do
    with that: it must give the same log-probs.
    """
    for spread in (True, False):
        found = TwoSidedGramian(len(groups), shapes, _SIZE)
        watch = Watch(model, layers, found, spread=spread)
        with watch.attached():
            try:
                scores = hooked_pass(policy, watch, found, size, 0, groups, together=together)
            except UnsupportedModelError:
                raise
            except Exception:
                if spread and watch.spreads:
                    continue
                raise
        if not watch.spreads:
            break
        pairs = zip(scores, score(policy, groups, size), strict=True)
        if all(plain is not None and torch.allclose(ours, plain) for ours, plain in pairs):
            break
    return watch, found


def _differ(got: Tensor, want: Tensor, whole: float, slack: float) -> bool:
    """By more than rounding does; what is nothing beside the whole gradient may."""
    return not float((got - want).norm()) <= slack * (float(want.norm()) + 0.1 * whole)
