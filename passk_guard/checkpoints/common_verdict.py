"""What rollouts that both checkpoints score say of pass@1, where they may say anything."""

from __future__ import annotations

from dataclasses import replace

from passk_guard.checkpoints.comparison import Comparison
from passk_guard.checkpoints.verdict import decision_code, in_points
from passk_guard.statistics.common_rollouts import CommonRollouts

__all__ = ["with_common"]


def with_common(found: Comparison, common: CommonRollouts) -> Comparison:
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
