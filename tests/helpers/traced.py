"""One deterministic run of the core with an alarm, a remedy and scoring again, as plain values."""

from __future__ import annotations

import warnings

import torch
from tiny import BanditPolicy

from passk_guard import HeldOutPool, PassKGuard, PassKGuardConfig, PassKGuardWarning, PassKObjective

CONTEXTS, GROUP = 64, 16


def trace(action: str = "mix", floor: str | float = "best", steps: int = 60) -> list[dict]:
    """Train a bandit for pass@4 under a guard; every look, sentence and warning, in order."""
    policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    objective = PassKObjective(4, group_size=GROUP)
    config = PassKGuardConfig(
        k=4,
        num_generations=8,
        reference_prompts=16,
        every=5,
        group_by="kind",
        action=["warn", action],
        floor=floor,
        pass1_tolerance=0.001,
        false_alarms=0.2,
    )
    rows = [{"prompt": f"{i}", "kind": "odd" if i % 2 else "even"} for i in range(CONTEXTS)]
    told: list[dict] = []
    guard = PassKGuard(
        policy,
        HeldOutPool(rows, config.seed),
        config,
        isolation=policy.isolated,
        objective=objective,
        say=lambda text: told.append({"said": text}),
    )
    torch.manual_seed(0)
    optimizer = torch.optim.SGD([policy.weight], lr=0.3)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", PassKGuardWarning)
        for step in range(steps + 1):
            if step % 5 == 0:
                told.append(shown(guard.probe(step)))
            elif step % 5 == 3:
                told.append(shown(guard.rescore(step)))
            told += [{"warned": str(w.message)} for w in warned]
            warned.clear()
            groups = policy.generate(rows, list(range(CONTEXTS)), GROUP)
            advantages = objective(torch.stack([group.success for group in groups]).double())
            scores = [policy.log_probs(*group.tokens).sum(-1) for group in groups]
            optimizer.zero_grad()
            (-(torch.stack(scores) * advantages).mean()).backward()
            optimizer.step()
    return told


def shown(found) -> dict:
    """A look in plain values."""
    figures = {
        "step": found.step,
        "track": vars(found.track),
        "groups": {name: vars(track) for name, track in found.groups.items()},
        "drift": None if found.drift is None else vars(found.drift),
        "fired": [] if found.alarm is None else [str(kind) for kind in found.alarm.fired],
        "open": [str(kind) for kind in found.conflicts],
    }
    if hasattr(found, "curve"):
        figures |= {
            "pass_at_1": found.pass_at_1,
            "pass_at_k": found.pass_at_k,
            "k": found.k,
            "pass1_weight": found.pass1_weight,
            "rows": list(found.row_ids),
            "weights": found.weights.tolist(),
            "cosine": None if found.cosine is None else vars(found.cosine),
            "inner": [alignment.inner for alignment in found.curve],
            "z": None if found.update_alignment is None else found.update_alignment.z,
        }
    return figures
