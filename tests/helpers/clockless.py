"""A guard's state, comparable."""

import torch


def clockless(state):
    """A guard's state without what the clock says and which run it is, comparable."""
    state = {name: part for name, part in state.items() if name not in ("_costs", "_run")}
    schedule = state["schedule"]["state"]
    state["schedule"] = {k: v for k, v in schedule.items() if k in ("last", "steps")}
    return plain(state)


def plain(value):
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, (list, tuple)) else value
