"""Did pass@1 fall from one checkpoint to another, and on which prompts?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from passk_guard.checkpoints.arguments import check_run
from passk_guard.checkpoints.comparison import (
    Comparison,
    compare_counts,
    decision_code,
    in_points,
)
from passk_guard.checkpoints.probe_policy import PolicyProbe
from passk_guard.checkpoints.sampled_counts import Sampled, is_policy, sample_policy
from passk_guard.checks import check_whole
from passk_guard.counts import Counts, PromptCount, gather, read_counts
from passk_guard.prompts.identity import prompt_text
from passk_guard.reporting.progress_bar import shown
from passk_guard.runtime.progress import Progress
from passk_guard.statistics.common_rollouts import CommonRollouts, common_rollouts


def compare(
    a: Any,
    b: Any,
    *,
    prompts: Any = None,
    verifier: Callable[..., Any] | None = None,
    tolerance: float = 0.01,
    ks: Iterable[int] | None = None,
    margin: float = 0.1,
    false_discovery: float = 0.05,
    num_generations: int = 16,
    num_prompts: int | None = None,
    prompts_at_once: int = 64,
    success_threshold: float = 0.5,
    group_by: str | None = None,
    seed: int = 0,
    micro_batch: int | None = None,
    log_prompts: bool = False,
    verifier_timeout: float = 300.0,
    names: tuple[str, str] | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare two checkpoints, prompt by prompt: pass@k for every k, what was lost and what won.

    Each side is one of

    * the path of a file of counts, of the journal of a probe, or of what lm-evaluation-harness,
      inspect_ai, lighteval or verl wrote (see :func:`passk_guard.counts.read_counts`);
    * :class:`~passk_guard.counts.Counts`, a :class:`~passk_guard.PolicyProbe`, a mapping
      ``{prompt_id: (correct, n)}``, or a pair of arrays ``(correct, n)`` in the order of the
      prompts;
    * a policy, which is sampled on ``prompts`` now; or a :class:`LazyPolicy`.

    Where both are policies that read 200 prompts or more alike, the first one's rollouts are scored
    under both. If the two are close, that gives the change of pass@1 with far less noise, and
    decides::

        from passk_guard import compare

        found = compare("before.jsonl", "after.jsonl")
        print(found.sentence)
        found.decision  # 0 held, 1 fell, 2 not enough data

    Args:
        a: the checkpoint before.
        b: the checkpoint after.
        prompts: held-out rows, where a side is a policy.
        verifier: ``f(prompts, completions, **columns) -> list of scores``, likewise.
        tolerance: fall of pass@1 that is accepted; .01 is one point.
        ks: tries to report; by default every k that half of the prompts have rollouts for.
        margin: change of a prompt's pass@1 that does not make it lost or won.
        false_discovery: share of the prompts named as lost, and as won, that may be wrong.
        num_generations: rollouts per prompt of a policy.
        num_prompts: prompts to sample a policy on; by default all.
        prompts_at_once: prompts per batch.
        success_threshold: score from which a rollout is right.
        group_by: a column of ``prompts``: the change within each group, too.
        seed: of the order of the prompts, and of sampling.
        micro_batch: rollouts per forward; by default as many as memory allows, up to 16 384
            tokens.
        log_prompts: quote lost and won prompts by their text, where it is known.
        verifier_timeout: seconds after which a hanging verifier is reported.
        names: what the two are called; by default their files', their models', or a and b.
        progress: told where it stands; by default a bar where a terminal or a notebook shows one.

    Raises:
        ValueError: an argument or a file is unusable, or no prompt is on both sides.
        ProbeError: verifier or policy gave what cannot be used.
    """
    if names is not None and (isinstance(names, str) or len(names) != 2):
        raise ValueError(f"names must be two, such as ('before', 'after'), got {names!r}.")
    choices: dict[str, Any] = {
        "ks": None if ks is None else list(ks),
        "tolerance": tolerance,
        "margin": margin,
        "false_discovery": false_discovery,
    }
    if is_policy(a) or is_policy(b):
        check_whole("num_generations", num_generations, 1)
        if num_prompts is not None:
            check_whole("num_prompts", num_prompts, 1)
        check_run(prompts_at_once, success_threshold, group_by, seed, micro_batch)
        # Sampling takes long: what the comparison itself would refuse is better known before.
        nothing = gather("what is sampled", [PromptCount("", 0, int(num_generations))])
        compare_counts(nothing, nothing, **choices)
    with shown(progress) as tell:
        sample = partial(
            sample_policy,
            prompts=prompts,
            verifier=verifier,
            num_prompts=num_prompts,
            micro_batch=micro_batch,
            n=num_generations,
            at_once=prompts_at_once,
            threshold=success_threshold,
            timeout=verifier_timeout,
            group_by=group_by,
            seed=seed,
            log_prompts=log_prompts,
            progress=tell,
        )
        before, after, common = _sides(a, b, sample)
    if names is None and before.name == after.name:
        names = ("a", "b")
    if names is not None:
        before, after = replace(before, name=names[0]), replace(after, name=names[1])
    if not log_prompts:
        before, after = replace(before, texts={}), replace(after, texts={})
    found = compare_counts(before, after, **choices)
    return found if common is None else _with_common(found, common)


_READ_OTHERWISE = (
    "The two differ in vocabulary, chat template or length of answers, so that neither can score "
    "the other one's rollouts: counts decide."
)


def _sides(
    a: Any, b: Any, sample: Callable[..., Sampled]
) -> tuple[Counts, Counts, CommonRollouts | None]:
    """Counts of both; of two policies the first one's rollouts under both."""
    if is_policy(a) and is_policy(b):
        first = sample(a)
        second = sample(b, first)
        if second.reads == first.reads:
            common = common_rollouts(first.groups, first.scores, second.scores)
            return first.counts, second.counts, common
        remarks = (*second.counts.remarks, _READ_OTHERWISE)
        return first.counts, replace(second.counts, remarks=remarks), None
    before, after = (
        sample(side).counts if is_policy(side) else _given_counts(side, name)
        for side, name in ((a, "a"), (b, "b"))
    )
    return before, after, None


_SAMPLING = ("temperature", "max_completion_length", "success_threshold")


def _given_counts(side: Any, name: str) -> Counts:
    """Counts of one side of a comparison, unless it is a policy.

    Args:
        side: see :func:`passk_guard.compare`.
        name: of the argument.

    Raises:
        ValueError: it is nothing of the kind.
    """
    if isinstance(side, Counts):
        return side
    if isinstance(side, (str, Path)):
        return read_counts(side)
    if isinstance(side, PolicyProbe):
        return _of_probe(side)
    if isinstance(side, Mapping):
        return gather(name, (PromptCount(str(id), *_pair(id, at)) for id, at in side.items()))
    if isinstance(side, tuple) and len(side) == 2:
        correct, n = np.broadcast_arrays(*(np.asarray(part) for part in side))
        each = enumerate(zip(correct.ravel().tolist(), n.ravel().tolist(), strict=True))
        return gather(name, (PromptCount(str(i), *_pair(i, at)) for i, at in each))
    raise ValueError(
        f"{name} must be a path, Counts, a PolicyProbe, a mapping of (correct, n), a pair of "
        f"arrays or a policy, got {type(side).__name__}."
    )


def _pair(id: Any, counts: Any) -> tuple[int, int]:
    try:
        c, n = counts
        if int(c) == c and int(n) == n:
            return int(c), int(n)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"prompt {id!r} has {counts!r}: give (correct, n), two whole numbers.")


def _of_probe(probe: PolicyProbe) -> Counts:
    found = probe.reading
    rows = [probe.rows[i] for i in found.row_ids]
    group_by = probe.settings.get("group_by")
    return gather(
        probe.name,
        (
            PromptCount(
                id,
                int(c),
                int(n),
                None if group_by is None else str(row[group_by]),
                prompt_text(row),
            )
            for id, c, n, row in zip(probe.prompt_ids, found.correct, found.n, rows, strict=True)
        ),
        settings={key: probe.settings[key] for key in _SAMPLING if key in probe.settings},
    )


def _with_common(found: Comparison, common: CommonRollouts) -> Comparison:
    """A comparison that rests on the first one's rollouts, scored under both, if that is allowed.

    Its interval of the change of pass@1 is many times narrower than that of counts, so it decides.
    Where it is not, or where the two are too far apart, the counts decide as they did.
    """
    counts = found.pass_at_1
    if not common.allowed or common.high - common.low >= counts.high - counts.low:
        why = common.why_not or "they give a wider interval than counts do"
        said = f"On common rollouts nothing can be said: {why}. Counts decide."
        return replace(found, common=common, remarks=(*found.remarks, said))
    figures = (
        f"a change of {100 * common.change:+.2f} points (95 %: {100 * common.low:+.2f} to "
        f"{100 * common.high:+.2f}) on {common.prompts:,} prompts, from rollouts of {found.a} that "
        f"both score (effective sample size {common.effective_sample_size:.0%})."
    )
    accepted = in_points(found.tolerance)
    decision = decision_code(common.low, common.high, found.tolerance)
    said = (
        f"pass@1 did not fall by {accepted} or more",
        f"pass@1 fell by more than {accepted}",
        f"Not enough data to tell whether pass@1 fell by {accepted}",
    )[decision]
    return replace(
        found, common=common, decision=decision, needed=None, sentence=f"{said}: {figures}"
    )
