"""What a resumed run takes up of its checkpoint: piece by piece, by what each piece rests on.

What the user wrote wins. A piece of state names the settings that it depends on, the held-out
prompts among them, and is taken up whole where they are as they were; else it starts afresh.
Action, tolerance, false-alarm chance and interval are in no piece: they may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from passk_guard.config import PassKGuardConfig
    from passk_guard.objectives.live import LiveObjective
    from passk_guard.prompts.pool import HeldOutPool

__all__ = ["current_form", "run_settings"]


def run_settings(
    config: PassKGuardConfig,
    pool: HeldOutPool,
    objective: LiveObjective | None,
    sampling: Mapping[str, Any],
) -> dict[str, Any]:
    """The settings that pieces may depend on, as plain values that compare equal after a resume.

    Args:
        config: of the run.
        pool: held-out prompts, by content.
        objective: as the user made it.
        sampling: what else decides what pass@1 means.
    """
    names = ("k", "num_generations", "prompts_per_probe", "seed", "watch", "metric", "floor")
    remedies = [action for action in config.actions if action in ("mix", "adjust_k")]
    settings = {
        **{name: getattr(config, name) for name in (*names, "group_by", "weight_by")},
        **sampling,
        "num_generations": config.n,
        "parameters": config.parameters,
        "prompts": pool.fingerprint,
        # A mix into the trainer's own advantages is no other objective until λ says so.
        "objective": getattr(objective, "estimator", None),
        "pass1_weight": 0.0 if objective is None else objective.pass1_weight,
        "remedy": remedies[0] if remedies else None,
    }
    return {name: _plain(value) for name, value in settings.items()}


def _plain(value: Any) -> Any:
    """A function by its name, a number of NumPy's as one of Python's."""
    if callable(value):
        return getattr(value, "__qualname__", type(value).__name__)
    return value.item() if isinstance(value, np.generic) else value


def current_form(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """A state in today's form. The first release's names no settings: all of it is taken up."""
    if "prober" not in state:
        return state
    prober, levels = state["prober"], state["prober"]["levels"]
    opened = prober["detector"]["active"]
    scale = {} if state["mix_scale"] is None else {"scale": state["mix_scale"]}
    pieces = {
        "open alarms": {"active": opened, "raised": opened},
        "pass@1 and its reference": levels,
        "_floor": levels["floor"],
        "pass@1 of the groups": levels["groups"],
        "_drift of pass@k": {},
        "alignment": {**prober, "cusum": prober["detector"]["cusum"]},
        "held-out order": state["pool"],
        "schedule": state["schedule"],
        "_costs": state["schedule"]["costs"],
        "named states": state["states"],
        "remedy": {
            "objective": {"k": state["k"], "pass1_weight": state["pass1_weight"], **scale},
            "controller": state["remedy"],
        },
    }
    return {name: {"depends": {}, "state": piece} for name, piece in pieces.items()}
