"""What is logged of a probe, and of a re-scoring between probes.

================================  ==================================================================
key                               meaning
================================  ==================================================================
passk_guard/track                 pass@1 on the reference's prompts, from all looks so far
passk_guard/track_low             lower bound of its 95 % interval
passk_guard/track_high            upper bound
passk_guard/change                change of pass@1 since the start, of the pool
passk_guard/change_low            lower bound of its 95 % interval
passk_guard/change_high           upper bound
passk_guard/pace                  change of pass@1 per ten optimizer steps at present
passk_guard/pace_low              lower bound of its 95 % interval
passk_guard/pace_high             upper bound
passk_guard/drift                 change of pass@1 since the last probe or re-scoring
passk_guard/alarm                 1 while a conflict is open, else 0
passk_guard/overhead              share of the run's time that the guard took so far
passk_guard/seconds               that this probe or re-scoring took
passk_guard/track/<group>         track of one group, with ``group_by``
passk_guard/change/<group>        its change since the start, of the group in the pool
================================  ==================================================================

Of a probe only:

================================  ==================================================================
key                               meaning
================================  ==================================================================
passk_guard/pass_at_1             pass@1 sampled on the reference's prompts at this look
passk_guard/pass_at_k             pass@k of these prompts, by the rollouts of the last looks
passk_guard/pass_at_k_low         lower bound of its 95 % interval, over prompts
passk_guard/pass_at_k_high        upper bound
passk_guard/pass_at_k_change      its change since the start, by the looks' rollouts alone
passk_guard/pass_at_1_served      pass@1 sampled on them at ``report_temperature``
passk_guard/pass_at_1_training    pass@1 on the training batches since the last probe
passk_guard/cosine                of the update in force with the pass@1 gradient, from the last
                                  probes under today's weights; left out while only bounds are sure
passk_guard/cosine_low            lower bound of its 95 % interval
passk_guard/cosine_high           upper bound
passk_guard/z                     of that inner product: estimate / standard error
passk_guard/z_probe               the same from this probe alone
passk_guard/cosine_at_k           of the pass@k with the pass@1 gradient, this probe: a diagnostic
passk_guard/z_at_k                of that inner product
passk_guard/normalised_agreement  E_w[a] / (E[w] ‖∇J_1‖²) under the weights in force
passk_guard/weight_ratio          largest prompt weight in force, as a multiple of the mean
passk_guard/hard_weight           share of the pass@k weight on prompts with at most one right
passk_guard/entropy               of the policy, nats per sampled token
passk_guard/top1_mass             probability of a prompt's likeliest sampled rollout, mean
passk_guard/k                     k that the objective uses
passk_guard/pass1_weight          λ, the share of pass@1 that the objective uses
passk_guard/no_signal             share of prompts whose last rollouts are all right or all wrong
passk_guard/truncated             share of this look's rollouts that were cut at the length limit
passk_guard/exploration_gap       pass@k less pass@1, by the rollouts of the last looks
passk_guard/lost_prompts          prompts whose pass@1 has surely fallen since the start
passk_guard/won_prompts           prompts whose pass@1 has surely risen
passk_guard/inference_kl          divergence of the engine that samples from the model, nats a token
passk_guard/inference_ratio       mean ratio of their probabilities: what the engine can reach
passk_guard/inference_effective   what the rollouts would be worth with their ratios as weights
================================  ==================================================================

A key is left out where it has no value, such as ``drift`` at the first probe.
"""

from __future__ import annotations

from passk_guard.look import Look, Probe
from passk_guard.statistics.interval import Z95


def scalars(found: Look) -> dict[str, float]:
    """The scalars of a probe or re-scoring, by key; see the module's table."""
    values: dict[str, float | None] = {
        "track": found.track.pass_at_1,
        "track_low": found.track.low,
        "track_high": found.track.high,
        "change": found.track.change,
        "change_low": max(-1.0, found.track.change - Z95 * found.track.change_se),
        "change_high": min(1.0, found.track.change + Z95 * found.track.change_se),
        "pace": None if found.pace is None else found.pace.change,
        "pace_low": None if found.pace is None else found.pace.low,
        "pace_high": None if found.pace is None else found.pace.high,
        "drift": None if found.drift is None else found.drift.change,
        "alarm": float(found.conflict),
        "seconds": found.seconds,
    }
    for label, track in found.groups.items():
        values[f"track/{label}"] = track.pass_at_1
        values[f"change/{label}"] = track.change
    if isinstance(found, Probe):
        values |= _of_a_probe(found)
    return {f"passk_guard/{name}": v for name, v in values.items() if v is not None}


def chart_layout(prefix: str = "") -> dict[str, dict[str, list[str | list[str]]]]:
    """Charts for TensorBoard's *custom scalars* tab: levels and cosine with their intervals.

    For ``SummaryWriter.add_custom_scalars``. A margin chart takes a value and its two bounds, a
    multiline chart regular expressions.

    Args:
        prefix: of the logged keys, such as ``train/``.
    """

    def margin(name: str) -> list[str | list[str]]:
        return ["Margin", [f"{prefix}passk_guard/{name}{end}" for end in ("", "_low", "_high")]]

    def lines(*names: str) -> list[str | list[str]]:
        return ["Multiline", [f"^{prefix}passk_guard/{name}$" for name in names]]

    return {
        "passk-guard": {
            "pass@1, filtered, 95 %": margin("track"),
            "pass@k, last looks, 95 %": margin("pass_at_k"),
            "change of the pool's pass@1 since the start, 95 %": margin("change"),
            "change of pass@1 per ten steps, 95 %": margin("pace"),
            "cosine of the update with the pass@1 gradient, 95 %": margin("cosine"),
            "λ, the share of pass@1": lines("pass1_weight"),
            "k of the objective": lines("k"),
        }
    }


def _of_a_probe(probe: Probe) -> dict[str, float | None]:
    update, target, found = probe.update_alignment, probe.alignment, probe.diagnostics
    cosine, turnover, engine = probe.cosine, probe.turnover, probe.inference
    solved = probe.solved_in_k
    return {
        "pass_at_1": probe.pass_at_1,
        "pass_at_k": solved.value,
        "pass_at_k_low": max(0.0, solved.value - Z95 * solved.se),
        "pass_at_k_high": min(1.0, solved.value + Z95 * solved.se),
        "pass_at_k_change": solved.change,
        "pass_at_1_served": probe.served_pass_at_1,
        "pass_at_1_training": probe.training_pass_at_1,
        "cosine": None if cosine is None or not cosine.sized else cosine.value,
        "cosine_low": None if cosine is None else cosine.low,
        "cosine_high": None if cosine is None else cosine.high,
        "z": None if cosine is None else cosine.z,
        "z_probe": None if update is None else update.z,
        "cosine_at_k": None if target is None else target.cosine,
        "z_at_k": None if target is None else target.z,
        "normalised_agreement": found.normalised_agreement,
        "weight_ratio": found.weight_ratio,
        "hard_weight": found.hard_weight,
        "entropy": found.entropy,
        "top1_mass": found.top1_mass,
        "k": float(probe.k),
        "pass1_weight": probe.pass1_weight,
        "no_signal": probe.no_signal,
        "truncated": None if probe.truncation is None else probe.truncation.share,
        "exploration_gap": probe.exploration_gap,
        "lost_prompts": None if turnover is None else float(len(turnover.lost)),
        "won_prompts": None if turnover is None else float(len(turnover.won)),
        "inference_kl": None if engine is None else engine.kl,
        "inference_ratio": None if engine is None else engine.ratio,
        "inference_effective": None if engine is None else engine.effective,
    }
