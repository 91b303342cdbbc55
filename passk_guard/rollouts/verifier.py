"""Choosing and checking the verifier: which reward decides that a rollout is right."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from passk_guard.errors import ProbeError

# Rewards for the form of an answer: never proposed as what decides.
_ABOUT_FORM = re.compile(
    r"format|length|\blen|_len|penalty|\btag|_tag|xml|style|short|brevity|overlong|repetition|language",
    re.IGNORECASE,
)
# What trainers hand to every reward function beside the dataset's columns.
_ALWAYS_GIVEN = {
    "prompts",
    "completions",
    "completion_ids",
    "trainer_state",
    "log_extra",
    "log_metric",
    "environments",
}
_CALLED_WITH = {"prompts", "completions", "completion_ids", "trainer_state"}  # by every release


def choose_verifier(
    reward_funcs: Any, success: str | Callable[..., Any] | None, names: Sequence[str] | None = None
) -> Any:
    """The one reward function that decides "right".

    Args:
        reward_funcs: a callable or a list of them.
        success: the name of one, a callable of its own, or ``None`` where there is just one.
        names: of the reward functions, where the trainer names them itself.

    Raises:
        ValueError: there are none; there are several and ``success`` does not say which.
    """
    if success is not None and callable(success):
        return success
    funcs = list(reward_funcs) if isinstance(reward_funcs, (list, tuple)) else [reward_funcs]
    if not funcs:
        raise ValueError(
            "reward_funcs is empty. Pass a verifier f(prompts, completions, **columns) that "
            "returns one score per completion, or leave reward_funcs out to use the trainer's."
        )
    names = list(names) if names is not None else [verifier_name(f) for f in funcs]
    if success is not None:
        if success not in names:
            raise ValueError(
                f"success={success!r} names no reward function. There are: {', '.join(names)}."
            )
        if names.count(success) > 1:
            raise ValueError(
                f"success={success!r} is the name of {names.count(success)} reward functions. Pass "
                "the function itself as success=, or give them different names."
            )
        return funcs[names.index(success)]
    if len(funcs) > 1:
        likely = [name for name in names if not _ABOUT_FORM.search(name)] or names
        which = [f"success={name!r}" for name in dict.fromkeys(likely) if names.count(name) == 1]
        if len(which) < len(likely):  # a name of several says nothing
            which.append("the function itself as success=")
        raise ValueError(
            f"There are {len(funcs)} reward functions ({', '.join(names)}), and a format reward "
            "must not count as solving. Say which decides that an answer is right: "
            f"{' or '.join(which)}."
        )
    return funcs[0]


def verifier_name(func: Any) -> str:
    """What to call it in a message."""
    return str(getattr(func, "__name__", type(func).__name__))


def check_verifier(func: Any, columns: Collection[str], name: str = "prompts") -> None:
    """Refuse a verifier that cannot be called with the columns of these rows.

    Args:
        func: the verifier.
        columns: of the rows.
        name: of the argument that holds the rows.

    Raises:
        ValueError: it is not callable, a required parameter is no column, or a column no parameter.
    """
    if isinstance(func, (str, torch.nn.Module)):
        return  # a reward model: scores text, needs no column
    if not callable(func):
        raise ValueError(
            f"reward_funcs holds {func!r}, which is not callable. A verifier is a function "
            "f(prompts, completions, **columns)."
        )
    if inspect.isclass(func):
        raise ValueError(
            f"reward_funcs holds the class {verifier_name(func)}, whose call gives no scores. "
            "Pass an instance with a __call__, or one of its methods."
        )
    try:
        parameters = inspect.signature(func).parameters.values()
    except (TypeError, ValueError):
        return
    needed = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    given = set(columns) - {"prompt"}  # that one reaches it within prompts
    missing = [name for name in needed if name not in _ALWAYS_GIVEN and name not in given]
    if missing:
        whose = "held-out rows" if name == "prompts" else "anchor rows"
        one_by_one = " It scores whole batches: prompts and completions are lists."
        raise ValueError(
            f"The verifier {verifier_name(func)!r} needs {', '.join(map(repr, missing))}, but the "
            f"{whose} have the columns {', '.join(sorted(columns)) or 'none'}. Add "
            f"the column to {name}, or give the parameter a default."
            + (one_by_one if {"prompt", "completion"} & set(missing) else "")
        )
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    refused = sorted((_CALLED_WITH | given) - named)
    if refused and not any(p.kind is p.VAR_KEYWORD for p in parameters):
        raise ValueError(
            f"The verifier {verifier_name(func)!r} takes no {', '.join(map(repr, refused))}, but "
            "is called by keyword with every column and more. End its parameters with **columns."
        )


def copied(value: Any) -> Any:
    """Containers afresh, whatever they hold: a verifier may change what it is given."""
    if type(value) is dict:
        return {k: copied(v) for k, v in value.items()}
    return [copied(v) for v in value] if type(value) is list else value


def checked_scores(found: Any, completions: int, name: str) -> list[float]:
    """What a verifier returned, as numbers; NaN for ``None``.

    Raises:
        ProbeError: it is not one number or ``None`` per completion.
    """
    try:
        scores = [float("nan") if score is None else float(score) for score in found]
    except (TypeError, ValueError) as error:
        text = repr(found)
        raise ProbeError(
            f"the verifier {name!r} returned {text if len(text) < 80 else text[:80] + '...'}; "
            f"expected a list of {completions} numbers or None, one per completion"
        ) from error
    if len(scores) != completions:
        raise ProbeError(
            f"the verifier {name!r} returned {len(scores)} scores for {completions} completions; "
            "it must give one for each"
        )
    return scores


def decide_success(rewards: Tensor, threshold: float) -> Tensor:
    """1.0 where a reward reaches the threshold, 0.0 below, NaN where it is NaN."""
    return torch.where(rewards.isnan(), rewards, (rewards >= threshold).to(rewards))
