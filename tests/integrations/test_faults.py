"""Faults injected into one probe of a real run on every trainer: that probe is all that is lost."""

from extras import needs

needs("trl", "lightning")

import asyncio
import functools
import os
import time
from pathlib import Path

import pytest
import torch
from hosts import HOSTS, settings
from trl_runs import TAKES_ASYNC, near_answer, same_weights

from passk_guard import PassKGuardWarning

pytestmark = pytest.mark.usefixtures("faults")
FAULTY = 2  # the step whose probe is hit


@pytest.fixture(params=HOSTS)
def host(request):
    return HOSTS[request.param]


class Fault:
    """Armed while the guard looks at step 2; a verifier that answers differently meanwhile."""

    __name__ = "flaky"

    def __init__(self, answer=None, hook=None):
        self.armed, self.answer, self.hook, self.handle = False, answer, hook, None

    def before(self, step, model):
        self.armed = step == FAULTY
        if self.armed and self.hook is not None:
            self.handle = model.register_forward_hook(self.hook, with_kwargs=True)

    def after(self, step, model):
        self.armed = False
        if self.handle is not None:
            self.handle.remove()

    def __call__(self, completions, answer, **kwargs):
        rewards = near_answer(completions, answer)
        return self.answer(rewards) if self.armed and self.answer else rewards


class AsyncFault(Fault):
    async def __call__(self, completions, answer, **kwargs):
        if self.armed:
            await asyncio.sleep(60)
        return near_answer(completions, answer)


def raising(error):
    def answer(rewards):
        raise error

    return answer


def out_of_memory(module, args, kwargs, output):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def not_a_number(module, args, kwargs, output):
    output.logits = output.logits * float("nan")
    return output


def only_end_of_sequence(module, args, kwargs, output):
    output.logits = torch.full_like(output.logits, -30.0)
    output.logits[..., 1] = 30.0
    return output


def hit(host, out, fault, steps=6, **more):
    keywords = settings(host, **more)
    return host.run(
        out, steps=steps, guard=keywords, verify=fault, before=[fault.before], at=[fault.after]
    )


LOST = {
    "raises": (Fault(raising(RuntimeError("judge is down"))), "RuntimeError: judge is down"),
    "wrong length": (
        Fault(lambda rewards: rewards[:-1]),
        "scores|rewards|must match the existing size",
    ),
    "text": (Fault(lambda rewards: ["good"] * len(rewards)), "good|str"),
    "all None": (Fault(lambda rewards: [None] * len(rewards)), "verifier scored 0 of"),
    "generation out of memory": (Fault(hook=out_of_memory), "Tried to allocate 20"),
    "NaN logits": (Fault(hook=not_a_number), "(?i)nan"),
    "hangs, async": (AsyncFault(), "no answer within verifier_timeout=0.2 s"),
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run of each trainer without a guard."""

    @functools.cache
    def run(host):
        return host.run(tmp_path_factory.mktemp("alone"), verify=Fault())

    return run


@pytest.mark.filterwarnings("ignore:All reward functions returned None")
@pytest.mark.parametrize("name", LOST)
def test_a_fault_costs_that_probe_only(tmp_path, host, name, undisturbed):
    fault, reason = LOST[name]
    if isinstance(fault, AsyncFault) and host is HOSTS["trl"] and not TAKES_ASYNC:
        pytest.skip("this release of TRL has no async reward functions")
    alone = undisturbed(host)
    with pytest.warns(PassKGuardWarning, match="this probe is lost .* training goes on") as caught:
        found = hit(host, tmp_path / "hit", fault, verifier_timeout=0.2)
    assert [p.step for p in found.guard.history] == [0, 4, 6]
    (failure,) = found.guard.failures
    assert failure.step == FAULTY
    assert_matches(reason, failure.reason)
    ours = [w for w in caught if "this probe is lost" in str(w.message)]
    assert len(ours) == 1
    assert same_weights(alone.weights, found.weights)
    assert alone.losses == found.losses


def assert_matches(pattern, text):
    with pytest.raises(ValueError, match=pattern):
        raise ValueError(text)


RESULTS = {
    "all right": Fault(lambda rewards: [1.0] * len(rewards)),
    "all wrong": Fault(lambda rewards: [0.0] * len(rewards)),
}


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.filterwarnings("ignore:.*level alarm")
def test_a_probe_without_signal_is_a_result(tmp_path, host, name, caplog):
    caplog.set_level("INFO", logger="passk_guard")
    found = hit(host, tmp_path, RESULTS[name])
    assert [p.step for p in found.guard.history] == [0, 2, 4, 6]
    assert not found.guard.failures
    silent = found.guard.history[1]
    assert silent.no_signal == 1.0
    assert silent.pass_at_1 == (1.0 if name == "all right" else 0.0)
    fired = {kind for p in found.guard.history if p.alarm for kind in p.alarm.fired}
    assert fired <= ({"level"} if name == "all wrong" else set())  # pass@1 is 0, after all
    assert caplog.text.count("no signal") == 1


def test_a_policy_that_says_nothing_any_more_is_an_alarm(tmp_path, host):
    with pytest.warns(PassKGuardWarning, match=r"step 2: .*\(level alarm\)"):
        found = hit(host, tmp_path, Fault(hook=only_end_of_sequence), reference_prompts=128)
    assert [p.step for p in found.guard.history] == [0, 2, 4, 6]
    assert not found.guard.failures
    assert found.guard.history[1].pass_at_1 == 0.0


def test_a_hanging_plain_verifier_is_reported_and_waited_for(tmp_path, host):
    def slow(rewards):
        time.sleep(0.6)
        return rewards

    with pytest.warns(PassKGuardWarning, match="'flaky' has been running for 0.2 s") as caught:
        found = hit(host, tmp_path, Fault(slow), verifier_timeout=0.2)
    assert [p.step for p in found.guard.history] == [0, 2, 4, 6]
    assert len([w for w in caught if "has been running" in str(w.message)]) == 1


def test_ctrl_c_in_a_probe_ends_the_run_with_its_state_restored(tmp_path, host):
    seen = {}

    class Interrupt(Fault):
        def before(self, step, model):
            super().before(step, model)
            if self.armed:
                seen.update(model=model, rng=torch.get_rng_state(), weights=copy(model))

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        hit(host, tmp_path, Interrupt(raising(KeyboardInterrupt())))
    model = seen["model"]
    assert same_weights(seen["weights"], copy(model))
    assert model.generation_config.top_k != 0
    if host is not HOSTS["lightning"]:  # which cleans up its own way
        assert model.training
        assert torch.equal(torch.get_rng_state(), seen["rng"])


def copy(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("name", ["trl", "transformers"])
def test_a_full_disk_on_save_costs_the_guards_state_only(tmp_path, name):
    """The guard's file is turned into a device without space; Lightning saves it in its own."""
    host = HOSTS[name]

    def full(step, model):
        folder = tmp_path / "checkpoint-4"
        folder.mkdir(exist_ok=True)
        if not (folder / "passk_guard.tmp").is_symlink():
            os.symlink("/dev/full", folder / "passk_guard.tmp")

    with pytest.warns(PassKGuardWarning, match="the guard's state was not saved .*No space left"):
        found = host.run(tmp_path, guard=settings(host), save=True, at=[full])
    assert [p.step for p in found.guard.history] == [0, 2, 4, 6]
    with pytest.warns(PassKGuardWarning, match="no guard state in this checkpoint"):
        host.run(tmp_path, guard=settings(host), save=True, resume=4)
