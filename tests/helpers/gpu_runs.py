"""The same small run on a GPU in each trainer, in each precision and wrapping that people use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ambiguous_arithmetic as task
import hosts
import lightning as L
import own_loss
import pytest
import torch
import trl_runs
from gpu_lane import DEVICE, REHEARSAL, has_bf16, optional
from hosts import HOSTS, Result
from trl_runs import near_answer

STEPS, EVERY = 6, 2
VARIANTS = ["float32", "bf16", "fp16", "checkpointing", "compiled", "LoRA", "QLoRA"]


def run(
    host: str,
    variant: str,
    out: Path,
    *,
    guarded: bool = False,
    odd: bool = False,
    **settings: Any,
) -> Result:
    """Train for a few steps.

    Args:
        host: of :data:`hosts.HOSTS`.
        variant: of :data:`VARIANTS`.
        out: a folder.
        guarded: with a guard that only watches.
        odd: with one sampled token of each batch changed, which a comparison has to see.
        **settings: the guard's, beside those of :func:`hosts.settings`.
    """
    if variant == "bf16" and not has_bf16():
        pytest.skip("this GPU does not compute in bfloat16")
    if variant == "fp16" and REHEARSAL:
        pytest.skip("float16 has a GradScaler on a GPU only")
    torch.manual_seed(0)
    model = _model(variant, out)
    if odd:
        _change_a_token(model)
    guard = hosts.settings(HOSTS[host], **settings) if guarded else None
    return _RUNS[host](model, variant, out, guard)


def _trl(model: Any, variant: str, out: Path, guard: Any) -> Result:
    trainer = trl_runs.make_trainer(
        out,
        steps=STEPS,
        model=model,
        checkpointing=variant == "checkpointing",
        gradient_accumulation_steps=2,
        max_grad_norm=0.1,
        **_arguments(variant),
    )
    return hosts._train(trainer, HOSTS["trl"].callback, guard, None, (), ())


def _transformers(model: Any, variant: str, out: Path, guard: Any) -> Result:
    trainer = own_loss.make_trainer(
        model,
        str(out),
        steps=STEPS,
        verify=near_answer,
        learning_rate=1e-3,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        max_grad_norm=0.1,
        disable_tqdm=True,
        logging_steps=1,
        **_arguments(variant),
    )
    if variant == "checkpointing":
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return hosts._train(trainer, HOSTS["transformers"].callback, guard, None, (), ())


def _lightning(model: Any, variant: str, out: Path, guard: Any) -> Result:
    module = make_module(model)
    if variant == "checkpointing":
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if variant == "compiled":
        module.model = torch.compile(model, backend=_BACKEND)
    chosen = _arguments(variant)
    precision = "bf16-mixed" if chosen["bf16"] else "16-mixed" if chosen["fp16"] else "32-true"
    return fit(module, out, guard, precision=precision)


def make_module(model: Any) -> Any:
    """A LightningModule with a loss of its own, about the model."""
    return hosts._Module(model, task.make_tokenizer(), 1e-3, near_answer)


def fit(module: Any, out: Path, guard: Any, **settings: Any) -> Result:
    """Train a LightningModule for as many steps as the others, with a guard's keywords or none."""
    callback = None if guard is None else HOSTS["lightning"].callback(**guard)
    callbacks = [hosts._Losses(), *([] if callback is None else [callback])]
    L.seed_everything(42, verbose=False)
    trainer = hosts.lightning_trainer(
        out,
        callbacks,
        max_steps=STEPS,
        accumulate_grad_batches=2,
        accelerator="cpu" if REHEARSAL else "gpu",
        devices=1,
        **{"gradient_clip_val": 0.1, **settings},
    )
    trainer.fit(module, hosts._ordered())
    return Result(
        callback and callback.guard, hosts.module_weights(module), list(callbacks[0].seen)
    )


_RUNS = {"trl": _trl, "transformers": _transformers, "lightning": _lightning}
_BACKEND = "eager" if REHEARSAL else "inductor"  # the CPU's takes minutes, and is another one


def _arguments(variant: str) -> dict[str, Any]:
    """Of a ``TrainingArguments``."""
    full = variant in ("float32", "fp16", "checkpointing")
    found = {
        "use_cpu": REHEARSAL,
        "bf16": not full and has_bf16(),
        "fp16": variant == "fp16",
    }
    if variant == "compiled":
        found |= {"torch_compile": True, "torch_compile_backend": _BACKEND}
    return found


def _model(variant: str, out: Path) -> Any:
    """A two-layer Llama with dropout, made from a config; adapters on it where asked for."""
    model = task.make_model(task.make_tokenizer(), hidden=64, layers=2, dropout=0.1)
    if variant == "QLoRA":
        model = _quantised(model, out / "whole")
    if variant.endswith("LoRA"):
        model = _adapted(model)
    return model


def _adapted(model: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.1, task_type="CAUSAL_LM")
    return get_peft_model(model, config)


def _quantised(model: Any, folder: Path) -> Any:
    """The model in four bits, as one is loaded for QLoRA."""
    optional("bitsandbytes")
    from peft import prepare_model_for_kbit_training
    from transformers import BitsAndBytesConfig, LlamaForCausalLM

    model.save_pretrained(folder)
    how = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    found = LlamaForCausalLM.from_pretrained(
        folder, quantization_config=how, device_map={"": DEVICE if REHEARSAL else 0}
    )
    for layer in found.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            # A CPU would repack weights in eval mode, for good, and have no gradients from then on.
            layer.support_avx512bf16_for_cpu = False
    return prepare_model_for_kbit_training(found, use_gradient_checkpointing=False)


def _change_a_token(model: Any) -> None:
    """The first digit of one rollout of each batch gets another parity: another verdict."""
    own = model.generate

    def generate(*args: Any, **kwargs: Any) -> Any:
        found = own(*args, **kwargs)
        inputs = kwargs.get("input_ids", args[0] if args else None)
        tokens = getattr(found, "sequences", found)
        first, zero = inputs.shape[1], 4  # the tokenizer's id of "0"
        token = int(tokens[0, first])
        tokens[0, first] = zero + ((token - zero) ^ 1) if zero <= token < zero + 10 else zero + 1
        return found

    model.generate = generate
