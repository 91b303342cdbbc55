"""Figures of the page on tasks that nobody built to conflict are those of its commands."""

import re

from quoted import call_all, figures, figures_left_out, share, words

FIELD = words("docs/field.md")


def test_losses_on_prompts_that_were_always_right():
    found = [one for one in figures("field_always_right.json") if one["task"] == "multiplication"]
    (start,) = {one["start"] for one in found}
    (always,) = {one["always_right"] for one in found}
    assert (
        f"solves {share(start, 2)} of 512 held-out prompts, {100 * always:.0f} % of them" in FIELD
    )
    for one in found:
        own = one["ratios" if one["exact"] else "first order"]["p"]
        cells = (f"{100 * v:+.1f} ± {100 * se:.1f}" for v, se in (one["truth"], one["guard"], own))
        assert f"| {one['step']} | {' | '.join(cells)} |" in FIELD


def test_how_long_stored_rollouts_last():
    found = figures("field_estimators.json")
    rows = {(f"{one['rate']:g}", one["step"]): one for one in found["drift"]}
    assert f"it solves {share(found['start']['pass_at_1'], 2)} of its problems" in FIELD
    assert f"And rollouts of {found['start']['tokens']:.0f} tokens age" in FIELD
    for rate, step in re.findall(r"\| (\de-\d), (\d+) \|", FIELD):
        one = rows[f"{float(rate):g}", int(step)]
        said = (
            f"{share(one['spread']['size'])} | {100 * one['se']:.1f} | "
            f"{100 * one['sampled_again_se']:.1f} | {100 * one['inside']:.1f} % |"
        )
        assert f"| {rate}, {step} | {said}" in FIELD
    near = [one["sampled_again_se"] / one["se"] for key, one in rows.items() if key[0] == "1e-05"]
    assert 1.9 < min(near) < max(near) < 5.1
    assert "are two to five times sharper than sampling the same prompts again" in FIELD
    worst = min(one["spread"]["of_two_tokens"] for one in rows.values())
    assert f"at the same v their effective sample size is {share(worst, 2)} at worst" in FIELD


def test_what_one_probe_knows_of_the_gradients_of_long_completions():
    probes = figures("field_estimators.json")["gradients"]["many prompts"]["probes"]
    forward, right, back = probes.values()
    inside = [100 * one["pooled"][n]["inside"] for one in probes.values() for n in "18"]
    assert (
        f"The true cosine of the pass@8 with the pass@1 gradient is {forward['cosine']:+.2f}"
        in FIELD
    )
    assert f"holds the truth in {inside[0]:.1f} % of single probes and in all of eight" in FIELD
    assert inside[1] == 100
    assert f"a right angle, in {inside[2]:.1f} % and {inside[3]:.1f} %; mirrored" in FIELD
    assert (
        f"so that it is {back['cosine']:.2f}, in {inside[4]:.1f} % and {inside[5]:.1f} %." in FIELD
    )
    wide = [forward["pooled"][n]["width"] for n in "18"]
    assert f"{wide[0]:.2f} out of 2 after one probe, {wide[1]:.2f} after eight" in FIELD
    wrong = [one["surely_below"] for one in forward["pooled"].values()]
    wrong += [one["surely_above"] for one in back["pooled"].values()]
    assert f"A sure sign is wrong in {100 * max(wrong):.1f} % of the probes at worst" in FIELD
    opposed = 100 * right["naive"]["8"]["surely_below"]
    assert f"surely opposed to pass@1 in {opposed:.1f} % of eight pooled probes" in FIELD


def test_no_figure_of_the_page_is_left_out():
    call_all(globals(), but="test_no_figure_of_the_page_is_left_out")
    assert figures_left_out(FIELD) == []
