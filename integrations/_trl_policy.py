"""Held-out rollouts through the TRL trainer's own generation path, and their log-probs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from passk_guard.errors import ProbeError, reason_of
from passk_guard.integrations._trl_beneath import (
    beneath,
    fault,
    is_stock,
    raised_by_subclass,
    tapped,
    token_pairs,
)
from passk_guard.integrations._trl_environments import ProbeEnvironments, without_stand_in
from passk_guard.integrations._trl_kept import KeptTrainer
from passk_guard.integrations._trl_rewards import ProbeRewards, scored_again
from passk_guard.integrations._trl_rollouts import Rollout, grouped, unpadded
from passk_guard.integrations._trl_sampling import answer_ends, sampling_plainly, why_unfit
from passk_guard.integrations._trl_vllm import (
    log_prob_mode,
    reachable_engine,
    rollouts_at_once,
    tapped_engine,
    tells_log_probs,
)
from passk_guard.rollouts.group import RolloutGroup, joined
from passk_guard.rollouts.recorded_sampling import recorded_sampling
from passk_guard.rollouts.token_log_probs import token_log_probs
from passk_guard.rollouts.verifier import decide_success, verifier_name
from passk_guard.runtime.isolation import (
    checkpointing_without_dropout,
    isolated,
    kept_attributes,
    kept_modes,
)
from passk_guard.runtime.lockstep import all_or_none
from passk_guard.runtime.processes import everywhere
from passk_guard.runtime.sharding import named_parameters

_PROBING = "_passk_guard_probing"


def probing(trainer: Any) -> bool:
    """Whether the guard is probing: its rollouts are not for training, whatever mode is on."""
    return bool(getattr(trainer, _PROBING, False))


class TRLPolicy:
    """The policy inside a ``trl.GRPOTrainer`` or ``RLOOTrainer``.

    Whatever generates for training (in-process, tools, environments, async rewards) generates for
    the probe. Rows are repeated and split over processes as the trainer does in evaluation, and
    gathered, so that every process holds every rollout.

    Args:
        trainer: a ``GRPOTrainer`` or ``RLOOTrainer``.
        verifier: the reward function that decides "right": one of the trainer's, or another one,
            which is then scored beside the trainer's with weight 0.
        threshold: reward from which a rollout is right.
        temperature: sampling temperature.
        timeout: seconds after which a hanging reward function is reported.
        say: takes messages.
    """

    def __init__(
        self,
        trainer: Any,
        verifier: Any,
        threshold: float,
        temperature: float,
        timeout: float,
        say: Callable[[str], None],
    ) -> None:
        self._trainer = trainer
        self._kept, self._say = KeptTrainer(trainer, say), say
        self._kept.name_opaque()
        self._environments = ProbeEnvironments(trainer)
        self._beneath = False  # whether a subclass's methods are passed over
        self._verifier = verifier
        self._index = 0  # of the verifier among the reward functions of a probe
        self._rewards = ProbeRewards(timeout)
        self._threshold = threshold
        self._temperature = temperature
        self._mode: str | None = None  # of an engine's log-probs, once it was asked

    def parameters(self) -> Iterable[tuple[str, Parameter]]:
        """Named parameters of the unwrapped model."""
        return named_parameters(self._trainer.model)

    @property
    def model(self) -> torch.nn.Module:
        """Whose layers can be watched."""
        model: torch.nn.Module = self._trainer.model
        return model

    def log_probs(
        self, input_ids: Tensor, attention_mask: Tensor, completion_mask: Tensor
    ) -> Tensor:
        """Per-token log-probabilities of rollouts, differentiable, ``(b, L)``."""
        model, device = self._trainer.model, self._trainer.accelerator.device
        with self._trainer.accelerator.autocast(), checkpointing_without_dropout(model):
            return token_log_probs(
                model,
                input_ids.to(device),
                attention_mask.to(device),
                completion_mask.to(device),
                self._temperature,
            )

    def generate(
        self,
        rows: Sequence[Mapping[str, Any]],
        row_ids: Sequence[int],
        n: int,
        temperature: float | None = None,
    ) -> list[RolloutGroup]:
        """Sample and verify ``n`` rollouts per row, in as few calls as is safe."""
        if n == 1 and not hasattr(self._trainer, "num_generations_eval"):
            pairs = self.generate(rows, row_ids, 2, temperature)  # trl < 0.25 divides by n - 1
            return [group.first(1) for group in pairs]
        temperature = self._temperature if temperature is None else temperature
        most = rollouts_at_once(self._trainer)
        if self._environments and n > most:  # there are no more environments in training
            sizes = [min(most, n - first) for first in range(0, n, most)]
            parts = [self.generate(rows, row_ids, size, temperature) for size in sizes]
            return [joined(groups) for groups in zip(*parts, strict=True)]
        with sampling_plainly(self._trainer, n, temperature, self._rewards.note):
            return self._in_chunks(rows, row_ids, n, temperature)

    def _told(self, temperature: float) -> bool:
        """Whether rollouts come with log-probs of what they are sampled from, on all processes."""
        engine = reachable_engine(self._trainer)
        if engine is None:
            return False
        if self._mode is None:
            # Of a server the main process alone knows.
            self._mode = next(mode for mode in everywhere(lambda: log_prob_mode(engine)) if mode)
        return tells_log_probs(self._mode, temperature)

    def unfit(self, rows: Sequence[Mapping[str, Any]]) -> list[str | None]:
        """Of each row: why it cannot be sampled, if so; the trainer would fail on its batch."""
        return why_unfit(self._trainer, rows)

    def _in_chunks(
        self, rows: Sequence[Mapping[str, Any]], row_ids: Sequence[int], n: int, temperature: float
    ) -> list[RolloutGroup]:
        from accelerate.utils import gather_object

        accelerator = self._trainer.accelerator
        world, rank = accelerator.num_processes, accelerator.process_index
        # Every process takes the same number of rollouts, so prompts come in multiples of this.
        unit = world // math.gcd(world, n)
        at_once = max(rollouts_at_once(self._trainer) // n // unit, 1) * unit
        groups: list[RolloutGroup] = []
        for start in range(0, len(rows), at_once):
            chunk = list(range(start, min(start + at_once, len(rows))))
            filler = [chunk[0]] * (-len(chunk) % unit)
            repeated = [i for i in chunk + filler for _ in range(n)]
            share = len(repeated) // world
            local = repeated[rank * share : (rank + 1) * share]
            self._rewards.rows = [row_ids[i] for i in local]
            asked = [without_stand_in(rows[i]) for i in local]
            mine, rewards = self._sampled_for(asked, temperature)
            self._rewards.rows = None
            success = decide_success(rewards, self._threshold)
            rollouts = gather_object(mine)
            completions = gather_object(self._rewards.completions or [])
            for i, row in enumerate(chunk):
                own = slice(i * n, (i + 1) * n)
                group = grouped(row_ids[row], rollouts[own], success[own], rewards[own])
                if len(completions) == len(rollouts):
                    group = replace(group, completions=tuple(completions[own]))
                groups.append(group)
        return groups

    def _sampled_for(
        self, rows: list[dict[str, Any]], temperature: float
    ) -> tuple[list[Rollout], Tensor]:
        """A rollout of each row, of this process; the rewards of all processes.

        Where a subclass does not give these, TRL's own methods do, from then on.

        Raises:
            ProbeError: they do not either.
        """
        trainer = self._trainer
        try:
            rollouts, rewards, why = self._sampled(rows, temperature)
            if why is None:
                return rollouts, rewards
        except Exception as error:
            if self._beneath or not raised_by_subclass(trainer, error):
                raise
            why = f"fails where a probe samples ({reason_of(error)})"
        name = type(trainer).__name__
        if self._beneath or is_stock(type(trainer)):
            raise ProbeError(f"{name} {why}")
        self._beneath = True
        self._say(
            f"passk-guard: {name} {why}. Probes sample and score with TRL's own methods instead, "
            f"beneath those of {name}."
        )
        return self._sampled_for(rows, temperature)

    def _sampled(
        self, rows: list[dict[str, Any]], temperature: float
    ) -> tuple[list[Rollout], Tensor, str | None]:
        trainer = self._trainer
        self._rewards.forget()
        told = self._told(temperature)
        if self._environments:
            everywhere(lambda: self._environments.make(rows))
        # After continuous batching TRL puts the model into train mode.
        with (
            all_or_none(trainer.accelerator.num_processes > 1),  # TRL gathers within
            nullcontext() if not self._beneath else beneath(trainer) as sample,
            tapped(trainer, "_calculate_rewards") as scores,
            tapped_engine(trainer) as answers,
            tapped(trainer, "_generate", token_pairs) as generated,  # TRL has it from 0.24 on
            recorded_sampling(trainer.model, temperature) as calls,
            kept_modes(trainer.model),
        ):
            output = (sample or trainer._generate_and_score_completions)([*map(dict, rows)])
        self._rewards.raise_errors()
        engine = answers if told else None
        rollouts = unpadded(output, engine, calls, *answer_ends(trainer))
        asked, scored = len(rows) * trainer.accelerator.num_processes, len(scores and scores[-1])
        why = fault(rollouts, len(rows), generated, self._rewards.completion_ids)
        if why is None and scored != asked:
            why = f"computes {scored} rewards for {asked} rollouts"
        why = next(filter(None, everywhere(lambda: why)), None)
        nothing = torch.empty(0, dtype=torch.float32, device="cpu")
        rewards = scores[-1][:, self._index].float().cpu() if scores else nothing
        return rollouts, rewards, why

    @property
    def verify_again(self) -> Callable[..., list[float]]:
        """``f(rows, completions, completion_ids)``: verdicts on given rollouts, one row each.

        1 is right, 0 wrong, NaN none. Processes share the work, and all get all verdicts.

        Raises:
            AttributeError: a reward model decides, which does not change by itself.
        """
        if isinstance(self._verifier, torch.nn.Module):
            raise AttributeError("a reward model is not asked again")
        func = self._rewards.before(self._verifier)

        def verdicts(*rollouts: Sequence[Any]) -> list[float]:
            found = scored_again(self._trainer, func, *rollouts)
            self._rewards.raise_errors()
            scores = torch.tensor(found, dtype=torch.float32, device="cpu")
            return [float(v) for v in decide_success(scores, self._threshold)]

        return verdicts

    @contextmanager
    def isolated(self, seed: int) -> Iterator[None]:
        """A context in which the trainer may generate in eval mode without leaving a trace."""
        trainer = self._trainer
        rank = trainer.accelerator.process_index
        with ExitStack() as stack:
            modules = [m for m in trainer.reward_funcs if isinstance(m, torch.nn.Module)]
            stack.enter_context(isolated(trainer.model, *modules, seed=seed + rank))
            stack.enter_context(self._kept())
            stack.enter_context(kept_attributes(trainer.state, "num_input_tokens_seen"))
            stack.enter_context(kept_attributes(trainer.args, "report_to", "steps_per_generation"))
            self._set_up(trainer)
            yield

    def _set_up(self, trainer: Any) -> None:
        setattr(trainer, _PROBING, True)
        self._environments.enter()
        trainer.mask_truncated_completions = False
        trainer.args.report_to = []  # TRL writes down the time that each call of its methods takes
        trainer.beta = 0.0  # spares the reference model; the KL term is no part of GRPO's reward
        # These spare forward passes for a loss that is never taken.
        trainer.vllm_importance_sampling_correction = False
        trainer.num_iterations = trainer.args.steps_per_generation = 1
        if not any(func is self._verifier for func in trainer.reward_funcs):
            trainer.reward_funcs = [*trainer.reward_funcs, self._verifier]
            trainer.reward_func_names = [*trainer.reward_func_names, verifier_name(self._verifier)]
            trainer.reward_processing_classes = [*trainer.reward_processing_classes, None]
            weights = trainer.reward_weights
            trainer.reward_weights = torch.cat([weights, weights.new_zeros(1)])
        funcs = trainer.reward_funcs
        self._index = next(i for i, func in enumerate(funcs) if func is self._verifier)
        trainer.reward_funcs = [self._rewards.before(func) for func in funcs]


class _Override:
    """Stands in for a trainer's method; a copy of the trainer gets its own method back."""

    def __init__(self, original: Any, ours: Callable[..., Any]) -> None:
        self._original, self._ours = original, ours

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._ours(*args, **kwargs)

    def __reduce__(self) -> Any:
        return _itself, (self._original,)


def _itself(method: Any) -> Any:
    return method


def override_method(trainer: Any, name: str, ours: Callable[..., Any]) -> Any:
    """Put a function in the place of a method on one instance; gives what was there."""
    original = getattr(trainer, name)
    setattr(trainer, name, _Override(original, ours))
    return original


def restore_method(trainer: Any, name: str, original: Any) -> None:
    """Undo the override of a method on one instance; an override by somebody else stays."""
    delattr(trainer, name)
    if getattr(trainer, name) != original:
        setattr(trainer, name, original)
