"""Held-out rollouts through the TRL trainer's own generation path, and their log-probs."""

from __future__ import annotations

import copy
import math
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from passk_guard.integrations._trl_rewards import ProbeRewards
from passk_guard.isolation import checkpointing_without_dropout, isolated, kept_attributes
from passk_guard.rollouts import RolloutGroup, packed
from passk_guard.scoring import token_log_probs
from passk_guard.sharding import reshard
from passk_guard.verifier import decide_success, verifier_name

__all__ = ["TRLPolicy", "restore_method", "tapped_rewards"]

# Sampling must be from the very distribution that is scored.
_NEUTRAL_SAMPLING = {"top_k": 0, "top_p": 1.0, "min_p": None, "repetition_penalty": 1.0}


class TRLPolicy:
    """The policy inside a ``trl.GRPOTrainer``.

    Whatever generates for training (in-process, tools, environments, async rewards) generates for
    the probe. Rows are repeated and split over processes as the trainer does in evaluation, and
    gathered, so that every process holds every rollout.

    Args:
        trainer: a ``GRPOTrainer``.
        verifier: the reward function that decides "right": one of the trainer's, or another one,
            which is then scored beside the trainer's with weight 0.
        threshold: reward from which a rollout is right.
        temperature: of the sampling.
        timeout: seconds after which a hanging reward function is reported.
    """

    def __init__(
        self,
        trainer: Any,
        verifier: Any,
        threshold: float,
        temperature: float,
        timeout: float,
    ) -> None:
        self._trainer = trainer
        self._verifier = verifier
        self._index = 0  # of the verifier among the reward functions of a probe
        self._rewards = ProbeRewards(timeout)
        self._threshold = threshold
        self._temperature = temperature

    def parameters(self) -> Iterable[tuple[str, Parameter]]:
        """Named parameters of the unwrapped model."""
        reshard(self._trainer.model)
        named: Iterable[tuple[str, Parameter]] = self._trainer.model.named_parameters()
        return named

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
        """Sample and verify ``n`` rollouts per row, no more at a time than training does."""
        if n == 1 and not hasattr(self._trainer, "num_generations_eval"):
            pairs = self.generate(rows, row_ids, 2, temperature)  # trl < 0.25 divides by n - 1
            return [group.first(1) for group in pairs]
        self._sample_as(n, self._temperature if temperature is None else temperature)
        accelerator = self._trainer.accelerator
        world, rank = accelerator.num_processes, accelerator.process_index
        # Every process takes the same number of rollouts, so prompts come in multiples of this.
        unit = world // math.gcd(world, n)
        at_once = max(self._trainer.args.generation_batch_size // n // unit, 1) * unit
        groups: list[RolloutGroup] = []
        for start in range(0, len(rows), at_once):
            chunk = list(range(start, min(start + at_once, len(rows))))
            filler = [chunk[0]] * (-len(chunk) % unit)
            repeated = [dict(rows[i]) for i in chunk + filler for _ in range(n)]
            share = len(repeated) // world
            local = repeated[rank * share : (rank + 1) * share]
            groups += self._rollouts(local, [row_ids[i] for i in chunk], n)
        return groups

    def _rollouts(
        self, local: list[dict[str, Any]], row_ids: list[int], n: int
    ) -> list[RolloutGroup]:
        from accelerate.utils import gather_object

        with tapped_rewards(self._trainer) as tapped:
            output = self._trainer._generate_and_score_completions(local)
        self._rewards.raise_errors()
        rewards = tapped[-1][:, self._index].float().cpu()
        success = decide_success(rewards, self._threshold)
        rollouts = gather_object(_unpadded(output))
        groups = []
        for i, row in enumerate(row_ids):
            mine = slice(i * n, (i + 1) * n)
            groups.append(_group(row, rollouts[mine], success[mine], rewards[mine]))
        return groups

    @contextmanager
    def isolated(self, seed: int) -> Iterator[None]:
        """A context in which the trainer may generate in eval mode without leaving a trace."""
        trainer = self._trainer
        rank = trainer.accelerator.process_index
        with ExitStack() as stack:
            modules = [m for m in trainer.reward_funcs if isinstance(m, torch.nn.Module)]
            stack.enter_context(isolated(trainer.model, *modules, seed=seed + rank))
            # Averages and tables that TRL builds up between two logs.
            for name in ("_metrics", "_logs", "_pending_metrics", "_pending_extra_logs"):
                stack.enter_context(_kept_container(trainer, name))
            stack.enter_context(
                kept_attributes(
                    trainer,
                    *("generation_config", "generation_kwargs", "mask_truncated_completions"),
                    *("num_generations_eval", "num_generations", "beta", "environments"),
                    *("reward_funcs", "reward_func_names", "reward_processing_classes"),
                    *("reward_weights", "log_completions"),
                )
            )
            stack.enter_context(kept_attributes(trainer.args, "report_to"))
            self._set_up(trainer)
            yield

    def _set_up(self, trainer: Any) -> None:
        trainer.mask_truncated_completions = False
        trainer.args.report_to = []  # TRL writes down the time that each call of its methods takes
        trainer.beta = 0.0  # spares the reference model; the KL term is no part of GRPO's reward
        if not any(func is self._verifier for func in trainer.reward_funcs):
            trainer.reward_funcs = [*trainer.reward_funcs, self._verifier]
            trainer.reward_func_names = [*trainer.reward_func_names, verifier_name(self._verifier)]
            trainer.reward_processing_classes = [*trainer.reward_processing_classes, None]
            weights = trainer.reward_weights
            trainer.reward_weights = torch.cat([weights, weights.new_zeros(1)])
        funcs = trainer.reward_funcs
        self._index = next(i for i, func in enumerate(funcs) if func is self._verifier)
        trainer.reward_funcs = [self._rewards.before(func) for func in funcs]

    def _sample_as(self, n: int, temperature: float) -> None:
        """``n`` rollouts per prompt from the policy's own distribution, or its argmax at 0."""
        trainer = self._trainer
        if hasattr(trainer, "num_generations_eval"):
            trainer.num_generations_eval = n
        else:  # trl < 0.25
            trainer.num_generations = n
        sampling = {**_NEUTRAL_SAMPLING, "temperature": temperature, "do_sample": True}
        if temperature == 0:
            sampling = {**_NEUTRAL_SAMPLING, "temperature": 1.0, "do_sample": False}
        if getattr(trainer, "generation_config", None) is not None:
            trainer.generation_config = copy.deepcopy(trainer.generation_config)
            for name, value in sampling.items():
                setattr(trainer.generation_config, name, value)
        if getattr(trainer, "generation_kwargs", None) is not None:
            trainer.generation_kwargs = {**trainer.generation_kwargs, **sampling}


@contextmanager
def tapped_rewards(trainer: Any) -> Iterator[list[Tensor]]:
    """Collect the gathered ``(total, functions)`` rewards that the trainer computes within."""
    seen: list[Tensor] = []
    original = trainer._calculate_rewards

    def calculate(*args: Any, **kwargs: Any) -> Tensor:
        rewards: Tensor = original(*args, **kwargs)
        seen.append(rewards)
        return rewards

    trainer._calculate_rewards = calculate
    try:
        yield seen
    finally:
        restore_method(trainer, "_calculate_rewards", original)


def restore_method(trainer: Any, name: str, original: Any) -> None:
    """Undo the override of a method on one instance; an override by somebody else stays."""
    delattr(trainer, name)
    if getattr(trainer, name) != original:
        setattr(trainer, name, original)


_Rollout = tuple[list[int], list[int], list[int], float]


def _unpadded(output: Mapping[str, Tensor]) -> list[_Rollout]:
    """Per rollout: prompt ids, completion ids, which of them the policy sampled, advantage."""
    output = {k: v.cpu() for k, v in output.items() if isinstance(v, Tensor)}
    sampled = output["completion_mask"]
    if "tool_mask" in output:
        sampled = sampled * output["tool_mask"]
    rollouts = []
    for i in range(len(sampled)):
        prompt = output["prompt_ids"][i][output["prompt_mask"][i].bool()]
        present = output["completion_mask"][i].bool()
        completion = output["completion_ids"][i][present]
        advantage = float(output["advantages"][i])
        rollouts.append(
            (prompt.tolist(), completion.tolist(), sampled[i][present].tolist(), advantage)
        )
    return rollouts


def _group(
    row: int, rollouts: Sequence[_Rollout], success: Tensor, rewards: Tensor
) -> RolloutGroup:
    prompts, completions, sampled, advantages = zip(*rollouts, strict=True)
    tokens = packed(prompts, completions, sampled)
    return RolloutGroup(row, *tokens, success, torch.tensor(advantages), rewards)


@contextmanager
def _kept_container(trainer: Any, name: str) -> Iterator[None]:
    if not hasattr(trainer, name):
        yield
        return
    kept = _copied(getattr(trainer, name))
    try:
        yield
    finally:
        setattr(trainer, name, kept)


def _copied(value: Any) -> Any:
    """Containers are copied, what lies in them is shared."""
    if isinstance(value, defaultdict):
        return defaultdict(value.default_factory, {k: _copied(v) for k, v in value.items()})
    if isinstance(value, dict):
        return {k: _copied(v) for k, v in value.items()}
    if isinstance(value, deque):
        return deque(value, maxlen=value.maxlen)
    return list(value) if isinstance(value, list) else value
