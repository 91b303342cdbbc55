"""Where reinforcement starts: a model that has learned a part of its task from worked solutions."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from field.language import learn, make_model, make_tokenizer
from field.problems import Task
from field.sizes import TASKS, Size

LR, OWN_LR = 2e-3, 5e-4


def warmed_up(task: Task, seed: int, cache: Path, size: Size) -> tuple[Any, Any]:
    """Model and tokenizer; kept on disk.

    A base model for each task, from which each seed goes on with problems of its own. Where labels
    are wrong, so are the solutions that it goes on with: as in data that one pipeline made.

    Args:
        task: its rows for training.
        seed: of the rows that it goes on with.
        cache: folder.
        size: of model and warm-up.
    """
    clean = TASKS[task.name.split(",")[0]]
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, 0, size.hidden, size.layers, size.positions)

    def learned(name: str, task: Task, seed: int, steps: int, lr: float) -> None:
        """Brings the model there, from the file if there is one."""
        words = f"{name}-{size.hidden}x{size.layers}-{steps}.pt"
        path = cache / words.replace(", ", "-").replace(" ", "-")
        if not path.exists():
            torch.manual_seed(seed)
            rows = task.rows("training", size.base_rows[clean.name], seed)
            learn(model, tokenizer, rows, steps=steps, lr=lr, batch=size.warm_batch)
            cache.mkdir(parents=True, exist_ok=True)
            own = path.with_suffix(f".{os.getpid()}")
            torch.save(model.state_dict(), own)
            os.replace(own, path)  # another run may be at it
        model.load_state_dict(torch.load(path))

    learned(f"{clean.name}-base", clean, 1000, size.base[clean.name], LR)
    own = size.own_wrong if task.wrong_labels else size.own
    learned(f"{task.name}-{seed}", task, 2000 + seed, own, OWN_LR)
    return model, tokenizer


def fingerprint(model: Any) -> str:
    """Of the weights, to the bit: another machine's warm-up is another start."""
    found = hashlib.sha256()
    for weights in model.state_dict().values():
        found.update(weights.detach().cpu().numpy().tobytes())
    return found.hexdigest()[:16]
