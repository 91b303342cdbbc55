"""A guard beside the run, in a process of its own: it looks at checkpoints as they appear.

Logged are the scalars of :mod:`passk_guard.reporting.scalars`, to ``passk_guard.jsonl`` and to
TensorBoard, in ``out``.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from passk_guard.config import PassKGuardConfig
from passk_guard.errors import reason_of, warn
from passk_guard.integrations._checkpoint_folder import Checkpoint, checkpoints, load_weights
from passk_guard.integrations._trackers import write_to_tensorboard
from passk_guard.look import Probe
from passk_guard.reporting.report import Report
from passk_guard.rollouts.hf_policy import HFPolicy
from passk_guard.session import Arguments, Session, TrainerAdapter
from passk_guard.session.state_file import FILE_NAME, read_state, write_state
from passk_guard.statistics.interval import Z95
from passk_guard.statistics.track import Track


@dataclass(frozen=True)
class CheckpointLook:
    """What was found at one checkpoint.

    Attributes:
        checkpoint: its step and folder.
        probe: the look at it.
        last_good: newest checkpoint so far at which pass@1 had not fallen by more than the
            tolerance, and pass@1 there; ``None`` where it had at all of them.
    """

    checkpoint: Checkpoint
    probe: Probe
    last_good: tuple[Checkpoint, Track] | None


class FolderWatch:
    """Looks at every checkpoint as the callback would: the reference at the first, then paired
    looks. Nothing of the run is touched. Iterating over it gives the looks::

        from passk_guard.integrations.folder import FolderWatch

        watch = FolderWatch("runs/grpo", held_out, verify, load=make_policy, k=8, once=True)
        for look in watch:
            print(look.checkpoint.step, look.probe.track.change)

    After an interruption, the same call goes on where it was.

    Args:
        folder: where the trainer puts its checkpoints.
        prompts: held-out rows.
        verifier: function that decides what is right.
        load: function that makes the policy from a checkpoint's folder; later checkpoints' weights
            are put into its model.
        out: folder for journal, state and curves; by default ``passk_guard`` in ``folder``.
        pattern: see :func:`~passk_guard.integrations._checkpoint_folder.checkpoints`.
        once: end when every checkpoint that is there has been seen. Otherwise wait for more, and
            where the run is faster than the looks, skip to the newest.
        stop_on_alarm: end at the first alarm.
        poll: seconds between two looks at the folder.
        success_threshold: score from which a rollout is right.
        micro_batch: rollouts per forward and backward.
        settings: of :class:`~passk_guard.PassKGuardConfig`; ``every`` is 1.

    Attributes:
        session: run under guard; ``None`` before the first checkpoint.
        last_good: see :class:`CheckpointLook`.
        alarm: whether one was raised.

    Raises:
        ValueError: the folder is none, or an action would need the trainer.
    """

    def __init__(
        self,
        folder: str | Path,
        prompts: Sequence[Mapping[str, Any]],
        verifier: Callable[..., Any],
        *,
        load: Callable[[Path], HFPolicy],
        out: str | Path | None = None,
        pattern: str | None = None,
        once: bool = False,
        stop_on_alarm: bool = False,
        poll: float = 20.0,
        success_threshold: float = 0.5,
        micro_batch: int | None = None,
        **settings: Any,
    ) -> None:
        self._folder = Path(folder)
        if not self._folder.is_dir():
            raise ValueError(
                f"folder must be where a trainer puts its checkpoints, got {folder}: no folder."
            )
        self.config = PassKGuardConfig(**{"every": 1, **settings})
        if named := [a for a in self.config.actions if isinstance(a, str) and a != "warn"]:
            raise ValueError(
                f"action={named[0]!r} needs the trainer, and a watch stands beside it. Use 'warn', "
                "a callable f(look, guard), or stop_on_alarm=True."
            )
        self._out = self._folder / "passk_guard" if out is None else Path(out)
        self._load = load
        self._pattern = pattern
        self._once = once
        self._stop_on_alarm = stop_on_alarm
        self._poll = poll
        self._micro_batch = micro_batch
        self._arguments = Arguments(prompts, verifier, success_threshold=success_threshold)
        self._seen = -1  # step of the last checkpoint, looked at or passed over
        self.session: Session | None = None
        self.last_good: tuple[Checkpoint, Track] | None = None
        self.alarm = False

    def __iter__(self) -> Iterator[CheckpointLook]:
        """Look at one checkpoint after another.

        Raises:
            ValueError: another watch writes to the same folder.
        """
        with self._alone():
            yield from self._looks()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two watches would mix up one journal. The lock goes with the process, however it ends."""
        self._out.mkdir(parents=True, exist_ok=True)
        with (self._out / "watch.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"another watch writes to {self._out}. Stop it, or give this one a folder of "
                    "its own: out=, on the command line --out."
                ) from None
            yield

    def _looks(self) -> Iterator[CheckpointLook]:
        state = read_state(self._out / FILE_NAME) or {}
        self._seen = int(state.get("checkpoint", -1))
        if state.get("last_good") is not None:
            step, path, track = state["last_good"]
            self.last_good = Checkpoint(step, Path(path)), Track(**track)
        while True:
            new = [c for c in checkpoints(self._folder, self._pattern) if c.step > self._seen]
            if not new and self._once:
                break
            if not new:
                time.sleep(self._poll)
                continue
            chosen = new[0] if self._once or self.session is None else new[-1]
            if (passed := [str(c.step) for c in new if c.step < chosen.step]) and self.session:
                self.session.adapter.say(
                    "passk-guard: the run is faster than its looks; passed over: checkpoints "
                    f"{', '.join(passed)}."
                )
            probe = self._look(chosen, state)
            self._seen = chosen.step
            if probe is None:
                continue
            if probe.track.change >= -self.config.pass1_tolerance:
                self.last_good = chosen, probe.track
            self.alarm = self.alarm or probe.alarm is not None
            write_state(self._out / FILE_NAME, self._state, self.config.strict)
            yield CheckpointLook(chosen, probe, self.last_good)
            if probe.alarm is not None and self._stop_on_alarm:
                break
        if self.session is not None:
            self.session.end(self._seen)

    def _state(self) -> dict[str, Any]:
        assert self.session is not None
        good = None
        if self.last_good is not None:
            checkpoint, track = self.last_good
            good = [checkpoint.step, str(checkpoint.path), dict(vars(track))]
        return {**self.session.state(), "checkpoint": self._seen, "last_good": good}

    def _look(self, checkpoint: Checkpoint, state: Mapping[str, Any]) -> Probe | None:
        """``None`` where the checkpoint cannot be read, or the look was lost."""
        session = self.session
        try:
            if session is None:
                policy = self._load(checkpoint.path)
            else:
                load_weights(session.adapter.module, checkpoint.path)
        except (OSError, RuntimeError, ValueError) as error:
            if session is None and checkpoint.path.exists():
                raise
            warn(f"checkpoint {checkpoint.path} is passed over: {reason_of(error)}")
            return None
        if session is None:
            arguments = replace(self._arguments, policy=policy)
            session = Session(_Folder(self.config, arguments, self._out, self._micro_batch))
            session.build()
            self.session = session
            session.begin(checkpoint.step, None, (lambda: state) if state else None)
        else:
            session.look(checkpoint.step)
        history = session.guard.history
        return history[-1] if history and history[-1].step == checkpoint.step else None

    @property
    def decision(self) -> int:
        """0: pass@1 surely did not fall by more than the tolerance, 1: it surely did, or an alarm
        was raised; 2: not enough is known.
        """
        if self.session is None or not self.session.guard.history:
            return 2
        found, most = self.session.guard.history[-1], self.config.pass1_tolerance
        half = Z95 * found.track.change_se
        if self.alarm or found.conflict or found.track.change + half < -most:
            return 1
        return 0 if found.track.change - half > -most else 2


class _Folder(TrainerAdapter):
    """What a session needs of a trainer, without one."""

    name = "a folder of checkpoints"
    tokenizer = None  # the policy has it
    model = None

    def __init__(
        self, config: PassKGuardConfig, arguments: Arguments, out: Path, micro_batch: int | None
    ) -> None:
        super().__init__(None, config, arguments)
        self.micro_batch = micro_batch
        self._out = out
        self._writer: Any = None
        self._make_writer: Any = None
        with suppress(ImportError):
            from torch.utils.tensorboard import SummaryWriter

            self._make_writer = SummaryWriter

    @property
    def module(self) -> nn.Module:
        module: nn.Module = self.arguments.policy.model
        return module

    @property
    def folder(self) -> str:
        return str(self._out)

    @property
    def hint(self) -> str:
        return "" if self._make_writer else "For curves: pip install tensorboard."

    def shows_progress(self) -> bool:
        return True

    def optimizer(self) -> None:
        return None

    def send(self, report: Report) -> None:
        if self._make_writer is None:
            return
        with self.reporting_to("TensorBoard"):
            new = self._writer is None
            if new:
                self._writer = self._make_writer(self.folder)
            for key, value in report.scalars.items():
                self._writer.add_scalar(key, value, report.step)
            write_to_tensorboard(self._writer, report, "" if new else None)

    def save(self, step: int) -> None:
        pass

    def stop(self) -> None:
        pass
