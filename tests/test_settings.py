"""Every setting refuses what is of the wrong kind, and takes NumPy's numbers."""

import json

import numpy as np
import pytest

from passk_guard import PassKGuardConfig

NAN, INF = float("nan"), float("inf")

NO_COUNT = [0, -1, 1.5, NAN, INF, True, "8", [8]]
NO_SHARE = [-0.1, 2.0, NAN, INF, True, "0.1", [0.1]]
WRONG = {
    "k": [*NO_COUNT, None],
    "objective": ["pk", 3, ["pkpo"], True],
    "num_generations": NO_COUNT,
    "reference_prompts": [*NO_COUNT, None, 3],
    "every": NO_COUNT,
    "max_overhead": [*NO_SHARE, 0.0],
    "action": ["panic", None, 3, {"mix"}, ["warn", 3], lambda probe: None],
    "pass1_tolerance": [*NO_SHARE, None],
    "floor": [*NO_SHARE[:4], None, "lowest", [0.5], True],
    "false_alarms": [*NO_SHARE, None, 0.0],
    "watch": ["both", None, 3, ["update"]],
    "metric": ["cosine", None, 3],
    "engine": ["forward", None, 3, ["backward"]],
    "detectors": ["oracle", None, 3, [], ["level", "level"], "alignment,,level"],
    "controller": ["bang", None, 3],
    "report_temperature": [-1.0, NAN, INF, True, "1"],
    "group_by": ["", 3, ["kind"], True],
    "weight_by": ["", 3, ["traffic"], True],
    "rollouts_per_look": NO_COUNT,
    "parameters": ["(", 3, ["layers"], True, lambda name: True],
    "memory_limit": ["4GB", 0, -1, True, None, NAN, [4]],
    "verifier_timeout": [0, -1, NAN, INF, True, "300", None],
    "log_prompts": ["yes", 1, None],
    "journal": ["yes", 1],
    "on_error": ["ignore", 3, True],
    "seed": [-1, 0.5, NAN, True, "0", None],
}
ONES = [(name, value) for name, values in WRONG.items() for value in values]


def test_every_setting_is_among_the_wrong_ones():
    assert set(WRONG) == set(PassKGuardConfig.names())


def named(name, value):
    """The same on every worker: no addresses."""
    return f"{name}={getattr(value, '__name__', repr(value))}"[:40]


@pytest.mark.parametrize(("name", "value"), ONES, ids=[named(n, v) for n, v in ONES])
def test_a_setting_of_the_wrong_kind_is_named(name, value):
    with pytest.raises(ValueError, match=rf"^{name}[ =].*\.$"):
        PassKGuardConfig(**{name: value})


def test_a_size_in_words_is_told_how_to_write_it():
    with pytest.raises(ValueError, match=r"got '4GB'\. .* memory_limit=4 \* 2\*\*30"):
        PassKGuardConfig(memory_limit="4GB")


def test_numbers_of_numpy_are_taken_and_can_be_written_down():
    config = PassKGuardConfig(
        k=np.int64(4),
        seed=np.uint8(3),
        pass1_tolerance=np.float32(0.25),
        memory_limit=np.int32(2**20),
        floor=np.float64(0.5),
        log_prompts=np.bool_(True),
    )
    expected = {"k": 4, "seed": 3, "pass1_tolerance": 0.25, "floor": 0.5, "log_prompts": True}
    assert expected.items() <= vars(config).items()
    json.dumps(vars(config))
