"""What a user passes beside the settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from passk_guard.checks import check_sampling, check_threshold, check_whole


@dataclass(frozen=True)
class Arguments:
    """What the user passed beside the settings, as it came."""

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
