"""The trainer's own reward function is asked again about the rollouts of the first look."""

from extras import needs

needs("trl")

import pytest
import torch
from trl_runs import GUARD, TAKES_ASYNC, held_out, make_trainer, near_answer

from passk_guard.detection.named_states import NamedState
from passk_guard.integrations.trl import PassKGuardCallback


class Judge:
    """Turns at a call of its life, and notes what it is given."""

    __name__ = "judge"

    def __init__(self, turns=10**9):
        self.turns, self.calls, self.given = turns, 0, []

    def __call__(self, prompts, completions, answer, completion_ids, trainer_state, **arguments):
        self.calls += 1
        self.given.append((len(prompts), sorted(arguments)))
        assert len(prompts) == len(completions) == len(completion_ids) == len(answer)
        scores = near_answer(completions, answer)
        return [1 - s if self.calls >= self.turns else s for s in scores]


def test_a_reward_function_is_verified_again_as_trl_calls_it(tmp_path):
    judge = Judge()
    trainer = make_trainer(tmp_path, reward_funcs=judge)
    guard = PassKGuardCallback(trainer, prompts=held_out(), **GUARD).guard
    first = guard.probe(0)
    calls = list(judge.given)
    assert first.verifier is None
    (arguments,) = {tuple(names) for _, names in calls}  # the same names, in a probe and again
    assert calls.count((16 * 6 // 8, list(arguments))) >= 1
    second = guard.probe(1).verifier
    assert (second.rollouts, second.disagreement, second.baseline) == (12, 0.0, 0.0)
    # Texts, tokens and verdicts belong together.
    fixed = guard._prober.verifier._rollouts
    for one in fixed:
        row = guard.pool.rows[one.row]
        assert near_answer([one.completion], [row["answer"]]) == [float(one.right)]
        assert trainer.processing_class.decode(one.completion_ids, skip_special_tokens=True) == (
            one.completion
        )
    judge.turns = 0
    assert guard.probe(2).verifier.surely
    assert guard.states == (NamedState.VERIFIER_DRIFT,)


@pytest.mark.skipif(not TAKES_ASYNC, reason="this TRL calls plain reward functions only")
def test_an_async_one_is_asked_in_the_trainers_loop(tmp_path):
    judge = Judge()

    async def later(**arguments):
        return judge(**arguments)

    trainer = make_trainer(tmp_path, reward_funcs=later)
    guard = PassKGuardCallback(trainer, prompts=held_out(), **GUARD).guard
    guard.probe(0)
    assert guard.probe(1).verifier.disagreement == 0


@pytest.mark.usefixtures("faults")
def test_one_that_raises_costs_the_check_alone(tmp_path):
    judge = Judge()
    trainer = make_trainer(tmp_path, reward_funcs=judge)
    guard = PassKGuardCallback(trainer, prompts=held_out(), **GUARD).guard
    guard.probe(0)

    def fails(prompts, **arguments):
        raise ConnectionError("no judge")

    again = guard.policy._rewards
    again._wrapped[id(judge)], kept = again._wrap(fails), again._wrapped[id(judge)]
    try:
        with pytest.warns(UserWarning, match="could not be checked.*no judge"):
            assert guard._prober.verifier.look(1, []) is None
    finally:
        again._wrapped[id(judge)] = kept
    assert guard.probe(2).verifier.disagreement == 0
    assert guard.failures == []


def test_a_reward_model_is_not_asked_again(tmp_path):
    trainer = make_trainer(tmp_path)
    policy = PassKGuardCallback(trainer, prompts=held_out(), **GUARD).guard.policy
    assert callable(policy.verify_again)
    policy._verifier = torch.nn.Linear(1, 1)
    assert getattr(policy, "verify_again", None) is None
