"""Trainers that keep something of their own: a probe leaves no trace in any of it."""

from extras import needs

needs("trl")

import heapq
import random
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import ambiguous_arithmetic as task
import numpy as np
import pytest
import torch
from trl import GRPOTrainer
from trl_runs import GUARD, losses, make_trainer, same_weights, train, weights

from passk_guard import PassKGuardWarning
from passk_guard.integrations.trl import PassKGuardCallback
from passk_guard.runtime import snapshot


class Keeping(GRPOTrainer):
    """Scales advantages by what :meth:`note` makes of each batch and of all before it."""

    def start(self):
        """Stand in for ``__init__``."""

    def note(self, prompts, advantages):
        return 0.0

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        factor = 1 + self.note([row["prompt"] for row in inputs], output["advantages"])
        return {**output, "advantages": output["advantages"] * factor}

    def _compute_loss(self, model, inputs):
        texts = self.processing_class.batch_decode(inputs["prompt_ids"], skip_special_tokens=True)
        vars(self).setdefault("trained", set()).update(texts)
        return super()._compute_loss(model, inputs)


class InAList(Keeping):
    def start(self):
        self.seen = []

    def note(self, prompts, advantages):
        self.seen += prompts
        return len(self.seen) / 100


class InASet(Keeping):
    seen = set()  # noqa: RUF012  # of the class, as such things are

    def start(self):
        self.seen.clear()

    def note(self, prompts, advantages):
        self.seen.update(prompts)
        return len(self.seen) / 100


class RunningMean(Keeping):
    def start(self):
        self.statistics = {"reward": SimpleNamespace(by=defaultdict(lambda: [0.0, 0]))}

    def note(self, prompts, advantages):
        mean = self.statistics["reward"].by["all"]
        mean[1] += 1
        mean[0] += (float(advantages.abs().mean()) - mean[0]) / mean[1]
        return mean[0]


class InATensor(Keeping):
    def start(self):
        self.baseline = torch.zeros(2)

    def note(self, prompts, advantages):
        self.baseline[1].mul_(0.9).add_(0.1 + advantages.abs().mean())
        return float(self.baseline[1])


class OwnChance(Keeping):
    def start(self):
        self.chance = [np.random.default_rng(0), random.Random(0), torch.Generator()]

    def note(self, prompts, advantages):
        numpy, python, generator = self.chance
        drawn = float(torch.rand((), generator=generator))
        return drawn + numpy.random() + python.random()


class Critic(Keeping):
    """Learns how large advantages are, with an optimizer of its own."""

    def start(self):
        torch.manual_seed(0)
        self.critic = torch.nn.Linear(1, 1)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), lr=0.1)

    def note(self, prompts, advantages):
        with torch.enable_grad():
            guess = self.critic(torch.ones(1, 1))
            (guess - advantages.abs().mean()).square().mean().backward()
        self.critic_optimizer.step()
        self.critic_optimizer.zero_grad()
        return float(guess.detach())


class OwnAdvantages(Keeping):
    """Each prompt's rewards less their moving mean."""

    def start(self):
        self.baselines = {}

    def _calculate_rewards(self, *args):
        self.rewards = super()._calculate_rewards(*args)
        return self.rewards

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        advantages = []
        for row, reward in zip(inputs, self.rewards[:, 0].tolist(), strict=True):
            before = self.baselines.get(row["prompt"], self.baselines.get("any", 0.5))
            advantages.append(reward - before)
            self.baselines["any"] = self.baselines[row["prompt"]] = 0.9 * before + 0.1 * reward
        return {**output, "advantages": torch.tensor(advantages)}


class OwnLoss(InAList):
    def _compute_loss(self, model, inputs):
        return super()._compute_loss(model, inputs) * (1 + len(self.seen) / 100)


class OwnSampling(Keeping):
    """Cools down, call by call."""

    def start(self):
        self.calls = 0

    def _generate_and_score_completions(self, inputs):
        self.calls += 1
        self.temperature = 1.0 / self.calls
        return super()._generate_and_score_completions(inputs)


class Store:
    """The rollouts with the largest advantages; ties go to the older ones."""

    __slots__ = ("heap",)

    def __init__(self):
        self.heap = []

    def add(self, score, rollout):
        heapq.heappush(self.heap, (score, len(self.heap), rollout))


class Replay(Keeping):
    """As ``GRPOWithReplayBufferTrainer`` of TRL 0.24 to 1.12: some groups are from a store."""

    KEYS = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages")

    def start(self):
        self.store = Store()

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        size, rollouts = 8, len(output["advantages"])
        for first in range(0, rollouts - rollouts % size, size):
            group = {key: output[key][first : first + size].clone() for key in self.KEYS}
            self.store.add(-float(group["advantages"].abs().sum()), group)
        best = self.store.heap[0][2]
        for key in self.KEYS:
            output[key][:size] = best[key]
        return output


class SwappedWhileScored(Keeping):
    """Scores, and so rewards, an earlier answer in place of the first."""

    def start(self):
        self.answers = []

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        self.answers.append((completions[0], completion_ids_list[0]))
        completions[0], completion_ids_list[0] = self.answers[len(self.answers) // 2]
        return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)


class DropsInEvaluation(InAList):
    """Keeps the rollouts that teach something."""

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        if self.model.training:
            return output
        keep = output["advantages"] != 0
        return {k: v[keep] if k in Replay.KEYS else v for k, v in output.items()}


KINDS = [
    *(InAList, InASet, RunningMean, InATensor, OwnChance, Critic),
    *(OwnAdvantages, OwnLoss, OwnSampling, Replay, SwappedWhileScored, DropsInEvaluation),
]
BENEATH = (Replay, SwappedWhileScored, DropsInEvaluation)
ALL = task.make_rows(300)
TRAINED_ON = ALL.filter(lambda row: row["prompt"][0] in "01234")
HELD_OUT = ALL.filter(lambda row: row["prompt"][0] in "56789")


def run(folder, kind, guarded):
    trainer = make_trainer(folder, steps=3, rows=TRAINED_ON)
    trainer.__class__ = kind
    trainer.start()
    callback = PassKGuardCallback(trainer, prompts=HELD_OUT, **GUARD) if guarded else None
    return train(trainer, callback), callback


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_trainer_keeps_is_not_touched(tmp_path, caplog, kind):
    caplog.set_level("INFO", "passk_guard")
    alone, _ = run(tmp_path, kind, guarded=False)
    watched, callback = run(tmp_path, kind, guarded=True)
    assert losses(alone) == losses(watched)
    assert same_weights(weights(alone), weights(watched))
    assert alone.trained == watched.trained
    assert {prompt[0] for prompt in watched.trained} <= set("01234")
    assert not callback.guard.failures
    assert [probe.step for probe in callback.guard.history] == [0, 2]
    assert set(callback.guard.history[0].scored) == {6}
    assert ("beneath" in caplog.text) == (kind in BENEATH)
    assert "cannot put back" not in caplog.text


class WithHandles(Keeping):
    def start(self):
        self.stream = (prompt for prompt in "abc")
        self.trace = SimpleNamespace(file=sys.stderr, lines=[], nothing=object(), where=Path())


def test_what_cannot_be_put_back_is_named_once(tmp_path, caplog):
    caplog.set_level("INFO", "passk_guard")
    run(tmp_path, WithHandles, guarded=True)
    named = [text for text in caplog.messages if "cannot put back" in text]
    assert len(named) == 1
    assert "WithHandles holds what a probe cannot put back: stream (generator), trace (" in named[0]
    assert named[0].count("(") == 2


def test_what_is_too_much_to_copy_is_said_and_watched(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(snapshot, "MOST_COPIED", 4)
    caplog.set_level("INFO", "passk_guard")
    with pytest.warns(PassKGuardWarning, match=r"keeps in a tensor of shape \(2,\)") as caught:
        run(tmp_path, InATensor, guarded=True)
    assert len([w for w in caught if "could not put it back" in str(w.message)]) == 1
    assert caplog.text.count("larger tensors are only watched") == 1
