"""Verifies the same rollouts again at each probe, to see whether the verifier is still the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from passk_guard.detection.verifier_drift import Recheck, VerifierDrift, verifier_drift
from passk_guard.errors import reason_of, survived, warn
from passk_guard.rollouts.group import RolloutGroup
from passk_guard.rollouts.policy import Policy
from passk_guard.rollouts.verified_again import FixedRollout, fixed_rollouts
from passk_guard.runtime.processes import world

_MOST = 128
_SHARE = 8


class VerifierCheck:
    """Keeps rollouts of the first look, and compares their verdicts with the first ones.

    At most 128 rollouts, and no more than an eighth of what a probe verifies: of a verifier that
    comes to give 5 % other verdicts, 128 show six at every look, which is sure after two or three.
    Verified a second time at once, they tell how often the verifier disagrees with itself.

    It needs a policy that gives completions and has ``verify_again(rows, completions,
    completion_ids)``; with another one it does nothing. A verifier that raises here costs this
    check of this look, and nothing else of the probe.

    Args:
        policy: verifies.
        rows: the held-out pool.
        strict: raise what fails.
    """

    def __init__(self, policy: Policy, rows: Sequence[Mapping[str, Any]], strict: bool) -> None:
        self._policy, self._rows, self._strict = policy, rows, strict
        self._rollouts: tuple[FixedRollout, ...] = ()
        self._looks: list[Recheck] = []
        self._told = False

    def look(self, step: int, groups: Sequence[RolloutGroup]) -> VerifierDrift | None:
        """Verify the fixed rollouts again; at the first look choose them.

        Args:
            step: optimizer steps done.
            groups: just verified, with their completions.

        Returns:
            ``None`` where nothing can be said.
        """
        if getattr(self._policy, "verify_again", None) is None:
            return None
        if not self._rollouts:
            total = sum(group.n for group in groups)
            self._rollouts = fixed_rollouts(groups, min(_MOST, total // _SHARE))
        now = None
        if self._rollouts:
            with survived(self._strict, self._failed):
                now = self._verify(step)
                self._told = False
        if now is None:
            return None
        self._looks.append(now)
        return verifier_drift(self._looks)

    def _verify(self, step: int) -> Recheck:
        fixed = self._rollouts
        verdicts = self._policy.verify_again(  # type: ignore[attr-defined]
            [self._rows[one.row] for one in fixed],
            [one.completion for one in fixed],
            [list(one.completion_ids) for one in fixed],
        )
        pairs = [(one.right, bool(v)) for one, v in zip(fixed, verdicts, strict=True) if v == v]
        return Recheck(
            step,
            rollouts=len(pairs),
            lost=sum(was and not now for was, now in pairs),
            won=sum(now and not was for was, now in pairs),
        )

    def _failed(self, error: Exception) -> None:
        if not self._told and world()[0] == 0:
            warn(
                f"the verifier could not be checked ({reason_of(error)}): verifying "
                f"{len(self._rollouts)} fixed rollouts again failed. The probe holds all the same."
            )
        self._told = True

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on after a resume."""
        return {
            "rollouts": [dict(vars(one)) for one in self._rollouts],
            "rechecks": [dict(vars(look)) for look in self._looks],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        self._rollouts = tuple(FixedRollout(**one) for one in state["rollouts"])
        self._looks = [Recheck(**look) for look in state["rechecks"]]
