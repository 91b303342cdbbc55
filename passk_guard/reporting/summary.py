"""What a run comes to: a verdict in a sentence, and the figures behind it."""

from __future__ import annotations

from typing import Any

from passk_guard.detection import AlarmKind, Cause
from passk_guard.detection.episodes import DEFAULT_DETECTORS
from passk_guard.detection.named_states import NamedState
from passk_guard.reporting.alarm_sentences import cause_in_words
from passk_guard.reporting.digits import apart
from passk_guard.reporting.read_run import Run
from passk_guard.reporting.record import Record


def summary(run: Run) -> dict[str, Any]:
    """The run in figures, fit for JSON.

    ``verdict`` is ``"conflict"`` (open at the last look), ``"cleared"`` (there was one),
    ``"falling"`` (probably, but not beyond the doubt that an alarm needs), ``"healthy"``,
    ``"no signal"``, ``"lost"`` (no probe came through) or ``"empty"`` (none was
    taken yet); ``sentence`` says it in words. A value that is not known is ``None``.
    """
    looks, probes = run.looks, run.probes
    last = looks[-1] if looks else {}
    probe = probes[-1] if probes else {}
    verdict, sentence = _verdict(run)
    sentence += _drifted(run) + _mismatched(run)
    config = run.start.get("config", {})
    return {
        "run": str(run.path.parent),
        "trainer": run.start.get("trainer"),
        "verdict": verdict,
        "sentence": sentence,
        "state": "ended" if run.end else "running, or killed",
        "step": run.step,
        "total_steps": run.start.get("total_steps"),
        "probes": len(probes),
        "rescores": len(looks) - len(probes),
        "lost": [{"step": r["step"], "reason": r["reason"]} for r in run.lost],
        "pass_at_1": {
            "start": _start(last),
            "now": last.get("track"),
            **{end: last.get(f"track_{end}") for end in ("low", "high")},
            **{name: last.get(name) for name in ("change", "change_low", "change_high")},
        },
        "groups": {
            key.removeprefix("track/"): {
                "now": value,
                "change": last.get(f"change/{key.removeprefix('track/')}"),
            }
            for key, value in last.items()
            if key.startswith("track/")
        },
        "pass_at_k": {
            "k": config.get("k"),
            "start": probes[0].get("pass_at_k") if probes else None,
            "now": probe.get("pass_at_k"),
            **{end: probe.get(f"pass_at_k_{end}") for end in ("low", "high")},
        },
        "pace": {
            "now": last.get("pace"),
            **{end: last.get(f"pace_{end}") for end in ("low", "high")},
        },
        "cosine": {
            "now": probe.get("cosine"),
            **{end: probe.get(f"cosine_{end}") for end in ("low", "high")},
            "z": probe.get("z"),
        },
        "objective": {name: probe.get(name) for name in ("k", "pass1_weight")},
        "overhead": (run.end or last).get("overhead"),
        "alarms": [
            {name: look[name] for name in ("step", "fired", "message")} for look in run.alarms
        ],
        "conflict": run.conflict,
        "turnover": run.turnover,
        "config": config,
    }


def _start(last: Record) -> float | None:
    return None if not last else float(last["track"] - last["change"])


def _verdict(run: Run) -> tuple[str, str]:
    if not run.looks:
        if run.lost:
            return "lost", f"No probe came through: {len(run.lost)} lost, see why below."
        return "empty", "Nothing has been measured yet."
    last, alarms = run.looks[-1], run.alarms
    states = run.probes[-1]["states"] if run.probes else []
    if last["open"]:
        what = _what(last, run.probes[-1].get("z") if run.probes else None)
        said = f"{what}, since step {_since(run)}. {_change(last)}{_remedy(run)}"
        return "conflict", said
    if alarms:
        steps = ", ".join(str(look["step"]) for look in alarms)
        at = f"alarm{'s' * (len(alarms) > 1)} at step {steps}"
        said = f"There was a conflict ({at}); it has cleared. {_change(last)}{_remedy(run)}"
        return "cleared", said
    if NamedState.VANISHING_SIGNAL in states:
        share, cut = (run.probes[-1].get(key) or 0.0 for key in ("no_signal", "truncated"))
        said = f"No signal: {share:.0%} of the prompts are solved never or always."
        if cut > 0.5:
            said += f" {cut:.0%} of the rollouts were cut at the length limit."
        return "no signal", said
    if last["change_high"] < -run.start.get("config", {}).get("pass1_tolerance", 0.0):
        return "falling", f"No alarm yet, but pass@1 has probably fallen. {_change(last)}"
    count = f"{len(run.looks)} look{'s' if len(run.looks) > 1 else ''}"
    by_itself = (NamedState.VERIFIER_DRIFT, NamedState.INFERENCE_MISMATCH)
    told = [state for state in states if state not in by_itself]
    also = "".join(f" But note: {state}." for state in told)
    return "healthy", f"No conflict in {count}. {_change(last)}{also}"


def _drifted(run: Run) -> str:
    """Whatever else is said of pass@1 rests on a verifier that has changed."""
    probe = run.probes[-1] if run.probes else {"states": []}
    if NamedState.VERIFIER_DRIFT not in probe["states"]:
        return ""
    found = probe.get("verifier")
    if found is None:
        return " But the verifier has changed."
    return (
        f" But the verifier has changed, at step {found['since']} or so: "
        f"{found['disagreement']:.1%} of its verdicts on the same rollouts are other ones "
        f"({found['baseline']:.1%} before), which by itself moves pass@1 by "
        f"{100 * found['points']:+z.1f} points."
    )


def _mismatched(run: Run) -> str:
    """Whatever is said of pass@1 is of the engine's."""
    probe = run.probes[-1] if run.probes else {"states": []}
    if NamedState.INFERENCE_MISMATCH not in probe["states"]:
        return ""
    apart = (
        "" if "inference_kl" not in probe else f", {probe['inference_kl']:.3g} nats per token apart"
    )
    return (
        f" But the engine samples from another distribution than the model that is trained{apart}."
    )


def _kinds(look: Record) -> list[AlarmKind]:
    """The alarms that are open, the most telling first."""
    leading = dict.fromkeys(look["leading"], True)
    kinds = [AlarmKind.read(text, leading) for text in look["open"]]
    return sorted(kinds, key=lambda kind: (not kind.leading, kind.group is not None))


def _what(last: Record, z: float | None) -> str:
    kinds, cause = _kinds(last), Cause(last.get("cause") or Cause.OPPOSED)  # older ones name none
    first = kinds[0]
    if first.leading or (cause is Cause.FALLING and first.group is None):
        return cause_in_words(cause, z, last.get("pace"), last["change"]).capitalize()
    if first.detector not in DEFAULT_DETECTORS:
        return f"The alarm {first!r} is open"
    if first.group is None:  # the update may have turned already
        return "Pass@1 is below its floor"
    groups = ", ".join(str(kind.group) for kind in kinds)
    return f"Pass@1 of {groups} is below its floor"


def _change(last: Record) -> str:
    low, change, high = (100 * last[name] for name in ("change_low", "change", "change_high"))
    return (
        f"Pass@1 of the pool has changed by {change:+z.1f} points since the start "
        f"(95 %: {low:+z.1f} to {high:+z.1f})."
    )


def _remedy(run: Run) -> str:
    """What the guard does about it, if it does."""
    if not run.probes:
        return ""
    k, weight = run.probes[-1]["k"], run.probes[-1]["pass1_weight"]
    target = run.start.get("config", {}).get("k", k)
    if weight:
        shown = apart(weight, 0, digits=2)[0]
        return f" The guard acts: λ, the share of pass@1 in the objective, is {shown}."
    if k < target:
        return f" The guard acts: the objective's k is {apart(k, target)[0]} instead of {target}."
    return ""


def _since(run: Run) -> int:
    """The first look at which what is said of the last one was so already."""
    last = run.looks[-1]
    first = _kinds(last)[0]
    step: int = last["step"]
    for look in reversed(run.looks):
        if not (look["open"] if first.group is not None else first in look["open"]):
            break
        step = look["step"]
    return step
