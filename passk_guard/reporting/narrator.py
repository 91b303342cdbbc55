"""What a user is told as it happens: a sentence for each event, as a message or as a warning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from passk_guard import events
from passk_guard.config import PassKGuardConfig
from passk_guard.detection.alarm import Alarm
from passk_guard.errors import warn
from passk_guard.reporting import alarm_sentences, sentences


class Narrator:
    """Renders events.

    Args:
        config: settings.
        say: takes messages that are no warnings, on every process.
        is_main: whether this process is the one that warns.
        rows: the pool, whose prompts are quoted with ``log_prompts=True`` only.
    """

    def __init__(
        self,
        config: PassKGuardConfig,
        say: Callable[[str], None],
        is_main: bool,
        rows: Sequence[Mapping[str, Any]],
    ) -> None:
        self._config, self._say, self._is_main, self._rows = config, say, is_main, rows

    def describe(self, alarm: Alarm) -> str:
        """An alarm in words."""
        return alarm_sentences.alarm_message(alarm, self._config, self._rows)

    def tell(self, event: events.Event) -> None:
        """Say or warn what has happened."""
        config = self._config
        match event:
            case events.Raised(look):
                # The action "warn" makes a warning of it.
                if look.alarm is not None and "warn" not in config.actions:
                    self._say(f"passk-guard: {look.alarm.message}")
            case events.Cleared(step):
                self._say(sentences.cleared_message(step))
            case events.StateBegan(state, probe):
                self._say(sentences.state_message(state, probe))
            case events.RemedyChanged(step, change):
                self._say(sentences.remedy_message(step, change))
            case events.Foreseen(probe):
                self._say(alarm_sentences.foreseen_message(probe, config.k))
            case events.Sketched(needed, limit):
                self._say(sentences.sketch_message(needed, limit))
            case events.RanOut(tokens):
                self._say(sentences.ran_out_message(tokens))
            case events.Planned(forecast, visible_loss, gradients):
                self._say(sentences.plan_message(forecast, visible_loss, config, gradients))
            case events.Lost(failure, count):
                self._warn(sentences.lost_message(failure, count))
            case events.Resumed(taken):
                if taken.message is not None:
                    self._warn(taken.message)
            case events.FewProbes(probes, times):
                self._warn(sentences.few_probes_message(probes, config, times))
            case events.ShortRun(look, total_steps):
                self._warn(sentences.short_run_message(look, total_steps, config))
            case events.Waits():
                self._warn(sentences.waits_message(config.parameters))
            case events.Blind(probe, looks, threshold):
                self._warn(sentences.blind_message(probe, looks, threshold))

    def _warn(self, text: str) -> None:
        if self._is_main:
            warn(text)
