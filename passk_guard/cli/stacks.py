"""What runs where: ways of sharing a model out, engines that generate, weights, devices.

docs/production.md shows this table, ``passk-guard doctor`` prints it, and the tests that it names
hold it.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["STACKS", "Stack", "markdown"]

_WATCHED, _PER_PROMPT = "watched layers", "a backward per prompt"
_HERE = "tests/integrations/"


@dataclass(frozen=True)
class Stack:
    """One row.

    Attributes:
        what: is set up.
        trl: what becomes of the guard on TRL and ``Trainer``.
        lightning: on Lightning.
        gradients: how those of a probe are taken.
        without: settings that are refused.
        shown: tests, by file and name.
    """

    what: str
    trl: str
    lightning: str
    gradients: str
    without: str
    shown: tuple[str, ...]


STACKS = (
    Stack(
        *("one process, DDP", "yes", "yes", _WATCHED, ""),
        (
            _HERE + "test_contract.py::test_warn_leaves_weights_and_losses_bit_identical",
            _HERE + "test_hosted_ddp.py::test_warn_leaves_training_untouched",
        ),
    ),
    Stack(
        *("FSDP2", "yes", "`ModelParallelStrategy`", _WATCHED, ""),
        (
            _HERE + "test_sharded.py::test_warn_leaves_training_untouched",
            "tests/runtime/test_split_faults.py::test_faults_on_one_process_cost_probes",
        ),
    ),
    Stack(
        *("FSDP1", "yes", "refused", _PER_PROMPT),
        '`anchor_prompts`, `metric="adam"`, `parameters`',
        (
            _HERE + "test_fsdp1.py::test_warn_leaves_training_untouched",
            _HERE + "test_fsdp1.py::test_what_end_to_end_parameters_cannot_do_is_refused",
            _HERE + "test_lightning.py::test_strategies_without_gradients_of_their_own_are_refused",
        ),
    ),
    Stack(
        *("DeepSpeed from 0.16.9, ZeRO-0 to 3", "yes", "`DeepSpeedStrategy`", _WATCHED),
        '`anchor_prompts`, `metric="adam"`',
        (
            _HERE + "test_deepspeed.py::test_warn_leaves_training_untouched",
            _HERE + "test_deepspeed.py::test_what_the_engine_keeps_to_itself_is_refused",
            _HERE + "test_deepspeed.py::test_a_killed_run_goes_on_as_if_nothing_had_been",
        ),
    ),
    Stack(
        *("tensor, context, expert parallelism, HSDP", "refused", "refused", "", ""),
        (
            _HERE + "test_fsdp1.py::test_tensor_parallelism_is_refused",
            "tests/runtime/test_processes.py::test_shards_that_several_processes_hold_are_refused",
        ),
    ),
    Stack(
        *("LoRA; QLoRA (bitsandbytes, 4 bits)", "yes, tried on TRL", "not tried", _WATCHED, ""),
        (
            _HERE + "test_deepspeed.py::test_with_an_adapter",
            _HERE + "test_quantised.py::test_training_is_left_untouched",
        ),
    ),
    Stack(
        *("vLLM in the process", "TRL only", "", _WATCHED, ""),
        (
            _HERE + "test_vllm.py::test_warn_leaves_weights_and_losses_bit_identical",
            _HERE + "test_vllm_sampling.py::test_pass_at_1_is_that_of_the_models_own_generation",
        ),
    ),
    Stack(
        *("vLLM server: its random numbers go on", "TRL only", "", _WATCHED, ""),
        (
            _HERE + "test_vllm_server.py::test_a_server_that_fails_a_probe_costs_that_probe",
            _HERE
            + "test_vllm_processes.py::test_a_server_that_fails_costs_both_processes_that_probe",
        ),
    ),
    Stack(
        *("`torch.compile`, re-entrant checkpointing", "yes", "yes", _PER_PROMPT, ""),
        (
            "tests/gradients/test_hooks.py::test_a_compiled_model_is_left_to_the_other_engine",
            "tests/gradients/test_hooks.py::test_under_checkpointing",
        ),
    ),
)


def markdown() -> list[str]:
    """The table, as docs/production.md has it."""
    head = ("", "TRL, `Trainer`", "Lightning", "gradients from", "refused with it")
    rows = [(s.what, s.trl, s.lightning, s.gradients, s.without) for s in STACKS]
    return [
        "| " + " | ".join(head).lstrip() + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
