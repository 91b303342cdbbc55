"""The sentences that a user reads."""

from __future__ import annotations

from pathlib import Path

from passk_guard.config import LEAST_PROMPTS, PassKGuardConfig
from passk_guard.detection.named_states import NamedState
from passk_guard.look import Failure, Probe
from passk_guard.remedies.remedy import RemedyChange
from passk_guard.reporting.digits import apart
from passk_guard.rollouts.group import Truncation
from passk_guard.runtime.schedule import FirstLook, Forecast
from passk_guard.statistics.inference_mismatch import InferenceMismatch


def cleared_message(step: int) -> str:
    """A conflict has ended."""
    return f"passk-guard: step {step}: the conflict has cleared."


def lost_message(failure: Failure, count: int) -> str:
    """A look failed."""
    return (
        f"step {failure.step}: this probe is lost ({count} so far), training goes on. "
        f"Reason: {failure.reason}"
    )


def waits_message(parameters: object) -> str:
    """All parameters are frozen, or all of those that ``parameters`` selects."""
    which = "" if parameters is None else f" that parameters={parameters!r} selects"
    return (
        f"nothing is trainable yet{which}, so there is no gradient to look at. The guard waits: "
        "its first look, which later ones are compared with, comes once something is unfrozen."
    )


def remedy_message(step: int, change: RemedyChange) -> str:
    """A remedy sets in, or lets go."""
    what = "the remedy is off again"
    if change.in_vain:
        helps = "a lower k" if change.how == "adjust_k" else "mixing pass@1 in"
        what = (
            f"{helps} has not been seen to help, and pass@1 stays below its floor. The remedy lets "
            "go until the next conflict. What may help: a lower learning rate, or action='stop'"
        )
    elif change.on and change.how == "mix":
        what = f"mixing pass@1 back in, λ = {apart(change.pass1_weight, 0, digits=2)[0]}"
    elif change.on:
        what = f"lowering k to {change.k:.2f}"
    return f"passk-guard: step {step}: {what}."


def state_message(state: NamedState, probe: Probe) -> str:
    """What a named state means; none is a conflict."""
    head = f"passk-guard: step {probe.step}: "
    signal = round(probe.prompts * (1 - probe.no_signal))
    if state is NamedState.VANISHING_SIGNAL:
        return (
            f"{head}{'no' if signal < 2 else 'vanishing'} signal. Of {_last_rollouts(probe)}, "
            f"{signal or 'none'} {'has' if signal < 2 else 'have'} both right and wrong ones "
            f"({probe.pass_at_1:.1%} of this look's rollouts are right). Only such prompts give "
            "pass@1 and pass@k a gradient. This is no conflict. What helps: prompts of middling "
            "difficulty, or a warm start."
            f"{truncation_sentence(probe.truncation)}"
        )
    if state is NamedState.VERIFIER_DRIFT and probe.verifier is not None:
        drift = probe.verifier
        return (
            f"{head}the verifier has changed. Of {drift.rollouts} rollouts of the first look that "
            f"are verified again at each probe, {drift.disagreement:.1%} have got another verdict "
            f"since step {drift.since} or so, {drift.baseline:.1%} before. By itself that moves "
            f"pass@1 by {100 * drift.points:+z.1f} points, whatever the policy does. This is no "
            "conflict, but pass@1 from before and after cannot be compared. What helps: the "
            "verifier as it was (a judge's model, its prompt, a service's version), or a new run."
        )
    if state is NamedState.INFERENCE_MISMATCH and probe.inference is not None:
        return head + _mismatch(probe.inference)
    found, solved = probe.diagnostics, probe.solved_in_k
    return (
        f"{head}exploration is collapsing. pass@k - pass@1 was {solved.gap_at_start:.3f} at the "
        f"start and is {solved.gap:.3f} over the last looks; a prompt's likeliest answer has "
        f"probability {found.top1_mass:.2f} on the mean. This is no conflict: pass@1 need not "
        "fall. What helps if pass@k matters: a higher temperature, an entropy bonus, or a pass@k "
        "objective."
    )


def _mismatch(found: InferenceMismatch) -> str:
    filters = ""
    if found.left_out > 0:
        never = apart(100 * (1 - found.ratio), 0)[0]
        filters = f" It never gives {never}% of the model's probability: a filter."
    return (
        "the engine samples from another distribution than the model that is trained. On "
        f"{found.tokens} tokens just sampled they differ by {found.kl:.3g} nats per token, where "
        f"the engine's entropy is {found.entropy:.3g}.{filters} This is no conflict, but pass@1, "
        "pass@k and the gradients are of what the engine samples, and so is training. What helps: "
        "weights that really reach the engine, its precision as the model's, no quantisation."
    )


def start_message(config: PassKGuardConfig, pool: int, total_steps: int | None) -> str:
    """What the guard is about to do."""
    m = min(config.reference_prompts, pool)
    if config.every is not None and config.max_overhead is None:
        when = f"every {config.every} steps"
        if total_steps is not None:
            probes = total_steps // config.every + 1
            when += f", {_in_all(probes, probes, config)}"
    else:
        share = 100 * (config.max_overhead or 0.02)
        when = f"within {share:g} % of the run's time (interval: as soon as costs are known)"
    return (
        f"passk-guard: {m} held-out prompts, solved {config.n} times each at the start and "
        f"{_times(config.rollouts(m))} at every later look, {when}. "
        f"Pool: {pool} prompts, action: {config.action!r}."
    )


def stop_message(step: int, where: str | None) -> str:
    """Training is ended.

    Args:
        step: optimizer steps done.
        where: the checkpoint, if that is known.
    """
    saved = "A checkpoint is saved" + ("." if where is None else f": {where}")
    return (
        f"passk-guard: step {step}: training stops here, because action='stop' was asked for and "
        f"an alarm was raised. {saved}"
    )


def where_message(journal: Path | None, hint: str) -> str:
    """Where results will be.

    Args:
        journal: the run's JSONL; ``None`` where there is none.
        hint: what is missing for curves and pictures; empty where nothing is.
    """
    where = f"written to {journal}"
    if journal is None:
        where = "kept in callback.guard.history, and in no file; journal=True writes one"
    return f"passk-guard: every look is {where}. {hint}".rstrip()


def plan_message(
    forecast: Forecast, visible: float | None, config: PassKGuardConfig, gradients: str = ""
) -> str:
    """What to expect of a run, once costs and precision are known."""
    cost = f"a probe costs {forecast.probe_steps:.1f} training steps"
    if forecast.first_steps is not None:
        cost += f" (the first look, which takes the reference, {forecast.first_steps:.1f})"
    if forecast.rescore_steps is not None:
        cost += f", scoring stored rollouts again {forecast.rescore_steps:.1f}"
    probes = ""
    if forecast.probes is not None and forecast.looks is not None:
        probes = f", {_in_all(forecast.probes, forecast.looks, config)}"
    said = f"passk-guard: {cost}; about one probe per {forecast.interval:.0f} steps{probes}."
    if gradients:
        said += f" Gradients: {gradients}."
    if visible is None:  # nothing tests the level
        return said
    if visible >= 1:
        return f"{said} It can be sure of no loss of pass@1: too few prompts, or too few probes."
    points = f"about {100 * visible:.1f} points"
    return f"{said} The smallest loss of pass@1 that it can be sure of: {points}."


def truncation_sentence(found: Truncation | None) -> str:
    """What to do where most rollouts were cut, with a space before it; else nothing."""
    if found is None or found.share <= 0.5:
        return ""
    return (
        f" {found.share:.0%} of the rollouts were cut at the length limit, {found.tokens} tokens, "
        "before they ended. Raise max_completion_length first, or switch a thinking model's "
        "thinking off (chat_template_kwargs)."
    )


def blind_message(probe: Probe, looks: int, threshold: float | None) -> str:
    """Nothing could be compared for a while: what was seen, and what helps."""
    return _blind(probe, looks, threshold) + truncation_sentence(probe.truncation)


def _blind(probe: Probe, looks: int, threshold: float | None) -> str:
    head = (
        f"step {probe.step}: no signal in {looks} look{'s' * (looks > 1)} in a row: of "
        f"{_last_rollouts(probe)}, hardly any has both right and wrong ones, so there is no "
        "gradient to compare, and the guard sees nothing."
    )
    easier = "prompts that are solved sometimes, or a warm start"
    if probe.rewards is None or threshold is None:
        return f"{head} Right: {probe.pass_at_1:.1%} of this look's. What helps: {easier}."
    low, high = probe.rewards
    least, most, bound = apart(low, high, threshold, digits=6, kind="g")
    seen = f"Rewards from {least} to {most}, right from success_threshold={bound} on"
    if high < threshold:
        lower = f"If {most} should count as right, set success_threshold={most}; else what"
        return (
            f"{head} {seen}: nothing was right. {lower if high > low else 'What'} helps: {easier}."
        )
    if low >= threshold:
        higher = f"If {least} should not count as right, raise success_threshold; else what"
        return (
            f"{head} {seen}: everything was right. {higher if high > low else 'What'} helps: "
            "harder prompts."
        )
    some = sum(0 < c < n for c, n in zip(probe.correct, probe.scored, strict=True))
    but = " but one" if some else ""
    return f"{head} {seen}: each prompt{but} was solved always or never. What helps: {easier}."


def short_run_message(look: FirstLook, total_steps: int, config: PassKGuardConfig) -> str:
    """The first look alone costs more than the budget of the whole run."""
    share, every = 100 * (config.max_overhead or 0.02), max(total_steps // 10, 1)
    taken = ""
    if look.chunks < look.wanted:
        taken = f", with {look.chunks} of {look.wanted} parts of the reference's prompts"
    budget, seconds = (
        f"{took:.2g}" if took < 99 else f"{took:,.0f}" for took in (look.budget, look.seconds)
    )
    over = "more than three times that" if look.over else "more than that"
    lower = _lower("reference_prompts", config, LEAST_PROMPTS)
    return (
        f"this run is short for its budget: {share:g} % of {total_steps} steps is about "
        f"{budget} s, and the first look takes about {seconds} s, {over}{taken}"
        f". It will see few looks, or one. Give every={every} for "
        f"{total_steps // every + 1}, whatever they cost{lower}."
    )


def sketch_message(needed: int, limit: float) -> str:
    """The gradients of a probe do not fit: what is done instead."""
    size, most = apart(needed / 2**30, limit / 2**30)
    return (
        f"passk-guard: the gradients of a probe would take {size} GiB, over "
        f"memory_limit={most} GiB. They are compared by sketches (standard error of "
        "a cosine about 0.01)."
    )


def ran_out_message(tokens: float) -> str:
    """Memory ran out in a forward or backward of a probe."""
    return (
        "passk-guard: memory ran out in a forward or backward of a probe. From now on up to "
        f"{tokens:,} tokens go through the model at once there, and nothing is lost but time."
    )


def few_probes_message(probes: int, config: PassKGuardConfig, times: float | None = None) -> str:
    """A run that will hardly be looked at.

    Args:
        probes: in the whole run.
        config: settings.
        times: the whole run's budget that is spent already; ``None`` where there is no budget.
    """
    if config.every == 1 and config.max_overhead is None:
        mend = "It looks at every step already: only more steps would help"
    elif config.every is not None and config.max_overhead is None:
        mend = f"Lower every={config.every}"
    else:
        # Below one rollout of each prompt only fewer prompts help.
        lower = _lower("rollouts_per_look", config, config.reference_prompts) or _lower(
            "reference_prompts", config, LEAST_PROMPTS
        )
        mend = (
            f"Raise max_overhead={config.max_overhead or 0.02:g}{lower}, or give every= alone to "
            "fix the interval whatever it costs"
        )
    spent = ""
    if times is not None and times > 1:
        spent = f" The first look has cost {times:.1f} times the whole run's budget."
    return (
        f"this run will see {_counted(probes)}; below ten an alarm comes late or never.{spent} "
        f"{mend}."
    )


def _lower(name: str, config: PassKGuardConfig, least: int) -> str:
    size = getattr(config, name)
    return f", or lower {name}={size}" if size > least else ""


def _last_rollouts(probe: Probe) -> str:
    each = round(sum(probe.scored) / probe.prompts)
    return f"{probe.prompts} held-out prompts, each with its last {each} rollouts"


def _in_all(probes: int, looks: int, config: PassKGuardConfig) -> str:
    chance = 1 - (1 - config.false_alarms) ** looks
    more = f" and {looks - probes} looks at stored rollouts" if looks > probes else ""
    return f"{_counted(probes)}{more} in all, false-alarm chance {100 * chance:.3g} % per run"


def _counted(probes: int) -> str:
    return f"{probes} probe{'' if probes == 1 else 's'}"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
