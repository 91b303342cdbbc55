"""Did pass@1 fall from one checkpoint to another, and on which prompts?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from passk_guard.checkpoints.arguments import check_run, check_sampled
from passk_guard.checkpoints.common_verdict import with_common
from passk_guard.checkpoints.comparison import Comparison, compare_counts
from passk_guard.checkpoints.given_counts import given_counts
from passk_guard.checkpoints.sampled_counts import LazyPolicy, Sampler, is_policy
from passk_guard.counts import Counts, PromptCount, gather
from passk_guard.reporting.progress_bar import shown
from passk_guard.runtime.progress import Progress
from passk_guard.statistics.common_rollouts import CommonRollouts

__all__ = ["LazyPolicy", "compare"]


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
        check_sampled(num_generations, num_prompts)
        check_run(prompts_at_once, success_threshold, group_by, seed, micro_batch)
        # Sampling takes long: what the comparison itself would refuse is better known before.
        nothing = gather("what is sampled", [PromptCount("", 0, int(num_generations))])
        compare_counts(nothing, nothing, **choices)
    with shown(progress) as tell:
        sampler = Sampler(
            prompts,
            verifier,
            {
                "n": num_generations,
                "at_once": prompts_at_once,
                "threshold": success_threshold,
                "timeout": verifier_timeout,
                "group_by": group_by,
                "seed": seed,
                "log_prompts": log_prompts,
                "progress": tell,
            },
            num_prompts,
            micro_batch,
        )
        before, after, common = _sides(a, b, sampler)
    if names is None and before.name == after.name:
        names = ("a", "b")
    if names is not None:
        before, after = replace(before, name=names[0]), replace(after, name=names[1])
    if not log_prompts:
        before, after = replace(before, texts={}), replace(after, texts={})
    found = compare_counts(before, after, **choices)
    return found if common is None else with_common(found, common)


def _sides(a: Any, b: Any, sampler: Sampler) -> tuple[Counts, Counts, CommonRollouts | None]:
    """Counts of both; of two policies the first one's rollouts under both."""
    if is_policy(a) and is_policy(b):
        first = sampler.sample(a)
        second, common = sampler.sample_beside(b, first)
        return first.counts, second.counts, common
    before, after = (
        sampler.sample(side).counts if is_policy(side) else given_counts(side, name)
        for side, name in ((a, "a"), (b, "b"))
    )
    return before, after, None
