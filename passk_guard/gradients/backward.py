"""Per-prompt pass@1 gradients, and their Gramian: one backward per prompt that has a signal.

Each parameter's gradient is handed to an accumulator the moment autograd has finished it, and is
freed at once. The accumulator is linear, so micro-batches of one prompt simply add up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from passk_guard.gradients.accumulators import (
    DEFAULT_MEMORY_LIMIT,
    ExactGramian,
    exact_bytes,
)
from passk_guard.gradients.engine import EngineSettings, check_same, register_engine
from passk_guard.gradients.parameters import select_parameters
from passk_guard.gradients.sketch import SketchedGramian
from passk_guard.rollouts.batching import PassSize
from passk_guard.rollouts.group import RolloutGroup, counts, stacked
from passk_guard.rollouts.policy import Policy
from passk_guard.runtime.fsdp1 import flat_gradients, is_flat
from passk_guard.runtime.processes import everywhere, world
from passk_guard.runtime.progress import Progress, silent
from passk_guard.runtime.sharding import is_sharded, my_rollouts, runs_together


class BackwardEngine:
    """One backward per prompt that has a signal; sketched where memory asks for it."""

    def __init__(self, policy: Policy, settings: EngineSettings) -> None:
        self._policy, self._settings = policy, settings

    @property
    def exact_bytes(self) -> int:
        """What the gradients of a batch would take unsketched."""
        return exact_bytes(self._parameters(), self._settings.prompts)

    @property
    def said(self) -> str:
        """For the plan of a run."""
        return f"one backward per prompt{self._settings.passes.said}"

    def _parameters(self) -> list[tuple[str, Parameter]]:
        """Looked up anew each time: a trainer may shard its model, or unfreeze more of it."""
        return select_parameters(self._policy.parameters(), self._settings.parameters)

    def gramian(self, groups: Sequence[RolloutGroup], seed: tuple[int, ...]) -> Tensor | None:
        """See :func:`prompt_gramian`."""
        parameters, settings = self._parameters(), self._settings
        scales = None if settings.metric is None else settings.metric(parameters)
        if scales is not None and not scales:
            return None
        kept = settings.kept_whole(exact_bytes(parameters, len(groups)))
        settings.passes.fit(self._policy, [group for group in groups if group.has_signal], kept)
        return prompt_gramian(
            self._policy,
            groups,
            parameters,
            size=settings.passes,
            scales=scales,
            memory_limit=settings.memory_limit,
            seed=seed,
            progress=settings.progress,
        )


register_engine("backward", BackwardEngine)


def prompt_gramian(
    policy: Policy,
    groups: Sequence[RolloutGroup],
    parameters: Sequence[tuple[str, Parameter]],
    *,
    size: PassSize | None = None,
    scales: Mapping[str, Tensor] | None = None,
    memory_limit: float = DEFAULT_MEMORY_LIMIT,
    seed: tuple[int, ...] = (0,),
    progress: Progress = silent,
) -> Tensor:
    """Gramian of the per-prompt gradients ``ĝ = 1/(n-1) Σ_j (r_j - r̄) Σ_t ∇log π(y_jt)``.

    Several processes share the prompts out, and all of them get the whole.

    Args:
        policy: scores rollouts.
        groups: ``m`` prompts. Those with no or only right rollouts cost nothing: ĝ is zero.
        parameters: parameters to differentiate by, see :func:`select_parameters`.
        size: rollouts in a forward and backward.
        scales: ``P^(1/2)`` by parameter name: gives ``⟨ĝ, P ĝ'⟩``. Euclidean where ``None``.
        memory_limit: bytes; where ``m`` gradients take more they are sketched.
        seed: seed of the sketch.
        progress: called before each prompt of this process's share.

    Returns:
        ``(m, m)`` float64, on the CPU. Off the diagonal a sketched one is unbiased, with the error
        given at :class:`~passk_guard.gradients.sketch.SketchedGramian`.

    Raises:
        FloatingPointError: a log-probability or a gradient is not finite.
        ProbeError: another process failed, or holds other rollouts.
    """
    signal = [i for i, group in enumerate(groups) if group.has_signal]
    accumulator: ExactGramian | SketchedGramian = ExactGramian(len(signal))
    if exact_bytes(parameters, len(groups)) > memory_limit:
        accumulator = SketchedGramian(len(signal), seed=seed)
    tensors = [parameter for _, parameter in parameters]
    sharded, together = is_sharded(tensors), runs_together(tensors)
    rank, processes = (0, 1) if sharded else world()  # every process does its part of every prompt

    def my_share() -> None:
        mine = range(len(signal))[rank::processes]
        for done, row in enumerate(mine):
            progress("gradients", done, len(mine))
            one = [groups[signal[row]]]
            add_gradient(accumulator, row, policy, one, parameters, size, scales)
        if together and len(mine) * processes < len(signal):  # the others are not done yet
            nothing = torch.zeros_like(groups[signal[0]].success)
            group = replace(groups[signal[0]], success=nothing, baseline=0.0)
            add_gradient(accumulator, 0, policy, [group], parameters, size, scales)

    check_same(everywhere(lambda: counts(groups)))  # or some would run more passes than others
    everywhere(my_share, together=together)
    if signal and not sharded:
        accumulator.merge(parameters)
    gramian = torch.zeros(len(groups), len(groups), dtype=torch.float64, device="cpu")
    if signal:
        index = torch.tensor(signal, device="cpu")
        gramian[index[:, None], index] = accumulator.gramian(sharded=sharded)
    if not bool(torch.isfinite(gramian).all()):
        raise FloatingPointError("a gradient of the policy is not finite")
    return gramian


def add_gradient(
    accumulator: Any,
    row: int,
    policy: Policy,
    groups: Sequence[RolloutGroup],
    parameters: Sequence[tuple[str, Parameter]],
    size: PassSize | None = None,
    scales: Mapping[str, Tensor] | None = None,
) -> None:
    """Feed ``ĝ`` of a prompt, or the sum of several, to an accumulator, as ``row``.

    See :func:`prompt_gramian`. The accumulator has ``add(row, name, gradient, offset)`` and
    ``clear(rows)``. Nothing else may be in that row: memory running out empties it.

    Raises:
        FloatingPointError: a log-probability is not finite.
    """
    # mean_j (r_j - r̄_{-j}) S_j is the leave-one-out gradient.
    coefficients = torch.cat([group.centred_success() / group.n for group in groups])
    tokens: Sequence[Tensor] = stacked(groups)
    tensors = [parameter for _, parameter in parameters]
    if is_sharded(tensors):
        mine, share = my_rollouts(len(coefficients))
        coefficients = coefficients[mine] * share
        tokens = [tensor[mine] for tensor in tokens]
    together = runs_together(tensors)
    others: list[Parameter] = []
    if any(map(is_flat, tensors)):
        into = flat_gradients(parameters, partial(accumulator.add, row))
    else:
        wanted = set(map(id, tensors))
        others = [p for _, p in policy.parameters() if p.requires_grad and id(p) not in wanted]
        into = _gradients_go_to(accumulator, row, parameters, others, scales)

    def undo() -> None:
        accumulator.clear(slice(row, row + 1))
        for parameter in (*tensors, *others):
            parameter.grad = None

    with into as done:

        def backward(which: slice) -> None:
            scores = policy.log_probs(*(tensor[which] for tensor in tokens))
            loss = scores.sum(-1) @ coefficients[which].to(scores)
            # Where all run together it must not leave here: the others wait for its backward.
            if not together and not bool(loss.isfinite()):
                bad = which.start + int(scores.isfinite().all(-1).int().argmin())
                rows = [group.row for group in groups for _ in range(group.n)]
                raise FloatingPointError(
                    f"the policy gave a log-probability that is not finite on row {rows[bad]}"
                )
            loss.backward()
            done()

        n, width = tokens[0].shape
        (size or PassSize()).each(n, width, backward, undo, together=together)


@contextmanager
def _gradients_go_to(
    accumulator: Any,
    row: int,
    parameters: Sequence[tuple[str, Parameter]],
    others: Sequence[Parameter],
    scales: Mapping[str, Tensor] | None,
) -> Iterator[Callable[[], None]]:
    """Within, ``backward()`` feeds the accumulator and leaves every ``.grad`` as it was.

    Post-accumulate hooks of others (optimisers that step inside backward, DeepSpeed's that reduce
    what comes) are set aside, on parameters that nobody asked for, too: they belong to the training
    run. ``backward`` with hooks, unlike ``autograd.grad``, also works under re-entrant
    checkpointing, and it never holds a whole gradient. Gradients of ``others``, the policy's
    further trainable parameters, are dropped as they come.
    """
    tensors = [*(parameter for _, parameter in parameters), *others]
    grads = [parameter.grad for parameter in tensors]
    other_hooks = [dict(p._post_accumulate_grad_hooks or {}) for p in tensors]
    names = [*(name for name, _ in parameters), *(None for _ in others)]
    handles = []

    def feed(name: str | None) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:
            if parameter.grad is not None and name is not None:
                gradient = parameter.grad if scales is None else parameter.grad * scales[name]
                accumulator.add(row, name, gradient)
            parameter.grad = None

        return hook

    try:
        for name, parameter in zip(names, tensors, strict=True):
            parameter.grad = None
            if parameter._post_accumulate_grad_hooks:
                parameter._post_accumulate_grad_hooks.clear()
            handles.append(parameter.register_post_accumulate_grad_hook(feed(name)))
        yield lambda: None  # fed within the backward
    finally:
        for handle in handles:
            handle.remove()
        for parameter, grad, hooks in zip(tensors, grads, other_hooks, strict=True):
            parameter.grad = grad
            if hooks:
                parameter._post_accumulate_grad_hooks.update(hooks)
