"""What samples against what is trained: closed forms, and what raises the named state."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from passk_guard.detection.named_states import NamedState, StateWatch
from passk_guard.rollouts.group import RolloutGroup
from passk_guard.statistics.diagnostics import diagnose
from passk_guard.statistics.exploration import PassAtK
from passk_guard.statistics.inference_mismatch import inference_mismatch

PI = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64)
MU = torch.tensor([0.75, 0.125, 0.125, 0.0], dtype=torch.float64)


def grouped(tokens, mu, pi, row=0):
    """Rollouts behind a prompt of one token, and their log-probs: of the engine, of the model."""
    n, length = tokens.shape
    ids = torch.cat([torch.zeros(n, 1, dtype=torch.long), tokens], 1)
    mask = torch.cat([torch.zeros(n, 1), torch.ones(n, length)], 1).long()
    engine = torch.cat([torch.full((n, 1), torch.nan), mu.log()[tokens].float()], 1)
    model = torch.cat([torch.zeros(n, 1), pi.log()[tokens].float()], 1)
    success = torch.tensor([1.0, 0.0] * (n // 2))
    group = RolloutGroup(row, ids, mask, mask, success, sampling_log_probs=engine)
    return group, model


def enumerated(mu, pi, of=8):
    """Every token as often as the engine gives it: means are expectations."""
    tokens = torch.arange(len(mu)).repeat_interleave((mu * of).round().long())
    return [grouped(tokens[:, None], mu, pi, row) for row in range(4)]


def found(pairs):
    return inference_mismatch(*zip(*pairs, strict=True))


def sampled(mu, pi, prompts=64, n=16, length=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        grouped(
            torch.multinomial(mu, n * length, replacement=True, generator=generator).view(n, -1),
            mu,
            pi,
            row,
        )
        for row in range(prompts)
    ]


def test_expectations_are_those_of_the_closed_form():
    seen = found(enumerated(MU, PI))
    here = MU > 0
    kl = (MU[here] * (MU[here] / PI[here]).log()).sum()
    assert seen.tokens == 4 * 8
    assert seen.kl == pytest.approx(float(kl), rel=1e-6)
    assert seen.entropy == pytest.approx(float(-(MU[here] * MU[here].log()).sum()), rel=1e-6)
    assert seen.ratio == pytest.approx(float(PI[here].sum()), rel=1e-6)  # what it can reach
    square = (PI[here] ** 2 / MU[here]).sum()
    assert seen.effective == pytest.approx(float(PI[here].sum() ** 2 / square), rel=1e-6)
    assert seen.kl_se == pytest.approx(0, abs=1e-7)  # prompts are all alike here


def test_an_engine_that_is_the_model_is_worth_all_its_rollouts():
    seen = found(sampled(PI, PI))
    assert (seen.kl, seen.ratio, seen.effective) == (0, 1, 1)
    assert not seen.surely
    assert seen.left_out == 0


def test_the_mean_ratio_tells_a_filter_from_another_shape():
    reach = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    filtered = found(sampled(PI * reach / (PI * reach).sum(), PI))
    assert filtered.ratio == pytest.approx(7 / 8, abs=1e-5)
    assert filtered.kl == pytest.approx(-np.log(7 / 8), abs=1e-5)
    assert filtered.left_out == pytest.approx(1 / 8, abs=1e-4)
    sharp = found(sampled(PI**1.5 / (PI**1.5).sum(), PI))
    assert abs(sharp.ratio - 1) < 4 * sharp.ratio_se
    assert sharp.left_out == 0


def test_errors_are_over_prompts():
    """The spread over many repetitions is what one of them says."""
    sharp = PI**1.5 / (PI**1.5).sum()
    runs = [found(sampled(sharp, PI, prompts=16, seed=seed)) for seed in range(200)]
    for name in ("kl", "ratio"):
        values = np.array([getattr(run, name) for run in runs])
        said = np.mean([getattr(run, f"{name}_se") for run in runs])
        assert said == pytest.approx(values.std(ddof=1), rel=0.2)


def test_tokens_without_a_log_prob_are_left_out_and_so_are_those_nobody_sampled():
    pairs = enumerated(MU, PI)
    whole = found(pairs)
    wild = []
    for group, model in pairs:
        engine = group.sampling_log_probs.clone()
        engine[0, 1] = torch.nan
        engine[:, 0] = -3.0  # of the prompt
        model = model.clone()
        model[0, 1] = -99.0
        wild.append((replace(group, sampling_log_probs=engine), model))
    seen = found(wild)
    assert seen.tokens == whole.tokens - 4
    assert seen.kl < 1
    assert found(pairs[:1]) is None
    assert found([(replace(group, sampling_log_probs=None), m) for group, m in pairs]) is None


def test_rollouts_that_are_left_out_take_theirs_along():
    group, _ = grouped(torch.tensor([[0], [1], [2], [0]]), MU, PI)
    assert torch.equal(group.first(2).sampling_log_probs[:, 1], MU.log()[:2].float())


def rounded(logits, seed):
    """What bfloat16 makes of logits, and kernels of another order."""
    noise = torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed))
    return (logits + noise * 0.01).to(torch.bfloat16).double()


@pytest.mark.parametrize(("sharpness", "named"), [(1.0, False), (1.1, False), (1.5, True)])
@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
def test_ordinary_rounding_is_not_named_and_half_as_sharp_again_is(sharpness, named, spread):
    """Over distributions from flat, which no factor sharpens, to peaked."""
    logits = spread * torch.randn(32, generator=torch.Generator().manual_seed(1)).double()
    pi = logits.softmax(-1)
    mu = (rounded(logits, 2) * sharpness).softmax(-1)
    seen = found(sampled(mu, pi, length=16))
    assert seen.surely == (named and spread > 0)
    if sharpness == 1.0:
        assert seen.kl < 0.2 * seen.bound


def states_of(watch, pairs):
    groups, scores = zip(*pairs, strict=True)
    diagnostics = diagnose(
        groups,
        scores,
        (np.ones(len(groups)), np.full(len(groups), 2)),
        2,
        np.ones(len(groups)),
        None,
    )
    return watch.update(0.0, PassAtK(0.5, 0.1, None, None, 0.1, 0.1, None, None), diagnostics)


def test_the_state_begins_once_and_ends_when_the_engine_is_right_again():
    watch, sharp = StateWatch(), PI**1.5 / (PI**1.5).sum()
    assert states_of(watch, sampled(PI, PI)) == ()
    assert states_of(watch, sampled(sharp, PI, length=16)) == (NamedState.INFERENCE_MISMATCH,)
    assert states_of(watch, sampled(sharp, PI, length=16, seed=1)) == ()
    assert watch.active == {NamedState.INFERENCE_MISMATCH}
    again = StateWatch()
    again.load_state_dict(watch.state_dict())
    assert again.active == watch.active
    states_of(watch, sampled(PI, PI))
    assert watch.active == set()
