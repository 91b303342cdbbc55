"""A policy whose rollouts are verified, and shared out over processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from passk_guard.errors import ProbeError
from passk_guard.rollouts.event_loop import finished
from passk_guard.rollouts.group import RolloutGroup
from passk_guard.rollouts.policy import Policy
from passk_guard.rollouts.row_faults import RowFaults, without_loop
from passk_guard.rollouts.verified_again import completion_ids, shared_out
from passk_guard.rollouts.verifier import checked_scores, copied, decide_success, verifier_name
from passk_guard.rollouts.verifier_timeout import is_async, watched
from passk_guard.runtime.isolation import kept_modes
from passk_guard.runtime.lockstep import all_or_none
from passk_guard.runtime.processes import everywhere, world
from passk_guard.runtime.sharding import reshard, runs_together


class VerifiedPolicy:
    """Adds to a policy what it need not know of: the verifier, other processes, autocast.

    Each process samples and verifies its share of the prompts; all of them get all rollouts.

    Args:
        policy: samples and scores.
        verifier: TRL's reward signature, called by keyword:
            ``f(prompts, completions, completion_ids, trainer_state, log_extra, log_metric,
            **columns)``, plain or async, one score per completion, ``None`` = unscorable. ``None``
            where the policy verifies by itself.
        threshold: score from which a rollout is right.
        timeout: seconds after which a hanging verifier is reported, see
            :func:`~passk_guard.rollouts.verifier_timeout.watched`.
        autocast: context for forward passes, such as the trainer's mixed precision.
        trainer_state: what the verifier gets under that name.
        module: that the policy is about; needed where its parameters are sharded.
    """

    def __init__(
        self,
        policy: Policy,
        verifier: Callable[..., Any] | None,
        threshold: float = 0.5,
        *,
        timeout: float = 300.0,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
        trainer_state: Any = None,
        module: nn.Module | None = None,
    ) -> None:
        self._policy, self._threshold, self._autocast = policy, threshold, autocast
        self._name = "" if verifier is None else verifier_name(verifier)
        self._verifier = None if verifier is None else watched(verifier, timeout)
        self._faults = RowFaults(self._name)
        self._trainer_state, self._module = trainer_state, module

    def parameters(self) -> Iterable[tuple[str, Parameter]]:
        """The policy's."""
        if self._module is not None:
            reshard(self._module)
        return self._policy.parameters()

    def log_probs(
        self, input_ids: Tensor, attention_mask: Tensor, completion_mask: Tensor
    ) -> Tensor:
        """The policy's, under autocast."""
        with self._autocast():
            return self._policy.log_probs(input_ids, attention_mask, completion_mask)

    @property
    def model(self) -> nn.Module:
        """The policy's, whose layers can be watched.

        Raises:
            AttributeError: it has none.
        """
        policy: Any = self._policy
        own = getattr(policy, "model", policy)
        if not isinstance(own, nn.Module):
            raise AttributeError("the policy has no model that is a torch.nn.Module")
        return own

    @property
    def gramian(self) -> Callable[[Sequence[RolloutGroup]], Tensor]:
        """The policy's own, where it has one.

        Raises:
            AttributeError: it has none.
        """
        own: Callable[[Sequence[RolloutGroup]], Tensor] = self._policy.gramian  # type: ignore[attr-defined]
        return own

    def unfit(self, rows: Sequence[Mapping[str, Any]]) -> list[str | None]:
        """The policy's, where it has one: of each row, why it cannot be sampled."""
        unfit = getattr(self._policy, "unfit", None)
        return [None] * len(rows) if unfit is None else list(unfit(rows))

    def generate(
        self,
        rows: Sequence[Mapping[str, Any]],
        row_ids: Sequence[int],
        n: int,
        temperature: float | None = None,
    ) -> list[RolloutGroup]:
        """Sample and verify ``n`` rollouts per row.

        Raises:
            ProbeError: the verifier's answer is not one score per completion.
            Exception: whatever policy and verifier raise, on every process.
        """
        rank, size = world()
        # As many prompts on every process: where parameters are sharded they wait for another.
        share = -(-len(rows) // size)
        mine = [min(rank + size * j, len(rows) - 1) for j in range(share)]
        filled = share - len(range(rank, len(rows), size))
        parts = everywhere(
            lambda: self._verified(
                [rows[i] for i in mine], [row_ids[i] for i in mine], n, temperature, filled
            )
        )
        return [parts[i % size][i // size] for i in range(len(rows))]

    def _verified(
        self,
        rows: list[Mapping[str, Any]],
        row_ids: list[int],
        n: int,
        temperature: float | None,
        filled: int,
    ) -> list[RolloutGroup]:
        more = () if temperature is None else (temperature,)
        parameters = () if self._module is None else self._module.parameters()
        together = all_or_none(runs_together(parameters))
        with together, self._autocast(), kept_modes(self._module):
            groups = self._policy.generate(rows, row_ids, n, *more)
        if len(groups) != len(rows):
            raise ProbeError(f"the policy gave {len(groups)} groups for {len(rows)} prompts")
        groups, rows = groups[: len(rows) - filled], rows[: len(rows) - filled]
        if self._verifier is None:
            return groups
        if any(group.completions is None for group in groups):
            raise ProbeError(
                "the policy gives no completions, so reward_funcs has nothing to verify. Let its "
                "generate() set RolloutGroup.completions, or verify there and leave reward_funcs "
                "out"
            )
        scores = self._scores(
            [row for row, group in zip(rows, groups, strict=True) for _ in range(group.n)],
            [completion for group in groups for completion in group.completions or ()],
            [ids for group in groups for ids in completion_ids(group)],
            [group.row for group in groups for _ in range(group.n)],
        ).split([group.n for group in groups])
        return [
            replace(group, success=decide_success(own, self._threshold), rewards=own)
            for group, own in zip(groups, scores, strict=True)
        ]

    @property
    def verify_again(self) -> Callable[..., list[float]]:
        """``f(rows, completions, completion_ids)``: verdicts on given rollouts, one row each.

        1 is right, 0 wrong, NaN none. Processes share the work, and all get all verdicts. It raises
        whatever the verifier raises, on every process.

        Raises:
            AttributeError: the policy verifies by itself, and has no such method.
        """
        if self._verifier is not None:
            return self._verify_again
        own: Callable[..., list[float]] = self._policy.verify_again  # type: ignore[attr-defined]
        return own

    def _verify_again(
        self,
        rows: Sequence[Mapping[str, Any]],
        completions: Sequence[Any],
        completion_ids: Sequence[list[int]],
    ) -> list[float]:
        def verdicts(mine: list[int]) -> list[float]:
            scores = self._scores(
                [rows[i] for i in mine],
                [completions[i] for i in mine],
                [completion_ids[i] for i in mine],
            )
            return [float(v) for v in decide_success(scores, self._threshold)]

        return shared_out(len(rows), verdicts)

    def _scores(
        self,
        each: list[Mapping[str, Any]],
        completions: list[Any],
        tokens: list[list[int]],
        row_ids: list[int] | None = None,
    ) -> Tensor:
        """One score per rollout, NaN where there is none.

        With ``row_ids``, a row with which the verifier raises has none; else it is raised.
        """
        verifier = self._verifier
        assert verifier is not None

        async def score(which: Sequence[int]) -> list[float]:
            rows = [each[i] for i in which]
            columns = {name: [row[name] for row in rows] for name in rows[0] if name != "prompt"}
            found = verifier(
                **copied(columns),  # its own to change: neither the pool nor a rollout's twin
                prompts=copied([row["prompt"] for row in rows]),
                completions=copied([completions[i] for i in which]),
                completion_ids=copied([tokens[i] for i in which]),
                trainer_state=self._trainer_state,
                log_extra=_nothing,  # the probe leaves no trace in the trainer's tables
                log_metric=_nothing,
            )
            found = await found if is_async(verifier) else found
            return checked_scores(found, len(which), self._name)

        if row_ids is None:
            scored = score(range(len(each)))
        else:
            scored = self._faults.scores(score, row_ids)
        try:
            found = finished(scored) if is_async(verifier) else without_loop(scored)
        except ProbeError:
            raise
        except Exception as error:
            error.add_note(f"The verifier {self._name!r} raised this.")
            raise
        return torch.tensor(found, dtype=torch.float32, device="cpu")


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Stands in for the trainer's loggers."""
