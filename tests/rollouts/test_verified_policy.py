"""Verifiers are called as TRL calls them; what they get wrong is named; a hanging one is told."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from coins import CoinPolicy

from passk_guard import PassKGuardWarning, ProbeError
from passk_guard.rollouts.group import RolloutGroup
from passk_guard.rollouts.verified_policy import VerifiedPolicy
from passk_guard.rollouts.verifier_timeout import watched

ROWS = [{"prompt": "a", "answer": "1"}, {"prompt": "b", "answer": "2"}]


class Talker:
    """Says "1" and "2" by turns; verifies nothing."""

    def generate(self, rows, row_ids, n, temperature=None):
        ids = torch.arange(n * 2).view(n, 2)
        mask = torch.ones_like(ids)
        says = tuple("12"[i % 2] for i in range(n))
        nan = torch.full((n,), torch.nan)
        return [RolloutGroup(i, ids, mask, mask, nan, completions=says) for i in row_ids]

    def parameters(self):
        return []


def verify(prompts, completions, answer, **_):
    return [c == a for c, a in zip(completions, answer, strict=True)]


def success(verifier, **settings):
    groups = VerifiedPolicy(Talker(), verifier, **settings).generate(ROWS, [5, 6], 4)
    return [group.success.tolist() for group in groups]


def test_a_verifier_gets_what_trl_gives_it():
    seen = {}

    def spy(**arguments):
        seen.update(arguments)
        return [0.0] * 8

    success(spy)
    assert seen["prompts"] == ["a"] * 4 + ["b"] * 4
    assert seen["completions"] == list("12121212")
    assert seen["answer"] == ["1"] * 4 + ["2"] * 4
    assert seen["completion_ids"][1] == [2, 3]
    assert {"trainer_state", "log_extra", "log_metric"} <= set(seen)
    seen["log_extra"]("column", [1]), seen["log_metric"]("x", 1.0)


async def verify_later(prompts, completions, answer, **_):
    await asyncio.sleep(0)
    return verify(prompts, completions, answer)


class Callable:
    """A verifier may be an object."""

    def __call__(self, **arguments):
        return verify(**arguments)


@pytest.mark.parametrize("verifier", [verify, verify_later, Callable()])
def test_plain_async_and_callable_objects_verify_alike(verifier):
    assert success(verifier) == [[1, 0, 1, 0], [0, 1, 0, 1]]


SLOT = asyncio.Semaphore(1)  # of a module, which belongs to the loop that it is first used in


async def verify_in_turn(prompts, completions, answer, **_):
    async def one(completion, right):
        async with SLOT:
            await asyncio.sleep(0)
            return completion == right

    return await asyncio.gather(*map(one, completions, answer))


def test_what_an_async_verifiers_module_holds_is_used_in_one_loop():
    """In several runs, after an error, and where a loop runs already, as in a notebook."""
    with pytest.raises(ProbeError, match="gave no answer within"):
        success(verify_in_turn, timeout=1e-9)
    for _ in range(2):
        assert success(verify_in_turn) == [[1, 0, 1, 0], [0, 1, 0, 1]]

    async def notebook():
        return success(verify_in_turn)

    assert asyncio.run(notebook()) == [[1, 0, 1, 0], [0, 1, 0, 1]]


def test_ctrl_c_cancels_an_async_verifier_at_work():
    ended = threading.Event()

    async def waits(**_):
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        success(waits)
    signal.signal(signal.SIGINT, before)
    assert ended.wait(5)


@pytest.mark.long
def test_a_forked_process_has_a_loop_of_its_own_and_ends_as_others_do():
    """In processes of their own: this one has threads, which a fork would leave locked."""
    code = """
import asyncio, os
from passk_guard.rollouts.event_loop import finished
async def worker():
    await asyncio.sleep(3600)
async def verify():
    tasks.append(asyncio.create_task(worker()))
    return os.getpid()
tasks = []
assert finished(verify()) == os.getpid()
if (child := os.fork()) == 0:
    os._exit(finished(verify()) != os.getpid())
assert os.waitpid(child, 0)[1] == 0
assert finished(verify()) == os.getpid()
print("done")
"""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (ran.stdout, ran.stderr, ran.returncode) == ("done\n", "", 0)


def test_none_is_unscorable_and_the_threshold_decides():
    found = success(lambda **_: [None, 0.2, 0.7, True] * 2, threshold=0.7)
    assert str(found[0]) == "[nan, 0.0, 1.0, 1.0]"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "'wrong' returned None; expected a list of 8 numbers"),
        ([1.0], "'wrong' returned 1 scores for 8 completions"),
        (["yes"] * 8, "expected a list of 8 numbers or None"),
        ([[1.0]] * 8, "expected a list of 8 numbers or None"),
        (0.5, "returned 0.5; expected a list"),
    ],
)
def test_wrong_answers_are_named(answer, message):
    def wrong(**_):
        return answer

    with pytest.raises(ProbeError, match=message):
        success(wrong)


MANY = [{"prompt": "a", "answer": "1"}] * 16


@pytest.mark.parametrize("kind", ["plain", "async"])
@pytest.mark.parametrize("faulty", [set(), {3}, {3, 12}, {0, 1, 3}, set(range(16))])
def test_single_rows_with_which_a_verifier_raises_have_no_score(kind, faulty):
    rows = [{**row, "answer": None} if i in faulty else row for i, row in enumerate(MANY)]

    def strict(prompts, completions, answer, **_):
        assert None not in answer, "no answer"
        return verify(prompts, completions, answer)

    async def later(**arguments):
        return strict(**arguments)

    policy = VerifiedPolicy(Talker(), strict if kind == "plain" else later)

    def unscored():
        found = policy.generate(rows, range(100, 116), 4)
        return {group.row - 100 for group in found if group.success.isnan().all()}

    if len(faulty) > 2:  # no matter of single rows
        with pytest.raises(AssertionError, match="no answer"):
            unscored()
    elif faulty:
        with pytest.warns(PassKGuardWarning) as told:
            assert unscored() == unscored() == faulty
        named = [str(w.message).split(" of the")[0].split()[-1] for w in told]
        assert named == [str(100 + i) for i in sorted(faulty)]  # each once
    else:
        assert not unscored()


def test_an_error_that_no_row_is_to_blame_for_is_raised():
    calls = []

    def once(completions, **_):
        calls.append(len(completions))
        if len(calls) == 1:
            raise RuntimeError("the sandbox is down")
        return [1.0] * len(completions)

    with pytest.raises(RuntimeError, match="the sandbox is down"):
        VerifiedPolicy(Talker(), once).generate(MANY, range(16), 4)
    assert calls == [64, 32, 32]


def test_a_policy_that_verifies_by_itself_is_left_alone():
    policy = CoinPolicy(4, tokens=3)
    rows = [{"prompt": str(i)} for i in range(4)]
    (group,) = VerifiedPolicy(policy, None).generate(rows[:1], [0], 4)
    assert not group.success.isnan().any()
    with pytest.raises(ProbeError, match="the policy gives no completions"):
        VerifiedPolicy(policy, verify).generate(ROWS, [0, 1], 4)


def test_a_hanging_async_verifier_is_interrupted():
    async def hangs(**_):
        await asyncio.sleep(60)

    began = time.perf_counter()
    with pytest.raises(ProbeError, match=r"'hangs' gave no answer within verifier_timeout=0.1 s"):
        success(hangs, timeout=0.1)
    assert time.perf_counter() - began < 5


def test_a_timeout_of_the_verifiers_own_is_told_in_its_own_words():
    async def gives_up(**_):
        raise TimeoutError("the judge is busy")

    with pytest.raises(TimeoutError, match="the judge is busy"):
        success(gives_up)


def test_a_hanging_plain_verifier_is_reported_and_its_late_answer_counts():
    def slow(**arguments):
        time.sleep(0.5)
        return verify(**arguments)

    with pytest.warns(PassKGuardWarning, match="'slow' has been running for 0.1 s"):
        assert success(slow, timeout=0.1) == [[1, 0, 1, 0], [0, 1, 0, 1]]


def test_a_quick_one_is_not():
    assert success(watched(verify, 0.2), timeout=0.2)
    time.sleep(0.3)  # a timer that were left running would warn, and warnings are errors
