"""Per-prompt pass@1 gradients, and their Gramian: one backward per prompt that has a signal.

Each parameter's gradient is handed to an accumulator the moment autograd has finished it, and is
freed at once. The accumulator is linear, so micro-batches of one prompt simply add up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import Parameter

from passk_guard.errors import ProbeError
from passk_guard.processes import add_up, everywhere, world
from passk_guard.progress import Progress, silent
from passk_guard.rollouts import Policy, RolloutGroup
from passk_guard.sharding import is_sharded, local_part, my_rollouts
from passk_guard.sketch import SketchedGramian

__all__ = [
    "DEFAULT_MEMORY_LIMIT",
    "ExactGramian",
    "GradientAccumulator",
    "ParameterFilter",
    "add_gradient",
    "exact_bytes",
    "prompt_gramian",
    "select_parameters",
]

ParameterFilter = str | Callable[[str, Parameter], bool] | None
DEFAULT_MEMORY_LIMIT = 4 * 2**30
_TOKENS_AT_ONCE = 2**14  # prompt and completion, where the host names no batch size


class GradientAccumulator(Protocol):
    """Takes gradients piece by piece."""

    def add(self, row: int, name: str, gradient: Tensor) -> None:
        """Add one parameter's gradient to the gradient of prompt ``row``."""
        ...


class ExactGramian:
    """Stores every prompt's gradient in float32: ``rows x parameters x 4`` bytes."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._gradients: dict[str, Tensor] = {}

    def add(self, row: int, name: str, gradient: Tensor) -> None:
        """Add one parameter's gradient to the gradient of prompt ``row``."""
        flat, _ = local_part(gradient)
        if name not in self._gradients:
            self._gradients[name] = torch.zeros(
                self._rows, len(flat), dtype=torch.float32, device=flat.device
            )
        self._gradients[name][row] += flat

    def merge(self, parameters: Sequence[tuple[str, Parameter]]) -> None:
        """Add up what processes hold; each of them names all parameters."""
        if world()[1] > 1:
            for name, parameter in parameters:
                self.add(0, name, torch.zeros_like(parameter))  # this one may hold none of it
                add_up(self._gradients[name])

    def gramian(self, *, sharded: bool = False) -> Tensor:
        """``(rows, rows)`` float64 inner products, on the CPU.

        Args:
            sharded: processes hold parts of each gradient, whose inner products add up.
        """
        total = torch.zeros(self._rows, self._rows, dtype=torch.float64)
        for gradients in self._gradients.values():
            total += (gradients @ gradients.T).to("cpu", torch.float64)
        return torch.stack(everywhere(lambda: total)).sum(0) if sharded else total


def prompt_gramian(
    policy: Policy,
    groups: Sequence[RolloutGroup],
    parameters: Sequence[tuple[str, Parameter]],
    *,
    rollouts_per_backward: int | None = None,
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
        parameters: what to differentiate by, see :func:`select_parameters`.
        rollouts_per_backward: micro-batch; where ``None`` as many as make 16 384 tokens.
        scales: by parameter name, ``P^(1/2)``: gives ``⟨ĝ, P ĝ'⟩``. Euclidean where ``None``.
        memory_limit: bytes; where ``m`` gradients take more they are sketched.
        seed: of the sketch.
        progress: told before each prompt, of this process's share.

    Returns:
        ``(m, m)`` float64, on the CPU. Off the diagonal a sketched one is unbiased, with the error
        given at :class:`~passk_guard.sketch.SketchedGramian`.

    Raises:
        FloatingPointError: a log-probability or a gradient is not finite.
        ProbeError: another process failed, or holds other rollouts.
    """
    signal = [i for i, group in enumerate(groups) if group.has_signal]
    accumulator: ExactGramian | SketchedGramian = ExactGramian(len(signal))
    if exact_bytes(parameters, len(groups)) > memory_limit:
        accumulator = SketchedGramian(len(signal), seed=seed)
    sharded = is_sharded(parameter for _, parameter in parameters)
    rank, size = (0, 1) if sharded else world()  # every process does its part of every prompt

    def my_share() -> list[int]:
        mine = range(len(signal))[rank::size]
        for done, row in enumerate(mine):
            progress("gradients", done, len(mine))
            group = groups[signal[row]]
            add_gradient(accumulator, row, policy, group, parameters, rollouts_per_backward, scales)
        return [group.correct for group in groups]

    counted = everywhere(my_share)
    if any(other != counted[0] for other in counted):
        raise ProbeError(
            "processes hold different rollouts: let the policy give all of them the same, as "
            "VerifiedPolicy does"
        )
    if signal and not sharded:
        accumulator.merge(parameters)
    gramian = torch.zeros(len(groups), len(groups), dtype=torch.float64)
    if signal:
        index = torch.tensor(signal)
        gramian[index[:, None], index] = accumulator.gramian(sharded=sharded)
    if not bool(torch.isfinite(gramian).all()):
        raise FloatingPointError("a gradient of the policy is not finite")
    return gramian


def add_gradient(
    accumulator: GradientAccumulator,
    row: int,
    policy: Policy,
    group: RolloutGroup,
    parameters: Sequence[tuple[str, Parameter]],
    rollouts_per_backward: int | None = None,
    scales: Mapping[str, Tensor] | None = None,
) -> None:
    """Feed ``ĝ`` of one prompt to an accumulator, as ``row``; see :func:`prompt_gramian`.

    Raises:
        FloatingPointError: a log-probability is not finite.
    """
    # mean_j (r_j - r̄_{-j}) S_j is the leave-one-out gradient.
    coefficients = group.centred_success() / group.n
    tokens: Sequence[Tensor] = group.tokens
    sharded = is_sharded(parameter for _, parameter in parameters)
    if sharded:
        mine, share = my_rollouts(group.n)
        coefficients = coefficients[mine] * share
        tokens = [tensor[mine] for tensor in tokens]
    with _gradients_go_to(accumulator, row, parameters, scales):
        for which in micro_batches(len(coefficients), rollouts_per_backward, tokens[0].shape[1]):
            scores = policy.log_probs(*(tensor[which] for tensor in tokens))
            loss = scores.sum(-1) @ coefficients[which].to(scores)
            # A sharded one must not leave here: the other processes wait for its backward.
            if not sharded and not bool(loss.isfinite()):
                raise FloatingPointError(
                    f"the policy gave a log-probability that is not finite on row {group.row}"
                )
            loss.backward()


def micro_batches(n: int, size: int | None, width: int) -> Iterator[slice]:
    """Slices that cover ``range(n)``.

    Args:
        n: rollouts.
        size: at most so many at once; ``None``: as many as make 16 384 tokens.
        width: tokens of each.
    """
    size = size or max(_TOKENS_AT_ONCE // width, 1)
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


@contextmanager
def _gradients_go_to(
    accumulator: GradientAccumulator,
    row: int,
    parameters: Sequence[tuple[str, Parameter]],
    scales: Mapping[str, Tensor] | None,
) -> Iterator[None]:
    """Within, ``backward()`` feeds the accumulator and leaves every ``.grad`` as it was.

    Post-accumulate hooks of others (optimisers that step inside backward) are set aside: they
    belong to the training run. ``backward`` with hooks, unlike ``autograd.grad``, also works under
    re-entrant checkpointing, and it never holds a whole gradient.
    """
    tensors = [parameter for _, parameter in parameters]
    others = [parameter.grad for parameter in tensors]
    other_hooks = [dict(p._post_accumulate_grad_hooks or {}) for p in tensors]
    handles = []

    def feed(name: str) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:
            if parameter.grad is not None:
                gradient = parameter.grad if scales is None else parameter.grad * scales[name]
                accumulator.add(row, name, gradient)
                parameter.grad = None

        return hook

    try:
        for name, parameter in parameters:
            parameter.grad = None
            if parameter._post_accumulate_grad_hooks:
                parameter._post_accumulate_grad_hooks.clear()
            handles.append(parameter.register_post_accumulate_grad_hook(feed(name)))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for parameter, grad, hooks in zip(tensors, others, other_hooks, strict=True):
            parameter.grad = grad
            if hooks:
                parameter._post_accumulate_grad_hooks.update(hooks)


def select_parameters(
    named: Iterable[tuple[str, Parameter]], wanted: ParameterFilter = None
) -> list[tuple[str, Parameter]]:
    """The trainable parameters to differentiate by.

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


def exact_bytes(parameters: Sequence[tuple[str, Parameter]], prompts: int) -> int:
    """Bytes that :class:`ExactGramian` takes: a float32 gradient for each prompt."""
    return 4 * prompts * sum(parameter.numel() for _, parameter in parameters)
