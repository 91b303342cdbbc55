"""Real GRPO runs whose rollouts come from a vLLM engine in the process.

On a CPU it keeps its weights packed, where none can be loaded again: here they stay as they are.
One engine serves all trainers that ask for the same one; each loads its own weights into it.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path

# Before vLLM is imported: little memory, no cores of its own, no chatter.
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

with warnings.catch_warnings():  # vLLM's imports, and TRL's of a vLLM that it does not name yet
    warnings.simplefilter("ignore")
    import trl.generation.vllm_generation as generation
    import vllm

import ambiguous_arithmetic as task
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from trl import RLOOConfig, RLOOTrainer
from trl_runs import make_trainer, near_answer

from passk_guard.runtime.isolation import kept_rng

if not torch.cuda.is_available():
    from vllm import _custom_ops
    from vllm.model_executor.layers import utils

    _custom_ops._supports_onednn = False
    utils.check_cpu_sgl_kernel = lambda *size: False

_FOLDERS = tempfile.TemporaryDirectory(prefix="vllm-")
FOLDER = Path(_FOLDERS.name)  # one for all, so that they ask for one engine
ENGINES = {}
ENGINE = {
    "use_vllm": True,
    "vllm_mode": "colocate",
    "vllm_gpu_memory_utilization": 0.1,
    "vllm_max_model_length": 512,
    "use_cpu": not torch.cuda.is_available(),
}


def _engine(**settings):
    key = repr(sorted(settings.items()))
    if key not in ENGINES:
        with kept_rng():  # so that who has it made runs as those do who find it
            ENGINES[key] = vllm.LLM(**settings)
    return ENGINES[key]


generation.LLM = _engine


def saved_model(folder, sharpness=1.0):
    """A Llama as small as vLLM's attention on a CPU takes: heads of 32.

    Args:
        folder: that vLLM reads configuration and tokenizer from.
        sharpness: factor of the logits, which are all but equal at 1.
    """
    tokenizer = task.make_tokenizer()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=512,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        model.lm_head.weight *= sharpness
    return model


def vllm_trainer(tmp_path, *, sharpness=1.0, **config):
    """A trainer with a new model; the engine has whatever another left in it until it is used."""
    return make_trainer(
        tmp_path,
        model=saved_model(FOLDER, sharpness),
        **{**ENGINE, **config},
    )


def vllm_rloo_trainer(tmp_path, *, sharpness=1.0):
    """The same with RLOO, which drops the engine's log-probs."""
    settings = {
        "output_dir": str(tmp_path),
        "per_device_train_batch_size": 16,
        "num_generations": 4,
        "learning_rate": 1e-3,
        "max_completion_length": 2,
        "max_steps": 4,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "bf16": False,
        "disable_tqdm": True,
        "beta": 0.0,  # else the model is loaded again by its name
        **ENGINE,
    }
    return RLOOTrainer(
        model=saved_model(FOLDER, sharpness),
        reward_funcs=near_answer,
        args=RLOOConfig(**settings),
        train_dataset=task.make_rows(64),
        processing_class=task.make_tokenizer(),
    )


def engine_weights(trainer):
    """The model inside vLLM."""
    executor = trainer.vllm_generation.llm.llm_engine.model_executor
    return executor.driver_worker.model_runner.model
