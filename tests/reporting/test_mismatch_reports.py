"""An engine that is another distribution than the model: said, logged, and in the verdict."""

from dataclasses import replace

import pytest
import torch
from guarded_bandit import CONTEXTS, make_guard
from tiny import BanditPolicy

from passk_guard.detection.named_states import NamedState
from passk_guard.reporting.journal import Journal
from passk_guard.reporting.read_run import read_run
from passk_guard.reporting.report import begin_run, publish
from passk_guard.reporting.scalars import scalars
from passk_guard.reporting.summary import summary


class WithEngine(BanditPolicy):
    """The bandit, whose rollouts come from an engine: too sharp, or filtered."""

    def __init__(self, sharpness=1.0, keep=4):
        super().__init__(CONTEXTS, dim=3, seed=5)
        self.sharpness, self.keep, self.tells = sharpness, keep, True

    def pi(self, row):
        scores = super().pi(row)
        if not self.samples:
            return scores
        scores = (self.sharpness * scores).log_softmax(-1)
        least = scores.topk(self.keep).values[..., -1:]
        return scores.where(scores >= least, -torch.inf).log_softmax(-1)

    samples = False

    def generate(self, rows, row_ids, n):
        self.samples = True
        groups = super().generate(rows, row_ids, n)
        told = [self.log_probs(*group.tokens).detach() for group in groups]
        self.samples = False
        pairs = zip(groups, told, strict=True)
        return [replace(g, sampling_log_probs=t if self.tells else None) for g, t in pairs]


def run_with(policy, folder, said):
    guard = make_guard(policy, said.append, reference_prompts=64, num_generations=32)
    journal = Journal(folder)
    begin_run(guard, journal, 0, "Loop")
    for step in (0, 5):
        publish(guard.probe(step), guard, journal, lambda report: None)
    return guard


@pytest.mark.parametrize(("sharpness", "named"), [(1.0, False), (2.0, True)])
def test_a_run_says_that_its_engine_is_another_distribution(tmp_path, sharpness, named):
    said = []
    guard = run_with(WithEngine(sharpness), tmp_path, said)
    probe = guard.history[-1]
    assert guard.states == ((NamedState.INFERENCE_MISMATCH,) if named else ())
    texts = [text for text in said if "the engine samples from another distribution" in text]
    assert len(texts) == named  # once, at the first of two probes
    found = read_run(tmp_path)
    assert found.probes[-1]["inference_kl"] == pytest.approx(probe.inference.kl)
    told = f"model that is trained, {probe.inference.kl:.3g} nats per token apart."
    assert summary(found)["sentence"].endswith(told) == named
    assert "note: inference" not in summary(found)["sentence"]
    if named:
        assert f"On {guard.history[0].inference.tokens} tokens just sampled" in texts[0]
        assert "a filter" not in texts[0]


def test_a_filter_is_called_one(tmp_path):
    said = []
    guard = run_with(WithEngine(keep=2), tmp_path, said)
    (text,) = [text for text in said if "the engine samples" in text]
    assert f"It never gives {1 - guard.history[0].inference.ratio:.1%} of the model's" in text


def test_where_no_engine_tells_there_is_no_figure(tmp_path):
    policy = WithEngine(1.5)
    policy.tells = False
    guard = run_with(policy, tmp_path, [])
    assert guard.states == ()
    assert not [key for key in scalars(guard.history[0]) if "inference" in key]
    assert "passk_guard/inference_kl" in scalars(run_with(WithEngine(), tmp_path, []).history[0])
