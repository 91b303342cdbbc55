"""The Gramian from layers' inputs and output gradients: many prompts per backward, scores included.

No parameter's gradient is formed by autograd, so a backward costs half of a plain one, and the
log-probs of the same pass are those that scoring stored rollouts again is compared with: the packs
are the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from passk_guard.gradients.accumulators import ExactGramian, exact_bytes
from passk_guard.gradients.engine import EngineSettings, Taken, check_same, register_engine
from passk_guard.gradients.hooked_pass import UnsupportedModelError, hooked_pass
from passk_guard.gradients.known_parameters import unknown_parameters
from passk_guard.gradients.parameters import select_parameters
from passk_guard.gradients.two_sided import TwoSidedGramian
from passk_guard.gradients.watching import Watch, known_layers
from passk_guard.rollouts.group import RolloutGroup, counts
from passk_guard.rollouts.policy import Policy
from passk_guard.rollouts.scores import packs
from passk_guard.runtime.fsdp1 import is_flat
from passk_guard.runtime.processes import everywhere, shared, world
from passk_guard.runtime.sharding import runs_together, whole_numel, whole_shape

_SIZE, _ALWAYS, _LARGEST = 24, 64, 256  # at first, whatever memory allows, at most
_DIFFER = 0.02  # two seeds, in the cosines of a batch


class HookEngine:
    """Watches layers; whole gradients where memory allows, else sketched from both sides.

    What no layer that it knows holds (fused experts, parameters that a model uses by itself), and
    what differs from autograd on the first rollouts, is differentiated by autograd; each prompt
    then has a backward of its own, and the log-probs are left to others.

    The policy's ``model`` is the module whose layers are called.

    Attributes:
        error: standard error of a cosine between two prompts in the last sketch; 0 where gradients
            are whole.

    Raises:
        UnsupportedModelError: the policy shows no module, the metric is not Euclidean, or the model
            is compiled.
    """

    def __init__(self, policy: Policy, settings: EngineSettings) -> None:
        self._policy, self._settings = policy, settings
        if settings.metric is not None:
            raise UnsupportedModelError(
                "a metric does not factor over a layer's input and output gradient"
            )
        _model_of(policy)
        self._unknown: frozenset[str] | None = None  # until compared
        self._compared: list[str] = []
        self._size, self._sketched = _SIZE, False
        self.error = 0.0

    @property
    def exact_bytes(self) -> int:
        """What the gradients of a batch would take unsketched."""
        return exact_bytes(self._parameters(), self._settings.prompts)

    def _parameters(self) -> list[tuple[str, Parameter]]:
        """Looked up anew each time: a trainer may shard its model, or unfreeze more of it."""
        return select_parameters(self._policy.parameters(), self._settings.parameters)

    def gramian(self, groups: Sequence[RolloutGroup], seed: tuple[int, ...]) -> Tensor:
        """The Gramian alone; see :meth:`take`."""
        found = self.take(groups, seed).gramian
        assert found is not None, "no metric is missing"
        return found

    def take(self, groups: Sequence[RolloutGroup], seed: tuple[int, ...]) -> Taken:
        """Gramian of all prompts, and log-probs of those with a signal.

        Raises:
            FloatingPointError: a log-probability or a gradient is not finite.
            UnsupportedModelError: checkpointing is re-entrant, or parameters are sharded that no
                known layer holds.
            ProbeError: another process failed, or holds other rollouts.
        """
        check_same(everywhere(lambda: counts(groups)))
        signal = [i for i, group in enumerate(groups) if group.has_signal]
        gramian = torch.zeros(len(groups), len(groups), dtype=torch.float64, device="cpu")
        scores: list[Tensor | None] = [None] * len(groups)
        if not signal:
            return Taken(gramian, scores)
        self.compare([groups[i] for i in signal])
        found, scored = self._passed(groups, seed)
        if len(signal) == 1:  # a layer that mixes up prompts could not be found
            self._unknown = None
        if not bool(torch.isfinite(found).all()):
            raise FloatingPointError("a gradient of the policy is not finite")
        index = torch.tensor(signal, device="cpu")
        gramian[index[:, None], index] = found
        for i, log_probs in zip(signal, scored or [], strict=False):
            scores[i] = log_probs
        return Taken(gramian, None if scored is None else scores)

    def compare(self, groups: Sequence[RolloutGroup]) -> float:
        """Find out, once for the parameters that are trained, which of them are not known.

        Args:
            groups: prompts with a signal, of which the first two are used.

        Returns:
            Their share of all parameters.

        Raises:
            FloatingPointError: a gradient is not finite.
            UnsupportedModelError: as in :meth:`take`.
        """
        parameters = self._parameters()
        if any(is_flat(parameter) for _, parameter in parameters):
            raise UnsupportedModelError("FSDP1 lays parameters end to end")
        kept = self._settings.kept_whole(exact_bytes(parameters, len(groups)))
        self._settings.passes.fit(self._policy, groups, kept)
        names = [name for name, _ in parameters]
        if self._unknown is None or names != self._compared:
            self._unknown, self._compared = None, names
            size, model = self._settings.passes, _model_of(self._policy)
            found = everywhere(
                lambda: unknown_parameters(self._policy, model, groups, parameters, size),
                together=runs_together(p for _, p in parameters),
            )
            unknown = [names for names in found if names is not None]
            if len(unknown) < len(found):
                raise FloatingPointError("a gradient of the policy is not finite")
            self._note(frozenset().union(*unknown))
        return self._unknown_share()

    @property
    def said(self) -> str:
        """How gradients were taken last."""
        unknown, share, size = self._unknown_share(), "", self._settings.passes.said
        if unknown:
            share = f"; {unknown:.1%} of the parameters by autograd, a backward per prompt"
        sketch = ", exact"
        if self._sketched:
            sketch = f", sketched, error of a cosine {self.error:.3f}"
        return f"watched layers, many prompts per backward{sketch}{share}{size}"

    def _unknown_share(self) -> float:
        sizes = {name: whole_numel(parameter) for name, parameter in self._parameters()}
        return sum(sizes.get(name, 0) for name in self._unknown or ()) / sum(sizes.values())

    def _note(self, unknown: frozenset[str]) -> None:
        self._unknown = unknown.union(self._unknown or ())
        if self._unknown and runs_together(p for _, p in self._parameters()):
            raise UnsupportedModelError(
                f"{min(self._unknown)!r} is sharded, and no layer that is known holds it"
            )

    def _passed(
        self, groups: Sequence[RolloutGroup], seed: tuple[int, ...]
    ) -> tuple[Tensor, list[Tensor] | None]:
        """Gramian and log-probs of prompts with a signal, at a size that is large enough."""
        signal = [group for group in groups if group.has_signal]
        while True:
            parameters = self._parameters()
            rows, shapes = len(signal), {n: whole_shape(p) for n, p in parameters}
            sink: ExactGramian | TwoSidedGramian = ExactGramian(rows, shapes)
            if exact_bytes(parameters, len(groups)) > self._settings.memory_limit:
                sink = TwoSidedGramian(rows, shapes, self._size, seed)
            scores, unattributed = self._feed(sink, signal, parameters)
            if unattributed:
                self._note(unattributed)
                continue
            sink.merge(parameters)
            self._sketched = isinstance(sink, TwoSidedGramian)
            self.error = sink.error() if isinstance(sink, TwoSidedGramian) else 0.0
            if not self._grow(rows, shapes):
                return sink.gramian(), scores

    def _feed(
        self,
        sink: ExactGramian | TwoSidedGramian,
        groups: Sequence[RolloutGroup],
        parameters: Sequence[tuple[str, Parameter]],
    ) -> tuple[list[Tensor] | None, frozenset[str]]:
        """Log-probs, where packs are those of scoring, and parameters that gave nothing."""
        unknown = self._unknown or frozenset()
        others = [(name, p) for name, p in parameters if name in unknown]
        known = [(name, p) for name, p in parameters if name not in unknown]
        model = _model_of(self._policy)
        watch = Watch(model, known_layers(model, known), sink, others)
        size, progress = self._settings.passes, self._settings.progress
        parts = [[i] for i in range(len(groups))] if others else packs(groups, size)
        work = [(part[0], [groups[i] for i in part]) for part in parts]
        together = runs_together(p for _, p in parameters)
        rank, processes = world()

        def of_pack(index: int) -> list[Tensor]:
            again = index % processes != rank  # only because the others are not done yet
            if again and not together:
                return []
            row, pack = work[index]
            progress("gradients", row, len(groups))
            share = 0.0 if again else 1.0
            return hooked_pass(
                self._policy, watch, sink, size, row, pack, share=share, together=together
            )

        with watch.attached():
            found = shared(range(len(work)), of_pack, together=together)
        unattributed = frozenset().union(*everywhere(lambda: frozenset(watch.unattributed)))
        scores = [log_probs for pack in found for log_probs in pack]
        return None if others else scores, unattributed

    def _grow(self, rows: int, shapes: dict[str, torch.Size]) -> bool:
        """Whether the next sketch is larger, because this one was not sure enough."""
        matrices = max(sum(len(shape) == 2 for shape in shapes.values()), 1)
        room = math.sqrt(self._settings.memory_limit / (4 * rows * matrices))
        largest = max(2 * int(min(room, _LARGEST) / 2), _ALWAYS)
        needed: float = (
            self._size * (math.sqrt(2) * self.error / _DIFFER) ** 1.5
        )  # between 1/p and 1/√p
        size = min(8 * math.ceil(needed / 8), largest)
        grown = size > self._size
        self._size = max(size, self._size)
        return grown


register_engine("hooks", HookEngine)


def _model_of(policy: Policy) -> nn.Module:
    """The module whose layers are called, at present: a trainer may come to another one.

    Raises:
        UnsupportedModelError: there is none, or it is compiled.
    """
    model = getattr(policy, "model", policy)
    if not isinstance(model, nn.Module):
        raise UnsupportedModelError("the policy has no model attribute that is a torch.nn.Module")
    if any(hasattr(m, "_orig_mod") or m._compiled_call_impl is not None for m in model.modules()):
        raise UnsupportedModelError(
            "the model is compiled, and a compiled model calls no layer's hooks"
        )
    return model
