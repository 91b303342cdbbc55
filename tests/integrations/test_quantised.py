"""Adapters beside 4-bit weights (QLoRA), on the CPU."""

from extras import needs

needs("trl", "peft", "bitsandbytes")

import ambiguous_arithmetic as task
import peft
import pytest
import torch
from bitsandbytes.functional import has_avx512bf16
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from trl_runs import GUARD, held_out, losses, make_trainer, same_weights, train, weights

from passk_guard.integrations.trl import PassKGuardCallback
from passk_guard.runtime import isolation


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    task.make_model(task.make_tokenizer(), hidden=64, layers=1, dropout=0.1).save_pretrained(folder)
    return folder


def run(saved, out, *, guarded):
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(saved, quantization_config=config)
    model = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules="all-linear"))
    trainer = make_trainer(out, model=model)
    callback = PassKGuardCallback(trainer, prompts=held_out(), **GUARD) if guarded else None
    train(trainer, callback)
    return trainer, callback


def test_training_is_left_untouched(saved, tmp_path):
    (alone, _), (beside, callback) = (run(saved, tmp_path, guarded=g) for g in (False, True))
    assert same_weights(weights(alone), weights(beside))
    assert losses(alone) == losses(beside)
    guard = callback.guard
    assert [probe.step for probe in guard.history] == [0, 2, 4]
    assert guard._prober.gradients.said == "watched layers, many prompts per backward, exact"


@pytest.mark.skipif(not has_avx512bf16(), reason="this processor has nothing to repack for")
@pytest.mark.filterwarnings("ignore")  # bitsandbytes cannot differentiate what it repacked
def test_a_probe_that_lets_weights_be_repacked_is_seen(saved, tmp_path, monkeypatch):
    """They are for good, at the first forward in eval mode."""
    alone, _ = run(saved, tmp_path, guarded=False)
    monkeypatch.setattr(isolation, "_REPACKS", "another flag")
    beside, _ = run(saved, tmp_path, guarded=True)
    assert not same_weights(weights(alone), weights(beside))
