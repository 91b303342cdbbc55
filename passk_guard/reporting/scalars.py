"""What is logged of a probe.

=========================  =====================================================================
key                        meaning
=========================  =====================================================================
passk_guard/pass_at_1      pass@1 sampled on the probe's held-out prompts
passk_guard/pass_at_k      pass@k sampled on them, at the k in force
passk_guard/track          filtered pass@1, from all levels and paired increments so far
passk_guard/change         filtered change of pass@1 since the reference at the start
passk_guard/drift          paired change of pass@1 since the probe before
passk_guard/cosine         of the update in force with the pass@1 gradient, pooled over probes
passk_guard/z              of the same inner product in this probe: estimate / standard error
passk_guard/cosine_at_k    of the pass@k gradient with pass@1's, this probe: a diagnostic
passk_guard/z_at_k         of that inner product
passk_guard/alarm          1 while a conflict is open, else 0
passk_guard/k              k that the objective uses
passk_guard/pass1_weight   λ, the share of pass@1 that the objective uses
passk_guard/no_signal      share of prompts with no or only right rollouts
passk_guard/exploration_gap  pass@k less pass@1
passk_guard/seconds        that the probe took
=========================  =====================================================================

A key is left out where it has no value, such as ``drift`` at the first probe.
"""

from __future__ import annotations

from passk_guard.probe import Probe

__all__ = ["probe_scalars"]


def probe_scalars(probe: Probe) -> dict[str, float]:
    """The scalars of a probe, by key; see the module's table."""
    update, target = probe.update_alignment, probe.alignment
    values: dict[str, float | None] = {
        "pass_at_1": probe.pass_at_1,
        "pass_at_k": probe.pass_at_k,
        "track": probe.track.pass_at_1,
        "change": probe.track.change,
        "drift": None if probe.drift is None else probe.drift.change,
        "cosine": None if probe.cosine is None else probe.cosine.value,
        "z": None if update is None else update.z,
        "cosine_at_k": None if target is None else target.cosine,
        "z_at_k": None if target is None else target.z,
        "alarm": float(probe.conflict),
        "k": float(probe.k),
        "pass1_weight": probe.pass1_weight,
        "no_signal": probe.no_signal,
        "exploration_gap": probe.exploration_gap,
        "seconds": probe.seconds,
    }
    return {f"passk_guard/{name}": v for name, v in values.items() if v is not None}
