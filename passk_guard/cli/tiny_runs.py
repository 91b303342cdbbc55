"""Six real steps of each trainer on a tiny model: what the identity check compares.

Nothing is downloaded, and nothing is written outside the folder that a run is given. Frameworks are
imported by the run that needs them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from passk_guard.cli.support import is_installed
from passk_guard.cli.tiny_task import (
    DIGITS,
    even,
    examples,
    make_model,
    make_table,
    make_tokenizer,
    rows,
    seed,
    table_policy,
)

__all__ = ["LOOKS", "RUNS", "STEPS", "How", "Run", "Trained"]

STEPS, EVERY = 6, 2
LOOKS = list(range(0, STEPS + 1, EVERY))  # the steps at which a guard must have probed
_GUARD: dict[str, Any] = {
    "k": 2,
    "num_generations": 4,
    "prompts_per_probe": 8,
    "every": EVERY,
    "reference_batches": 1,
}
# A floor that pass@1 is surely below: an alarm, and so a remedy, from the first look on.
_REMEDY: dict[str, Any] = {"action": "mix", "floor": 0.99}

How = Literal["plain", "watched", "remedied"]


@dataclass(frozen=True)
class Trained:
    """Weights before and after a run, on which device, and the guard that watched it, if any."""

    start: dict[str, Tensor]
    end: dict[str, Tensor]
    guard: Any = None
    device: str = "cpu"


Run = Callable[[Path, How], Trained]  # the folder is for what trainers write


def grpo(out: Path, how: How) -> Trained:
    """``trl.GRPOTrainer``."""
    return _trl("GRPO", out, how)


def rloo(out: Path, how: How) -> Trained:
    """``trl.RLOOTrainer``."""
    return _trl("RLOO", out, how)


def trainer(out: Path, how: How) -> Trained:
    """``transformers.Trainer``, with the model's own loss."""
    from transformers import Trainer, TrainingArguments

    from passk_guard.integrations.transformers import PassKGuardCallback

    args = TrainingArguments(**_arguments(out), per_device_train_batch_size=4)
    host = Trainer(
        model=make_model(),
        args=_one_device(args),
        train_dataset=examples(),
        processing_class=make_tokenizer(),
    )
    return _train(host, None if how == "plain" else PassKGuardCallback(host, **_judged(how)))


def lightning(out: Path, how: How, package: str = "lightning.pytorch") -> Trained:
    """A ``LightningModule`` in a ``Trainer``, with automatic optimisation."""
    from passk_guard.integrations.lightning import PassKGuardCallback

    llm = is_installed("transformers")
    pl: Any = import_module(package)
    environments: Any = import_module(f"{package}.plugins.environments")

    class Module(pl.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model: Any = make_model() if llm else make_table()
            self.tokenizer: Any = make_tokenizer() if llm else None

        def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
            if llm:
                loss: Tensor = self.model(**batch).loss
                return loss
            ids = batch["input_ids"] - DIGITS
            return cross_entropy(self.model(ids[:, 0]), ids[:, 1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=1e-2)

    keywords = _judged(how)
    if not llm:
        keywords["policy"] = table_policy
    callback = None if how == "plain" else PassKGuardCallback(**keywords)
    module = Module()
    start = _weights(module)
    seed()
    host = pl.Trainer(
        max_steps=STEPS,
        devices=1,
        callbacks=[callback] if callback else [],
        default_root_dir=out,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[environments.LightningEnvironment()],  # not what a cluster's variables say
    )
    data: Any = examples()
    host.fit(module, torch.utils.data.DataLoader(data, 4, shuffle=True))
    guard = callback and callback.guard
    return Trained(start, _weights(module), guard, str(host.strategy.root_device))


def pytorch_lightning(out: Path, how: How) -> Trained:
    """The same under Lightning's other name."""
    return lightning(out, how, "pytorch_lightning")


RUNS: dict[str, Run] = {
    "TRL GRPOTrainer": grpo,
    "TRL RLOOTrainer": rloo,
    "transformers.Trainer": trainer,
    "lightning": lightning,
    "pytorch_lightning": pytorch_lightning,
}


def _trl(name: str, out: Path, how: How) -> Trained:
    import trl
    from datasets import Dataset

    from passk_guard.integrations.trl import PassKGuardCallback

    args = getattr(trl, f"{name}Config")(
        **_arguments(out),
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=2,
        bf16=False,
        beta=0.0,  # a reference model would be looked for in the hub
    )
    host = getattr(trl, f"{name}Trainer")(
        model=make_model(),
        reward_funcs=even,
        args=_one_device(args),
        train_dataset=Dataset.from_list(rows()),
        processing_class=make_tokenizer(),
    )
    remedy = {**_REMEDY, "objective": "pkpo"} if how == "remedied" else {}
    keywords = {"prompts": rows(), **_GUARD, **remedy}
    return _train(host, None if how == "plain" else PassKGuardCallback(host, **keywords))


def _train(host: Any, callback: Any) -> Trained:
    start = _weights(host.model)
    if callback is not None:
        host.add_callback(callback)
    host.train()
    guard = callback and callback.guard
    return Trained(start, _weights(host.model), guard, str(host.args.device))


def _arguments(out: Path) -> dict[str, Any]:
    return {
        "output_dir": str(out),
        "max_steps": STEPS,
        "learning_rate": 1e-2,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def _one_device(args: Any) -> Any:
    """A plain Trainer would split a batch over all the GPUs that it sees."""
    if args.n_gpu > 1:
        args._n_gpu = 1
    return args


def _judged(how: How) -> dict[str, Any]:
    """A guard's keywords where the trainer has no rewards of its own."""
    remedy = {**_REMEDY, "anchor_prompts": rows()[32:]} if how == "remedied" else {}
    verifier = {"reward_funcs": even, "max_completion_length": 2}
    return {"prompts": rows()[:32], **_GUARD, **verifier, **remedy}


def _weights(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().cpu().clone() for name, p in module.named_parameters()}
