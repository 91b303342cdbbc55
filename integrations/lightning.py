"""passk-guard for Lightning: one callback line, automatic or manual optimisation."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Unpack

from passk_guard.config import PassKGuardConfig, Settings, check_keywords
from passk_guard.guard import PassKGuard
from passk_guard.integrations._lightning_adapter import LightningAdapter
from passk_guard.integrations._needs import Need, check_needs
from passk_guard.integrations._parallel import check_deepspeed, no_anchors
from passk_guard.objectives.passk_objective import PassKObjective
from passk_guard.remedies.anchors import norm
from passk_guard.remedies.gradient_term import add_to_gradients, averaged
from passk_guard.runtime.sharding import refuse_splits
from passk_guard.session.session import Session, another_trainer
from passk_guard.session.trainer_adapter import Arguments

# The same code under two names. Trainers of older releases take only callbacks of their own, and
# importing the second one takes the first one's log messages away.
_PACKAGES = ("lightning.pytorch", "pytorch_lightning")

if TYPE_CHECKING:
    from lightning.pytorch import Callback
else:

    class _NoneYet:
        """What Callback derives from until its user has imported one of the packages."""

    class Callback(_NoneYet):
        """Derives from the callback of each package that the user has imported."""

        def __new__(cls, *args, **kwargs):
            _join() or _import_one()
            return super().__new__(cls)

    def _join():
        found = tuple(sys.modules[name].Callback for name in _PACKAGES if name in sys.modules)
        if found:
            Callback.__bases__ = found
        return found

    def _import_one():
        reasons = []
        for name in _PACKAGES:
            try:
                import_module(name)
                return _join()
            except ImportError as error:  # missing, or installed and broken
                reasons.append(str(error))
        raise ImportError(
            "passk_guard.integrations.lightning needs lightning or pytorch_lightning: "
            + "; ".join(reasons)
        )

    if not _join() and not any(find_spec(name.split(".")[0]) for name in _PACKAGES):
        _import_one()

__all__ = ["PassKGuardCallback"]

_NEEDS = (
    Need("strategy.reduce", 1, "average the pass@1 term over processes"),
    Need("loggers", None, "log"),
    Need("optimizers", None, "see Adam's moments"),
    Need("save_checkpoint", 1, "save where action='checkpoint' asks for it"),
)


class PassKGuardCallback(Callback):
    """Guards pass@1 in a ``lightning.Trainer`` (or ``pytorch_lightning.Trainer``)::

        import lightning as L

        from passk_guard.integrations.lightning import PassKGuardCallback

        callback = PassKGuardCallback(prompts=held_out, reward_funcs=verify, k=4)
        L.Trainer(callbacks=[callback], max_steps=2).fit(module, loader)
        print(callback.guard.history[-1].track)

    Steps are optimizer steps, ``trainer.global_step``; with several optimizers in manual
    optimisation that counts each of them. What it logs: see
    :mod:`passk_guard.reporting.scalars`. Monitors (``ModelCheckpoint``, ``EarlyStopping``,
    ``ReduceLROnPlateau``) find each key's last value, such as ``"passk_guard/track"``, from the
    first look on; where that comes late or fails, they need ``strict=False``. All other keywords
    are those of :class:`~passk_guard.config.PassKGuardConfig`.

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
        temperature: sampling temperature of probes; 1 by default.
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
        objective: PassKObjective | None = None,
        policy: Callable[[Any], Any] | str | None = None,
        temperature: float | None = None,
        max_completion_length: int | None = None,
        anchor_prompts: Any = None,
        anchor_batch_size: int = 8,
        **settings: Unpack[Settings],
    ) -> None:
        check_keywords(PassKGuardCallback, settings)
        self._arguments = Arguments(
            prompts=prompts,
            reward_funcs=reward_funcs,
            success=success,
            success_threshold=success_threshold,
            objective=objective,
            policy=policy,
            temperature=temperature,
            max_completion_length=max_completion_length,
            anchor_prompts=anchor_prompts,
            anchor_batch_size=anchor_batch_size,
        )
        self.config = PassKGuardConfig(**settings)
        self._restored: dict[str, Any] = {}
        self._forget_run()

    def _forget_run(self) -> None:
        self._adapter: Any = None
        self._session: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy goes on from what a checkpoint would keep, once it has met its own trainer."""
        kept = {k: v for k, v in vars(self).items() if k not in ("_adapter", "_session")}
        return {**kept, "_restored": self.state_dict() or self._restored}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget_run()

    @property
    def guard(self) -> PassKGuard:
        """The guard, once ``fit`` has begun in this process."""
        if self._session is None:
            raise RuntimeError(
                "PassKGuardCallback has no guard in this process: it is made as fit begins. "
                "ddp_spawn, ddp_fork and ddp_notebook train in processes of their own, and no "
                "callback comes back from there. trainer.callback_metrics has the last values; "
                "passk_guard.jsonl in trainer.default_root_dir, which passk-guard report reads, "
                "has every look, unless journal= or a trainer that keeps no files rules it out."
            )
        guard: PassKGuard = self._session.guard
        return guard

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
        if self._session is not None:
            if self._adapter.trainer is not trainer or self._adapter.module is not pl_module:
                raise another_trainer()
            return
        strategy = type(trainer.strategy)
        kinds = {kind.__name__ for kind in strategy.__mro__}
        if "FSDPStrategy" in kinds:
            raise ValueError(
                f"passk-guard does not support {strategy.__name__} (FSDP1), whose parameters have "
                "no gradients of their own: one process, DDP, ModelParallelStrategy (FSDP2) and "
                "DeepSpeedStrategy work."
            )
        check_needs(trainer, _NEEDS, "lightning", ">=2.4")
        adapter = LightningAdapter(trainer, pl_module, self.config, self._arguments)
        if "DeepSpeedStrategy" in kinds:
            check_deepspeed(self.config)
            adapter.why_no_mix = no_anchors("DeepSpeed")
        session = Session(adapter)
        session.build()
        self._adapter, self._session = adapter, session

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Take up a saved state, and probe the untouched policy."""
        refuse_splits(pl_module)
        step, total = trainer.global_step, trainer.estimated_stepping_batches
        restored, self._restored = self._restored, {}
        # Without a checkpoint a second fit goes on with the guard that is there.
        load = (lambda: restored) if trainer.ckpt_path is not None or restored else None
        self._adapter.tell(restored.get("told", self._adapter.told))
        self._session.begin(step, int(total) if 0 < total < float("inf") else None, load)

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look before something is trained that was frozen until now."""
        self._session.step_begins(trainer.global_step)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Add the pass@1 term: gradients are complete and unscaled here, and not yet clipped."""
        anchors = self._session.anchors
        if anchors is None or not anchors.due():
            return
        with self._session.remedy_at_work():
            stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
            named = {n: p for n, p in anchors.parameters().items() if id(p) in stepped}
            # None of them: another network's optimizer, such as a critic's.
            gradient = anchors.gradient(trainer.global_step) if named else None
            if gradient is not None:
                gradient = averaged(gradient, named, trainer.strategy.reduce)
                host = [p.grad for p in named.values() if p.grad is not None]
                if not anchors.matched:
                    anchors.match(norm(host), norm(gradient.values()))
                add_to_gradients(named, gradient, anchors.objective.factor)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look when it is time; a batch that only accumulates is no step."""
        self._session.step_ended(trainer.global_step)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Sum the run up."""
        self._session.end(trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        """The guard's state, for the checkpoint."""
        if self._session is None:
            return {}
        return {**self._session.state(), "told": self._adapter.told}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until training starts."""
        self._restored = state_dict
