"""What the guard needs of a trainer, and the guard that is built from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any, NamedTuple

from torch import nn

from passk_guard.checks import check_call, check_sampling, check_threshold, check_whole
from passk_guard.config import PassKGuardConfig
from passk_guard.errors import reason_of, survived, warn
from passk_guard.guard import PassKGuard
from passk_guard.objectives.live import LiveObjective
from passk_guard.objectives.mixes import AnchorMix
from passk_guard.objectives.passk_objective import PassKObjective
from passk_guard.prompts.pool import HeldOutPool
from passk_guard.prompts.rows import check_texts
from passk_guard.remedies.anchors import AnchorLoss, AnchorTerm
from passk_guard.reporting.report import Report
from passk_guard.reporting.terminal import Terminal
from passk_guard.rollouts.hf_policy import HFPolicy
from passk_guard.rollouts.policy import Policy, lacking
from passk_guard.rollouts.verified_policy import VerifiedPolicy
from passk_guard.rollouts.verifier import check_verifier, choose_verifier, verifier_name
from passk_guard.runtime.isolation import isolated
from passk_guard.runtime.processes import world
from passk_guard.session.held_out import anchor_rows, held_out_rows

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Arguments:
    """What a user passes to a callback beside the settings."""

    prompts: Any = None
    reward_funcs: Any = None
    success: Any = None
    success_threshold: float = 0.5
    objective: Any = None
    policy: Any = None
    temperature: float | None = None
    max_completion_length: int | None = None
    anchor_prompts: Any = None
    anchor_batch_size: int = 8

    def __post_init__(self) -> None:
        """Check the numbers; they become plain Python ones."""
        checked: dict[str, Any] = {
            "success_threshold": check_threshold(self.success_threshold),
            "temperature": check_sampling(self.temperature),
            "anchor_batch_size": check_whole("anchor_batch_size", self.anchor_batch_size, 1),
        }
        if self.max_completion_length is not None:
            longest = check_whole("max_completion_length", self.max_completion_length, 1)
            checked["max_completion_length"] = longest
        for name, value in checked.items():
            object.__setattr__(self, name, value)


class GuardParts(NamedTuple):
    """A guard, and what the session drives beside it.

    Attributes:
        guard: the guard.
        anchors: pass@1 term beside a loss that the guard cannot reach into.
        hook: puts a live objective into the trainer: ``install()``, ``remove()`` and ``failed``.
        sensor: reads pass@1 off each training batch: ``observe()``.
        late: whether the first look is taken just before the first update, of the same policy.
    """

    guard: PassKGuard
    anchors: AnchorTerm | None = None
    hook: Any = None
    sensor: Any = None
    late: bool = False


class TrainerAdapter(ABC):
    """A trainer as the guard sees it. Each kind of trainer has a subclass.

    Args:
        trainer: the trainer.
        config: settings.
        arguments: what the user passed beside them.

    Attributes:
        terminal: shows progress where the trainer does.
        say: takes messages.
        prompts: held-out prompts where the user passes none.
        training_prompts: rows that the run trains on.
        reward_funcs: the trainer's own, if it has some.
        micro_batch: rollouts per backward, if the trainer says.
        state: what verifiers get as ``trainer_state``.
        why_no_mix: why the trainer's loss can take no pass@1 term, if it cannot.
    """

    prompts: Any = None
    training_prompts: Any = None
    reward_funcs: Any = None
    micro_batch: int | None = None
    state: Any = None
    why_no_mix: str | None = None

    def __init__(self, trainer: Any, config: PassKGuardConfig, arguments: Arguments) -> None:
        self.trainer = trainer
        self.config = config
        self.arguments = arguments
        self.terminal = Terminal(self.shows_progress)
        self.say = self.terminal.say
        self._report_failed = False

    # The trainer ----------------------------------------------------------------------------

    @property
    @abstractmethod
    def module(self) -> nn.Module:
        """All that training may touch; what ``policy=`` is called with."""

    @property
    @abstractmethod
    def model(self) -> Any:
        """The causal LM, for the default policy."""

    @property
    @abstractmethod
    def tokenizer(self) -> Any:
        """The model's tokenizer."""

    @property
    @abstractmethod
    def folder(self) -> str | None:
        """Folder of the run; ``None`` where nothing is to be written."""

    @property
    @abstractmethod
    def hint(self) -> str:
        """What is missing for curves and pictures; empty where nothing is."""

    @abstractmethod
    def shows_progress(self) -> bool:
        """Whether the trainer shows a progress bar, on this process."""

    @abstractmethod
    def optimizer(self) -> Any:
        """The run's optimizer."""

    @abstractmethod
    def send(self, report: Report) -> None:
        """Take a report to the trainer's loggers, on the main process."""

    @abstractmethod
    def save(self, step: int) -> str | None:
        """Save a checkpoint, or ask for one; where it will be, if that is known."""

    @abstractmethod
    def stop(self) -> None:
        """End training after this step."""

    @property
    def name(self) -> str:
        """The trainer's class, for messages and the journal."""
        return type(self.trainer).__name__

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that warns and writes."""
        return world()[0] == 0

    def tell(self, scalars: Mapping[str, float]) -> None:  # noqa: B027  # most need nothing
        """Make a look's scalars known within the trainer, on every process."""

    def autocast(self) -> AbstractContextManager[Any]:
        """The trainer's mixed precision."""
        return nullcontext()

    def samples_per_step(self) -> int | None:
        """Sequences that an optimizer step trains on, where known."""
        return None

    @contextmanager
    def reporting_to(self, name: str) -> Iterator[None]:
        """Within, a failing logger costs its entry, and is reported once."""

        def complain(error: Exception) -> None:
            if not self._report_failed:
                self._report_failed = True
                warn(
                    "a reporter failed (this warning is shown once). Training goes on. "
                    f"{name}: {reason_of(error)}"
                )

        with survived(self.config.strict, complain):
            yield

    # The guard ------------------------------------------------------------------------------

    def build(self) -> GuardParts:
        """Check everything, and put the guard together.

        Raises:
            ValueError, TypeError: an argument is missing or unusable; the message says which, and
                how to fix it.
        """
        config, arguments = self.config, self.arguments
        live = self._live_objective()
        rows = self.held_out_rows()
        anchors = None
        if isinstance(live, AnchorMix):
            anchors = anchor_rows(arguments.anchor_prompts, rows, is_main=self.is_main)
        verifier = self._verifier(rows)
        own = self._policy()
        if anchors is not None and not hasattr(own, "parameters"):
            raise ValueError(
                "action='mix' adds a gradient on anchor_prompts to the parameters, but the policy "
                "has no parameters() here. Compute your loss with passk_guard.PassKObjective and "
                "pass that object as objective=, or use action='warn'."
            )
        if isinstance(own, HFPolicy):
            check_texts(rows, own.tokenizer)
            if anchors is not None:
                check_texts(anchors, own.tokenizer, "anchor_prompts")
        policy = VerifiedPolicy(
            own,
            verifier,
            arguments.success_threshold,
            timeout=config.verifier_timeout,
            autocast=self.autocast,
            trainer_state=self.state,
            module=self.module,
        )
        guard = self.make_guard(
            policy,
            rows,
            live,
            self._isolation,
            verifier=verifier,
            temperature=1.0 if arguments.temperature is None else arguments.temperature,
            max_completion_length=arguments.max_completion_length,
        )
        if anchors is None or not isinstance(live, AnchorMix):
            return GuardParts(guard)
        if verifier is not None:
            check_verifier(verifier, set(anchors[0]), "anchor_prompts")
        loss = AnchorLoss(
            policy,
            HeldOutPool(anchors, config.seed + 1),
            config.n,
            arguments.anchor_batch_size,
            self._isolation,
            guard.passes,
        )
        return GuardParts(guard, AnchorTerm(loss, live, config.seed, config.strict))

    def held_out_rows(self, stand_in: Any = None) -> Rows:
        """The held-out rows; ``stand_in`` as in :func:`held_out_rows`."""
        return held_out_rows(
            self.arguments.prompts,
            self.config,
            instead=self.prompts,
            training=self.training_prompts,
            is_main=self.is_main,
            stand_in=stand_in,
        )

    def make_guard(
        self,
        policy: Policy,
        rows: Rows,
        live: LiveObjective | None,
        isolation: Callable[[int], AbstractContextManager[None]],
        *,
        verifier: Any,
        temperature: float,
        max_completion_length: int | None,
        **more: Any,
    ) -> PassKGuard:
        """The guard of this trainer; ``more`` are further keywords of ``PassKGuard``."""
        config = self.config
        return PassKGuard(
            policy,
            HeldOutPool(rows, config.seed, weight_by=config.weight_by),
            config,
            isolation=isolation,
            objective=live,
            micro_batch=self.micro_batch,
            optimizer=self.optimizer,
            say=self.say,
            progress=self.terminal.progress,
            is_main=self.is_main,
            sampling={
                "verifier": None if verifier is None else verifier_name(verifier),
                "success_threshold": self.arguments.success_threshold,
                "temperature": temperature,
                "max_completion_length": max_completion_length,
            },
            rollouts_per_step=self.samples_per_step,
            **more,
        )

    def _isolation(self, seed: int) -> AbstractContextManager[None]:
        return isolated(self.module, seed=seed + world()[0])

    def _policy(self) -> Policy:
        arguments = self.arguments
        if arguments.policy is None:
            return HFPolicy(
                self.model,
                self.tokenizer,
                max_completion_length=arguments.max_completion_length,
                temperature=1.0 if arguments.temperature is None else arguments.temperature,
            )
        policy = _imported(arguments.policy)
        if callable(policy):
            check_call("policy", policy, "model")
            policy = policy(self.module)
        if missing := lacking(policy):
            raise TypeError(
                f"policy must give an object with generate, log_probs and parameters (or gramian), "
                f"got {type(policy).__name__} without {', '.join(missing)}. See "
                "passk_guard.rollouts.policy.Policy."
            )
        return policy  # type: ignore[no-any-return]

    def _verifier(self, rows: Rows) -> Any:
        """The function that decides "right"; ``None`` where the user's own policy does."""
        funcs, success = self.arguments.reward_funcs, self.arguments.success
        if funcs is None:
            funcs = self.reward_funcs
        if funcs is None and success is None:
            if self.arguments.policy is not None:
                return None
            raise ValueError(
                f"reward_funcs is missing, and {self.name} has none of its own. Pass a verifier: "
                "reward_funcs=verify with verify(prompts, completions, **columns) -> list of "
                "scores."
            )
        if isinstance(funcs, (list, tuple)):
            funcs = [_imported(func) for func in funcs]
        if funcs is None:
            success = _imported(success)
        verifier = choose_verifier(_imported(funcs), success)
        if isinstance(verifier, (str, nn.Module)):
            raise ValueError(
                f"reward_funcs={verifier!r} is not a function. Pass a verifier function, or its "
                "dotted path such as 'my_module.verify'."
            )
        check_verifier(verifier, set(rows[0]))
        return verifier

    def _live_objective(self) -> LiveObjective | None:
        config, objective = self.config, self.arguments.objective
        if isinstance(objective, str):
            raise ValueError(
                f"objective={objective!r} would replace a trainer's advantages, and {self.name} "
                f"has none. Compute your loss with passk_guard.PassKObjective(k={config.k}, "
                f"estimator={objective!r}) and pass that same object as objective=: the guard then "
                "reads and steers it."
            )
        if objective is not None and not isinstance(objective, PassKObjective):
            raise TypeError(
                f"objective must be the PassKObjective that your loss uses, or None, got "
                f"{type(objective).__name__}."
            )
        if objective is not None and objective.k != config.k:
            raise ValueError(
                f"k={config.k}, but objective has k={objective.k:g}. Pass the same k to both."
            )
        has_anchors = self.arguments.anchor_prompts is not None
        if has_anchors and (objective is not None or config.remedy != "mix"):
            raise ValueError(
                "anchor_prompts is what action='mix' adds a pass@1 loss on, where the guard has no "
                "objective= to steer. "
                + ("Leave out one of the two." if objective is not None else "Add action='mix'.")
            )
        if objective is not None or config.remedy is None:
            return objective
        if self.why_no_mix is not None:
            raise ValueError(f"action={config.action!r} is not possible here: {self.why_no_mix}")
        if config.remedy != "mix":
            raise ValueError(
                "action='adjust_k' lowers the k of an objective that the guard can reach. Compute "
                f"your loss with passk_guard.PassKObjective(k={config.k}) and pass that object as "
                "objective=, or use action='mix' with anchor_prompts=."
            )
        if not has_anchors:
            raise ValueError(
                f"action='mix' needs anchor_prompts on {self.name}: training prompts on which a "
                "pass@1 loss is added while there is a conflict. Or compute your loss with "
                "passk_guard.PassKObjective and pass that object as objective=."
            )
        return AnchorMix(config.k)


def _imported(value: Any) -> Any:
    """The object at a dotted path such as ``"my_module.verify"`` (from YAML); else the value."""
    if not isinstance(value, str) or "." not in value:
        return value
    try:
        return resolve_name(value)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{value!r} cannot be imported: {error}.") from error
