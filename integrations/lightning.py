"""passk-guard for Lightning: one callback line, automatic or manual optimisation."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from passk_guard.config import Actions, PassKGuardConfig
from passk_guard.errors import survived, warn
from passk_guard.gradients.accumulators import DEFAULT_MEMORY_LIMIT
from passk_guard.gradients.adam_metric import check_adam
from passk_guard.gradients.parameters import ParameterFilter
from passk_guard.guard import PassKGuard
from passk_guard.integrations._hosts import module_host
from passk_guard.integrations._lightning_loggers import LightningReporters
from passk_guard.integrations._needs import Need, check_needs
from passk_guard.objectives.passk_objective import PassKObjective
from passk_guard.remedies.anchors import AnchorTerm, norm
from passk_guard.remedies.gradient_term import add_to_gradients, averaged
from passk_guard.reporting.journal import Journal
from passk_guard.reporting.report import all_scalars, begin_run, end_run, publish
from passk_guard.reporting.sentences import start_message, where_message
from passk_guard.reporting.terminal import Terminal
from passk_guard.runtime.processes import decided_by_first, world
from passk_guard.session.harmless import Harmless, harmless
from passk_guard.session.hosted_guard import Given, hosted_guard
from passk_guard.session.state_file import take_up, whole_state

if TYPE_CHECKING:
    from lightning.pytorch import Callback
else:
    # The same code under two names, and trainers of older releases take only their own.
    _found, _reasons = [], []
    for _package in ("lightning.pytorch", "pytorch_lightning"):
        try:
            _found.append(import_module(_package).Callback)
        except ImportError as _error:  # missing, or installed and broken
            _reasons.append(str(_error))
    if not _found:
        raise ImportError(
            "passk_guard.integrations.lightning needs lightning or pytorch_lightning: "
            + "; ".join(_reasons)
        )
    Callback = type("Callback", tuple(_found), {})

__all__ = ["PassKGuardCallback"]

_NEEDS = (
    Need("strategy.reduce", 1, "average the pass@1 term over processes"),
    Need("loggers", None, "log"),
    Need("optimizers", None, "see Adam's moments"),
    Need("save_checkpoint", 1, "save where action='checkpoint' asks for it"),
)
_UNSUPPORTED = ("FSDPStrategy", "DeepSpeedStrategy")  # ModelParallelStrategy is FSDP2


class PassKGuardCallback(Harmless, Callback):
    """Guards pass@1 in a ``lightning.Trainer`` (or ``pytorch_lightning.Trainer``)::

        L.Trainer(callbacks=[PassKGuardCallback(prompts=held_out, reward_funcs=verify, k=8)])

    Steps are optimizer steps, ``trainer.global_step``; with several optimizers in manual
    optimisation that counts each of them. What it logs: see
    :mod:`passk_guard.reporting.scalars`; ``ModelCheckpoint(monitor="passk_guard/track")`` works,
    too. All other keywords are those of :class:`~passk_guard.config.PassKGuardConfig`.

    Args:
        prompts: held-out pool: strings, chat messages, dict rows, a ``datasets.Dataset`` or the
            path of a ``.jsonl`` file.
        reward_funcs: verifier ``f(prompts, completions, **columns)``, its dotted path, or several.
        success: name of the one that decides "right", or a verifier of its own.
        success_threshold: score from which a rollout counts as right.
        objective: the :class:`~passk_guard.PassKObjective` that the module's loss uses, if it
            does: it is read, and steered by ``"mix"`` and ``"adjust_k"``.
        policy: ``f(module)`` that gives a :class:`~passk_guard.rollouts.policy.Policy`, or its
            dotted path; by default ``HFPolicy(module.model, module.tokenizer)``.
        temperature: of the probe's sampling; 1 by default.
        max_completion_length: tokens per completion; by default the model's ``max_new_tokens``.
        anchor_prompts: training prompts, never held-out ones, on which ``action="mix"`` adds a
            pass@1 loss while there is a conflict, where there is no ``objective`` to steer.
        anchor_batch_size: anchor prompts per optimizer step. In manual optimisation, gradients that
            the module clips before ``optimizer.step()`` are clipped without the pass@1 term.

    Attributes:
        guard: the :class:`~passk_guard.guard.PassKGuard`; its ``history`` holds the probes.

    Raises:
        ValueError, TypeError: as ``fit`` sets up, before training.
    """

    def __init__(
        self,
        *,
        prompts: Any = None,
        reward_funcs: Any = None,
        success: str | Callable[..., Any] | None = None,
        success_threshold: float = 0.5,
        k: int = 8,
        objective: PassKObjective | None = None,
        policy: Callable[[Any], Any] | str | None = None,
        num_generations: int | None = None,
        prompts_per_probe: int = 64,
        every: int | None = None,
        max_overhead: float | None = None,
        action: Actions = "warn",
        pass1_tolerance: float = 0.01,
        floor: str | float = "start",
        false_alarms: float = 1e-3,
        watch: str = "update",
        metric: str = "euclidean",
        temperature: float | None = None,
        max_completion_length: int | None = None,
        report_temperature: float | None = None,
        group_by: str | None = None,
        weight_by: str | None = None,
        anchor_prompts: Any = None,
        anchor_batch_size: int = 8,
        reference_batches: int | None = None,
        parameters: ParameterFilter = None,
        memory_limit: int = DEFAULT_MEMORY_LIMIT,
        verifier_timeout: float = 300.0,
        log_prompts: bool = False,
        on_error: str | None = None,
        seed: int = 0,
    ) -> None:
        keywords = {**locals()}
        self._given = Given.from_keywords(keywords)
        self.config = PassKGuardConfig.from_keywords({**keywords, "objective": None})
        self._guard: PassKGuard | None = None
        self._anchors: AnchorTerm | None = None
        self._restored: dict[str, Any] = {}
        self._trainer: Any = None
        self._terminal = Terminal(self._shows_progress)
        self._say = self._terminal.say
        self._seen = -1  # optimizer steps at the last look
        self._clock = self._anchor_seconds = 0.0

    @property
    def guard(self) -> PassKGuard:
        """The guard, once ``fit`` has begun."""
        if self._guard is None:
            raise RuntimeError("PassKGuardCallback has no guard yet: it is made as fit() begins.")
        return self._guard

    def on_init_end(self, *args: Any, **kwargs: Any) -> None:
        """What ``transformers.Trainer`` calls on a callback of its own: this is none."""
        raise TypeError(
            "This PassKGuardCallback is for Lightning. Use passk_guard.integrations.transformers "
            "for a transformers.Trainer, passk_guard.integrations.trl for TRL."
        )

    on_train_begin = on_init_end

    # Trainer events -------------------------------------------------------------------------

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Check everything before training starts, once the module is configured."""
        if self._guard is not None:
            return
        strategy = type(trainer.strategy)
        if any(cls.__name__ in _UNSUPPORTED for cls in strategy.__mro__):
            raise ValueError(
                f"passk-guard does not support {strategy.__name__}, whose parameters have no "
                "gradients of their own: one process, DDP and ModelParallelStrategy (FSDP2) work."
            )
        self._trainer = trainer
        check_needs(trainer, _NEEDS, "lightning", ">=2.4")
        host = module_host(trainer, pl_module, self._terminal)
        self._guard, self._anchors = hosted_guard(host, self._given, self.config)
        self._reporters = LightningReporters(trainer, self.config.strict)
        self._journal = Journal(None if trainer.fast_dev_run else trainer.default_root_dir)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Take up a saved state, and probe the untouched policy."""
        guard, step = self.guard, trainer.global_step
        if self.config.metric == "adam":
            check_adam(trainer.optimizers[0])
        if step > 0 or self._restored:
            take_up(lambda: self._restored, guard, self._anchors)
            self._restored = {}
        total = trainer.estimated_stepping_batches
        guard.total_steps = int(total) if 0 < total < float("inf") else None
        self._say(start_message(self.config, len(guard.pool), guard.total_steps))
        hint = "" if trainer.loggers else "The trainer has no logger: try TensorBoardLogger(...)."
        self._say(where_message(self._journal.path, hint))
        if world()[0] == 0:
            begin_run(guard, self._journal, step, type(pl_module).__name__)
        self._look(None, step)
        self._seen = step
        self._clock = time.perf_counter()

    @harmless
    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Add the pass@1 term: gradients are complete and unscaled here, and not yet clipped."""
        if self._anchors is None or not self._anchors.due():
            return
        began = time.perf_counter()
        stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
        named = {n: p for n, p in self._anchors.parameters().items() if id(p) in stepped}
        if not named:  # another network's optimizer, such as a critic's
            return
        gradient = self._anchors.gradient(trainer.global_step)
        if gradient is not None:
            gradient = averaged(gradient, named, trainer.strategy.reduce)
            host = [p.grad for p in named.values() if p.grad is not None]
            if not self._anchors.matched:
                self._anchors.match(norm(host), norm(gradient.values()))
            add_to_gradients(named, gradient, self._anchors.objective.factor)
        self._anchor_seconds += time.perf_counter() - began

    @harmless
    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look when it is time; a batch that only accumulates is no step."""
        step = trainer.global_step
        if step == self._seen:
            return
        schedule, now = self.guard.schedule, time.perf_counter()
        schedule.trained(now - self._clock - self._anchor_seconds, step - self._seen)
        schedule.also(self._anchor_seconds, remedy=True)
        self._anchor_seconds = 0.0
        self._seen, before = step, schedule.spent
        self._look(pl_module, step)
        self._clock = time.perf_counter()
        schedule.also(self._clock - now - (schedule.spent - before))
        self._grant_requests(trainer, step)

    @harmless
    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Sum the run up."""
        self.guard.end()
        if world()[0] == 0:
            end_run(self.guard, self._journal, trainer.global_step)
        self._terminal.conclude(self.guard, self._journal)

    def state_dict(self) -> dict[str, Any]:
        """The guard's state, for the checkpoint."""
        return {} if self._guard is None else whole_state(self._guard, self._anchors)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until training starts."""
        self._restored = state_dict

    # Parts ----------------------------------------------------------------------------------

    def _look(self, module: Any, step: int) -> None:
        task = self.guard.due(step)
        if self.guard.schedule.timed:
            task = decided_by_first(task)  # process 0's clock decides for all
        if task is None:
            return
        found = self.guard.run(task, step)
        if found is not None:
            self._reporters.tell(module, all_scalars(found, self.guard))
        if world()[0] == 0:
            publish(found, self.guard, self._journal, self._reporters.send)

    def _grant_requests(self, trainer: Any, step: int) -> None:
        requests, self.guard.requests = self.guard.requests, set()
        if not requests:
            return
        folder = getattr(trainer.checkpoint_callback, "dirpath", None) or trainer.default_root_dir
        path = Path(folder) / f"passk_guard-step={step}.ckpt"
        with survived(self.config.strict, _not_saved):
            trainer.save_checkpoint(path)
        if "stop" in requests:
            trainer.should_stop = True
            self._say(
                f"passk-guard: step {step}: training stops here, because action='stop' was asked "
                f"for and an alarm was raised. A checkpoint is saved: {path}"
            )

    def _shows_progress(self) -> bool:
        bar = self._trainer.progress_bar_callback
        return world()[0] == 0 and bar is not None and getattr(bar, "is_enabled", True)


def _not_saved(error: Exception) -> None:
    warn(f"the checkpoint that was asked for was not saved: {error}")
