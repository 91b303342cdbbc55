"""The names that users write or read, listed: one that goes, comes or changes is noticed here."""

import inspect
import re
from importlib import import_module

import pytest

import passk_guard
from passk_guard import PassKGuardConfig
from passk_guard.cli.main import main
from passk_guard.reporting import scalars

NAMES = """
    Alarm Alignment Comparison Counts Failure HFPolicy HeldOutPool PassKGuard PassKGuardConfig
    PassKGuardWarning PassKObjective Policy PolicyProbe Probe ProbeError RolloutGroup
    alignment_curve compare estimate_alignment pass_at_k probe_policy prompt_weight read_counts
    unbiased_prompt_weight weight_threshold weighted_alignment
"""
CONFIG = """
    k objective reference_prompts num_generations rollouts_per_look every max_overhead
    action pass1_tolerance floor false_alarms watch metric engine detectors controller
    report_temperature group_by weight_by parameters memory_limit verifier_timeout
    log_prompts journal on_error seed
"""
# Of every callback, beside the configuration's; and what a trainer without generation needs.
CALLBACK = "prompts reward_funcs success success_threshold temperature"
OWN_LOSS = "policy max_completion_length anchor_prompts anchor_batch_size"
CALLBACKS = {
    "trl": ("trainer", CALLBACK),
    "transformers": ("trainer", f"{CALLBACK} {OWN_LOSS}"),
    "lightning": ("", f"{CALLBACK} {OWN_LOSS}"),
}
KEYS = """
    track track_low track_high change change_low change_high pace pace_low pace_high
    drift alarm overhead seconds
    track/<group> change/<group>
    pass_at_1 pass_at_k pass_at_k_low pass_at_k_high pass_at_k_change pass_at_1_served
    pass_at_1_training
    cosine cosine_low cosine_high z z_probe cosine_at_k z_at_k normalised_agreement weight_ratio
    hard_weight entropy top1_mass k pass1_weight no_signal truncated exploration_gap lost_prompts
    won_prompts inference_kl inference_ratio inference_effective
"""
COMMANDS = "watch report probe compare doctor"


def test_what_the_package_exports():
    assert passk_guard.__all__ == NAMES.split()
    assert all(hasattr(passk_guard, name) for name in NAMES.split())
    assert re.fullmatch(r"\d+\.\d+\.\d+", passk_guard.__version__)


FOLDERS = {  # doors, and what a new adapter or a loop of one's own needs
    "counts": """FORMATS Choices Counts Format PromptCount Source format_of gather read_counts
        register_format write_counts""",
    "detection": """DETECTORS Alarm AlarmKind AlignmentDetector Cause Detector DetectorSettings
        LevelDetector LookEvidence register_detector""",
    "gradients": "ENGINES AutoEngine BackwardEngine EngineSettings GramianEngine HookEngine Taken "
    "register_engine",
    "identity": "InconclusiveError NotIdenticalError NotRepeatableError assert_bit_identical",
    "objectives": "ESTIMATORS Estimator PassKObjective register_estimator",
    "remedies": """ACTIONS CONTROLLERS Action ControlReading Controller
        PredictiveController Request register_action register_controller""",
    "rollouts": "HFPolicy Policy RolloutGroup VerifiedPolicy",
    "session": "Arguments GuardParts Session TrainerAdapter",
}


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_a_folder_exports(folder):
    module = import_module(f"passk_guard.{folder}")
    assert module.__all__ == FOLDERS[folder].split()
    assert all(hasattr(module, name) for name in module.__all__)


PROBED = """
    policy prompts verifier | k num_generations num_prompts prompts_at_once success_threshold
    group_by early_stop chance seed journal log_prompts name engine parameters micro_batch
    memory_limit verifier_timeout progress
"""
COMPARED = """
    a b | prompts verifier tolerance ks margin false_discovery num_generations num_prompts
    prompts_at_once success_threshold group_by seed micro_batch log_prompts verifier_timeout names
    progress
"""


@pytest.mark.parametrize(("name", "words"), [("probe_policy", PROBED), ("compare", COMPARED)])
def test_what_the_functions_take(name, words):
    positional, keywords = (part.split() for part in words.split("|"))
    found = inspect.signature(getattr(passk_guard, name)).parameters
    assert list(found) == positional + keywords
    kinds = [parameter.kind for parameter in found.values()]
    assert kinds[len(positional) :] == [inspect.Parameter.KEYWORD_ONLY] * len(keywords)


OPTIONS = {  # of the commands, beside --help
    "probe": """prompts prompt-column chat chat-template-kwargs verifier success-threshold
        group-by adapter device dtype trust-remote-code temperature max-completion-length
        rollouts-at-once seed num-generations
        num-prompts prompts-at-once micro-batch early-stop journal out json log-prompts""",
    "watch": """prompts prompt-column chat chat-template-kwargs verifier success-threshold
        group-by adapter device dtype trust-remote-code temperature max-completion-length
        rollouts-at-once seed once stop-on-alarm pattern every tolerance reference-prompts
        rollouts-per-look micro-batch poll out log-prompts""",
    "compare": """tolerance margin false-discovery format metric filter threshold prompts
        prompt-column chat chat-template-kwargs verifier success-threshold group-by device dtype
        trust-remote-code
        temperature max-completion-length rollouts-at-once seed num-generations num-prompts
        prompts-at-once micro-batch journals out json log-prompts""",
}


@pytest.mark.parametrize("command", OPTIONS)
def test_what_a_command_takes(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    told = re.findall(r"^  (?:-\w[^-\n]*, )?--([\w-]+)", said, re.MULTILINE)
    assert told == ["help", *OPTIONS[command].split()]


def test_what_can_be_configured():
    assert list(inspect.signature(PassKGuardConfig).parameters) == CONFIG.split()


@pytest.mark.parametrize(
    "trainer", [pytest.param(name, marks=pytest.mark.needs(name)) for name in CALLBACKS]
)
def test_what_a_callback_takes(trainer):
    module = import_module(f"passk_guard.integrations.{trainer}")
    assert module.__all__ == ["PassKGuardCallback"]
    positional, keywords = CALLBACKS[trainer]
    found = inspect.signature(module.PassKGuardCallback).parameters.values()
    kinds = {p.name: p.kind for p in found}
    required = [p.name for p in found if p.default is inspect.Parameter.empty]
    assert required == ["settings"]
    assert [n for n, kind in kinds.items() if kind is inspect.Parameter.POSITIONAL_OR_KEYWORD] == (
        positional.split()
    )
    assert {n for n, kind in kinds.items() if kind is inspect.Parameter.KEYWORD_ONLY} == {
        *keywords.split(),
        "objective",
    }
    assert kinds["settings"] is inspect.Parameter.VAR_KEYWORD  # the config's


def test_what_is_logged():
    told = re.findall(r"^passk_guard/(\S+)  ", scalars.__doc__, re.MULTILINE)
    assert told == KEYS.split()
    assert re.findall(r"passk_guard/[\w{]\S*", inspect.getsource(scalars.scalars)) == [
        'passk_guard/{name}":'  # no key is made elsewhere in that function
    ]


def test_which_commands_there_are(capsys):
    with pytest.raises(SystemExit):
        main(["no such command"])
    said = capsys.readouterr().err.partition("choose from")[2]
    assert re.findall(r"\w+", said) == COMMANDS.split()
