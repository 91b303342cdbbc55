"""What every integration promises, in real runs of each."""

from extras import needs

needs("trl", "lightning")

import asyncio
import inspect
import logging
import pkgutil
import re
import warnings

import own_loss
import pytest
from clockless import clockless
from hosts import HOSTS, SAVE, lightning_trainer, model, settings
from trl_runs import TAKES_ASYNC, held_out, make_trainer, near_answer, same_weights

import passk_guard.integrations
from passk_guard import PassKGuardWarning
from passk_guard.config import PassKGuardConfig, Settings
from passk_guard.reporting.read_run import read_run

ALARM = {"floor": 0.99}  # pass@1 is surely below it: an alarm at the first probe


@pytest.fixture(params=HOSTS)
def host(request):
    return HOSTS[request.param]


def test_every_integration_is_under_contract():
    modules = {m.name for m in pkgutil.iter_modules(passk_guard.integrations.__path__)}
    callbacks = {name for name in modules if not name.startswith("_")} - {"folder"}  # no callback
    assert callbacks == set(HOSTS)


def test_keywords_mean_the_same_everywhere(host):
    """Same names, defaults and annotations in every adapter; settings are the config's."""
    parameters = inspect.signature(host.callback).parameters
    own = {"trainer", "settings"}
    assert parameters["settings"].annotation == "Unpack[Settings]"
    assert all(p.kind is p.KEYWORD_ONLY for name, p in parameters.items() if name not in own)
    assert [*Settings.__annotations__] == [n for n in PassKGuardConfig.names() if n != "objective"]
    for other in HOSTS.values():
        theirs = inspect.signature(other.callback).parameters
        for name in set(parameters) & set(theirs) - own:
            assert parameters[name].default == theirs[name].default, name
            if name not in ("objective", "policy"):  # what can be reached differs
                assert parameters[name].annotation == theirs[name].annotation, name


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("reward_func", "'reward_funcs'"), ("pass1_tolerence", "'pass1_tolerance'"), ("zzz", "'zzz'")],
)
def test_a_wrong_keyword_names_the_right_one(host, wrong, meant):
    with pytest.raises(TypeError, match=f"has no keyword '{wrong}'.*{meant}|'zzz'\\.$"):
        host.callback(**{wrong: 1})


def test_warn_leaves_weights_and_losses_bit_identical(tmp_path, host):
    alone = host.run(tmp_path / "alone", steps=20)
    guarded = host.run(tmp_path / "guarded", steps=20, guard=settings(host))
    assert [p.step for p in guarded.guard.history] == list(range(0, 21, 2))
    assert not guarded.guard.failures
    assert guarded.guard._prober.gradients.said.startswith("watched layers")
    assert same_weights(alone.weights, guarded.weights)
    assert alone.losses == guarded.losses
    # There was something to learn; TRL rounds losses to four digits, often 0.
    learnt = [entry.get("grad_norm") or entry.get("loss") for entry in alone.losses]
    assert sum(map(bool, learnt)) > 10
    start = host.run(tmp_path / "start", steps=1)
    assert not same_weights(start.weights, alone.weights)  # something was trained


def test_mix_without_an_alarm_leaves_them_and_with_one_does_not(tmp_path, host):
    passk = {k: v for k, v in host.mix.items() if k == "objective"}
    alone = host.run(tmp_path / "alone", guard=settings(host, **passk))
    calm = host.run(tmp_path / "calm", guard=settings(host, action="mix", **host.mix))
    assert same_weights(alone.weights, calm.weights)
    mixed = host.run(tmp_path / "mixed", guard=settings(host, action="mix", **ALARM, **host.mix))
    assert [p.pass1_weight for p in mixed.guard.history] == [0.0, 1.0, 1.0, 1.0]
    assert not mixed.guard.failures
    assert not same_weights(alone.weights, mixed.weights)


TRACE = [
    "# held-out prompts, solved # times each at the start and # times at every later look, every "
    "# steps, # probes in all, false-alarm chance # % per run. Pool: # prompts, action: ['warn', "
    "'mix'].",
    "every look is written to passk_guard.jsonl",
    "WARNING step #: pass@# is at risk, and whether the update opposes it is not known yet",
    "step #: mixing pass@# back in, λ = #.",
    "a probe costs # training steps (the first look, which takes the reference, #); about one "
    "probe per # steps, # probes in all, false-alarm chance # % per run. Gradients: watched "
    "layers, many prompts per backward, exact. The smallest loss of pass@# that it can be sure of: "
    "about # points.",
    "took # % of the run's time.",
]


def test_the_same_events_are_told_in_the_same_order(tmp_path, host, caplog):
    """A golden trace of what a user reads in a run with an alarm at the start."""
    caplog.set_level("INFO")
    with warnings.catch_warnings():
        warnings.simplefilter("always", PassKGuardWarning)
        logging.captureWarnings(True)
        keywords = settings(host, action=["warn", "mix"], **ALARM, **host.mix)
        found = host.run(tmp_path, guard=keywords)
    logging.captureWarnings(False)
    told = [masked(record) for record in caplog.records if "passk-guard: " in record.getMessage()]
    assert [text for text in told if text] == TRACE
    assert [p.step for p in found.guard.history] == [0, 2, 4, 6]
    assert [bool(p.alarm) for p in found.guard.history] == [True, False, False, False]


def masked(record):
    """A message without its figures; nothing of what is the host's wording, or the tiny task's."""
    text = record.getMessage().split("passk-guard: ", 1)[1].split("\n")[0]
    if any(of in text for of in ("the pool has", "held-out prompts are also", "this run will see")):
        return None
    if text.startswith("every look is written to "):  # the path and the hint are the host's
        return f"every look is written to {text.split('/')[-1].split('. ')[0]}"
    text = re.sub(r"[-+]?\d+(\.\d+)?", "#", text.split(" (level")[0])
    return f"WARNING {text}" if record.name == "py.warnings" else text


def test_the_same_seed_gives_the_same_history_and_another_one_another(tmp_path, host):
    def history(seed):
        guard = host.run(tmp_path / f"{seed}", steps=2, guard=settings(host, seed=seed)).guard
        return [(p.pass_at_1, p.row_ids, p.alignment.inner, p.track) for p in guard.history]

    first = history(3)
    assert first == history(3)
    assert first != history(4)


def test_resume_in_an_intervention_goes_on_where_the_checkpoint_was(tmp_path, host):
    keywords = settings(host, action="mix", **ALARM, **host.mix)
    whole = host.run(tmp_path, steps=8, guard=keywords, save=True)
    again = host.run(tmp_path, steps=8, guard=keywords, save=True, resume=SAVE)
    assert [p.step for p in again.guard.history] == [6, 8]
    for one, other in zip(whole.guard.history[3:], again.guard.history, strict=True):
        assert one.row_ids == other.row_ids  # held-out order
        assert (one.track, one.pass1_weight, one.k) == (other.track, other.pass1_weight, other.k)
        assert one.conflicts == other.conflicts
    assert clockless(whole.guard.state_dict()) == clockless(again.guard.state_dict())
    assert same_weights(whole.weights, again.weights)
    told = read_run(tmp_path)
    assert [look["step"] for look in told.looks] == [0, 2, 4, 6, 8]  # one course, each once
    assert told.resumed == (SAVE,)
    assert told.end is not None


def test_resume_from_a_checkpoint_that_lies_elsewhere_keeps_the_floor(tmp_path, host):
    """Copied to another machine or bucket, resumed into another output_dir, by another name."""
    first = host.run(tmp_path / "first", steps=SAVE, guard=settings(host), save=True)
    (saved,) = (tmp_path / "first").glob(f"checkpoint-*{SAVE}*")
    elsewhere = tmp_path / "bucket" / f"kept{saved.suffix}"
    elsewhere.parent.mkdir()
    saved.rename(elsewhere)
    again = host.run(tmp_path / "second", steps=8, guard=settings(host), resume=elsewhere)
    assert [p.step for p in again.guard.history] == [6, 8]
    seen = first.guard.history[-1].track
    assert again.guard.history[0].track.reference == pytest.approx(seen.reference, abs=0.05)
    assert again.guard.history[0].drift is not None  # on rollouts from before


def test_resume_with_another_k_takes_the_new_one_and_keeps_the_reference(tmp_path, host):
    host.run(tmp_path, steps=SAVE, guard=settings(host), save=True)
    with pytest.warns(PassKGuardWarning, match="k: 4 -> 2.*Goes on: .*pass@1 and its reference"):
        again = host.run(tmp_path, steps=6, guard=settings(host, k=2), save=True, resume=SAVE)
    assert [p.alignment.k for p in again.guard.history] == [2]
    assert again.guard.history[0].drift is not None


def test_resume_from_a_checkpoint_that_had_no_guard(tmp_path, host):
    host.run(tmp_path, steps=SAVE, save=True)
    with pytest.warns(PassKGuardWarning, match="no guard state in this checkpoint"):
        found = host.run(tmp_path, steps=8, guard=settings(host), save=True, resume=SAVE)
    assert [p.step for p in found.guard.history] == [4, 6, 8]
    host.run(tmp_path, steps=9, guard=settings(host), resume=8)  # it was saved, too


def test_a_checkpoint_of_a_guarded_run_resumes_without_the_guard(tmp_path, host):
    host.run(tmp_path, steps=SAVE, guard=settings(host), save=True)
    alone = host.run(tmp_path, steps=6, save=True, resume=SAVE)
    assert alone.weights


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"prompts": []}, ValueError, "prompts is empty"),
        ({"prompts": 7}, ValueError, "prompts must be a list or a map-style dataset, got int"),
        ({"prompts": ["1 2 ="]}, ValueError, "needs 'answer', but the held-out rows have"),
        ({"reward_funcs": []}, ValueError, "reward_funcs is empty"),
        ({"success": "typo"}, ValueError, "names no reward function"),
        ({"k": 8, "num_generations": 8}, ValueError, "k=8 needs more than 8 rollouts"),
        ({"action": "panic"}, ValueError, "action='panic' is not known"),
        ({"temperature": 0.0}, ValueError, "temperature must be above 0"),
        ({"parameters": "nope"}, ValueError, "selects no trainable parameter"),
        ({"group_by": "nope"}, ValueError, "names no column of prompts"),
        ({"verifier_timeout": 0}, ValueError, "verifier_timeout must lie between"),
        ({"action": ["mix", "adjust_k"]}, ValueError, "Choose one remedy"),
    ],
)
def test_bad_arguments_fail_before_the_first_step(tmp_path, host, bad, error, message):
    steps = []
    with pytest.raises(error, match=message):
        host.run(tmp_path, guard=settings(host) | bad, at=[lambda step, model: steps.append(step)])
    assert not steps


def test_two_guards_are_refused(tmp_path, host):
    # Lightning refuses by itself.
    message = "already has a PassKGuardCallback|more than one stateful .* `PassKGuardCallback`"
    with pytest.raises((ValueError, RuntimeError), match=message):
        two_guards(host, tmp_path)


def two_guards(host, out):
    if host is HOSTS["lightning"]:
        lightning_trainer(out, [host.callback(**settings(host)) for _ in range(2)])
        return
    trainer = make_trainer(out)
    if host is HOSTS["transformers"]:
        trainer = own_loss.make_trainer(model(), str(out), steps=1)
    trainer.add_callback(host.callback(trainer, **settings(host)))
    host.callback(trainer, **settings(host))


def test_an_async_verifier_whose_module_holds_a_semaphore(tmp_path, host):
    if host is HOSTS["trl"] and not TAKES_ASYNC:
        pytest.skip("this release of TRL has no async reward functions")
    slot = asyncio.Semaphore(2)

    async def judged(completions, answer, **_):
        async def one(*pair):
            async with slot:
                await asyncio.sleep(0)
                return near_answer(*([value] for value in pair))[0]

        return await asyncio.gather(*map(one, completions, answer))

    guard = host.run(tmp_path, steps=2, guard=settings(host), verify=judged).guard
    assert not guard.failures
    assert [p.step for p in guard.history] == [0, 2]


def test_cut_answers_are_counted_and_said_where_nothing_is_right(tmp_path, host):
    said = r"\d+% of the rollouts were cut at the length limit, 2 tokens, before they ended"
    with pytest.warns(PassKGuardWarning, match=f"nothing was right.*{said}"):
        guard = host.run(tmp_path, steps=4, guard=settings(host), verify=never_right).guard
    shares = [look["truncated"] for look in read_run(tmp_path).looks]
    assert shares == [probe.truncation.share for probe in guard.history]
    assert all(0.8 < share < 1 for share in shares)  # a random one in 32 tokens ends an answer


def never_right(completions, **_):
    return [0.0] * len(completions)


def test_held_out_prompts_as_strings_with_a_verifier_of_their_own(tmp_path, host):
    def even(completions, **_):
        return [c[:1] in ("0", "2", "4", "6", "8") for c in completions]

    rows = held_out(64)["prompt"]
    keywords = {**settings(host), "prompts": list(rows), "reward_funcs": even}
    if host is HOSTS["trl"]:  # its own reward runs in probes, too, and needs a column
        keywords["prompts"] = held_out(64)
    found = host.run(tmp_path, steps=2, guard=keywords).guard
    assert [p.step for p in found.history] == [0, 2]
    assert 0 < found.history[0].pass_at_1 < 1
