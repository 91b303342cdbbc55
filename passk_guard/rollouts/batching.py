"""How many rollouts go through the model at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

import torch
from torch import Tensor

from passk_guard.rollouts.group import RolloutGroup
from passk_guard.runtime.isolation import kept_attributes
from passk_guard.runtime.memory import free_memory, ran_out_of_memory
from passk_guard.runtime.processes import everywhere
from passk_guard.runtime.sharding import runs_together

T = TypeVar("T")

_MOST = 2**14  # tokens, prompt and completion: more would not be faster
_UNMEASURED = 2**11  # where a model is split over processes
_SHARE = 0.5  # of the free memory: gradients and logits take theirs, too


class PassSize:
    """As many rollouts at once as memory allows, the same number in scoring and for gradients.

    A trainer's own micro-batch is kept to. Without one, and on a CPU, where running out of memory
    is no error but the end of the process, the bytes that a rollout's forward keeps for its
    backward are counted, and the tokens at once are a power of two that takes half of what is free,
    16 384 at most. Whenever memory runs out, the size is halved for good.

    Args:
        most: rollouts; the trainer's micro-batch, where it is known.
        shrunk: told the tokens at once whenever memory has run out.

    Attributes:
        tokens: at once, prompt and completion.
    """

    def __init__(
        self, most: int | None = None, shrunk: Callable[[float], None] = lambda tokens: None
    ) -> None:
        self._most, self._shrunk = most, shrunk
        self.tokens: float = _MOST if most is None else math.inf
        self._measured = (0, 0.0)  # trainable parameters then, bytes per token

    @property
    def said(self) -> str:
        """For the plan of a run, where memory sets the size."""
        return f", up to {self.tokens:,} tokens at once" if self.tokens < _MOST else ""

    def rollouts(self, width: int) -> int:
        """Rollouts of ``width`` tokens that go through the model at once."""
        return max(int(min(self._most or math.inf, self.tokens / width)), 1)

    def fit(self, policy: Any, groups: Sequence[RolloutGroup], beside: float = 0) -> None:
        """Choose the size, or lower it to what is free by now: the same on every process.

        Args:
            policy: that scores.
            groups: prompts, of which the widest is measured; where there are none, nothing is.
            beside: bytes that gradients take meanwhile.
        """
        self.tokens = min(everywhere(lambda: self._that_fits(policy, groups, beside)))

    def _that_fits(self, policy: Any, groups: Sequence[RolloutGroup], beside: float) -> float:
        try:
            parameters = [parameter for _, parameter in policy.parameters()]
        except AttributeError:  # its model lies elsewhere
            return self.tokens
        devices = {parameter.device for parameter in parameters}
        if not devices or (self._most is not None and torch.device("cpu") not in devices):
            return self.tokens  # as in training, and else there is an error to go by
        if runs_together(parameters):
            return min(self.tokens, _UNMEASURED if self._most is None else math.inf)
        trainable = sum(parameter.requires_grad for parameter in parameters)
        if groups and self._measured[0] != trainable:
            self._measured = trainable, _kept_by_token(policy, groups, parameters)
        room = _SHARE * (min(map(free_memory, devices)) - beside)
        if not self._measured[1] or math.isinf(room):
            return self.tokens
        fits: int = 2 ** int(math.log2(max(room / self._measured[1], 1)))
        return min(self.tokens, fits)

    def each(
        self,
        n: int,
        width: int,
        work: Callable[[slice], T],
        undo: Callable[[], None] = lambda: None,
        *,
        together: bool = False,
    ) -> list[T]:
        """``work(part)`` for slices that cover ``range(n)``; all again in halves without memory.

        Args:
            n: rollouts.
            width: tokens of each.
            work: runs a forward, and perhaps a backward.
            undo: takes back what parts have left behind.
            together: whether processes wait for one another within. Then nothing is done again, and
                the next call of :meth:`fit` is what makes all of them go on in halves.

        Raises:
            Exception: of ``work``; a single rollout needs more memory than there is.
        """
        while True:
            size = min(self.rollouts(width), n)
            try:
                return [work(slice(at, min(at + size, n))) for at in range(0, n, size)]
            except Exception as error:
                if size == 1 or not ran_out_of_memory(error):
                    raise
                self.tokens = size // 2 * width
                self._shrunk(self.tokens)
                if together:
                    raise
            undo()  # not before the error is gone, which holds on to activations
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _kept_by_token(
    policy: Any, groups: Sequence[RolloutGroup], parameters: Sequence[Tensor]
) -> float:
    """Bytes that a forward keeps for its backward, weights aside, as without checkpointing."""
    weights = {parameter.untyped_storage()._cdata for parameter in parameters}
    sizes = {parameter.numel() for parameter in parameters}  # autocast keeps copies
    group = max(groups, key=lambda group: group.input_ids.shape[1])
    width = group.input_ids.shape[1]
    # As many rollouts as make activations that are not mistaken for such a copy.
    rollouts = next((b for b in (1, 3, 5, 7, 11, 13) if all(n % (b * width) for n in sizes)), 1)
    kept: dict[int, torch.UntypedStorage] = {}

    def note(values: Tensor) -> None:
        storage = values.untyped_storage()
        if storage._cdata not in weights and storage.nbytes() // values.element_size() not in sizes:
            kept[storage._cdata] = storage

    def unread(packed: None) -> Tensor:
        raise AssertionError("there is no backward")

    with ExitStack() as stack:
        model = getattr(policy, "model", policy)
        for module in model.modules() if hasattr(model, "modules") else ():
            if module.__dict__.get("gradient_checkpointing"):
                stack.enter_context(kept_attributes(module, "gradient_checkpointing"))
                module.gradient_checkpointing = False
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(note, unread))
        stack.enter_context(torch.enable_grad())
        policy.log_probs(*(tensor[:1].repeat(rollouts, 1) for tensor in group.tokens))
    return sum(storage.nbytes() for storage in kept.values()) / (rollouts * width)
