"""What the pictures of one probe show, from the probe itself or read back from the run's JSONL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from passk_guard.reporting.pictured import Pictured

_DIGITS = 3  # of what is written; a picture shows less
_MOST = 160  # prompts of a heat map: more are narrower than a pixel is


@dataclass(frozen=True)
class Snapshot:
    """A probe's prompts that have a gradient, hardest first, and the alignment curve.

    Prompts solved never or always have none, and are left out: ``s`` of ``m`` are left. Of more
    than 160 so many are shown, spread evenly from hard to easy.

    Attributes:
        step: optimizer steps done; ``None`` of a checkpoint that is read by itself.
        k: that the objective uses.
        curve: ``(n-1, 3)``: k, z and cosine of the pass@k with the pass@1 gradient; NaN where a
            cosine is not known. ``(0, 3)`` without signal.
        rows: ``(s,)`` ids in the held-out pool.
        pass_rates: ``(s,)`` share of right rollouts, ascending.
        agreement: ``(s,)`` ``⟨g, ∇J_1⟩``, in units of its root mean square.
        weights: ``(s,)`` in force, as multiples of their mean.
        cosines: ``(s, s)`` the interference kernel ``K_ij / √(K_ii K_jj)``.
    """

    step: int | None
    k: float
    curve: np.ndarray
    rows: np.ndarray
    pass_rates: np.ndarray
    agreement: np.ndarray
    weights: np.ndarray
    cosines: np.ndarray

    @classmethod
    def of(cls, probe: Pictured) -> Snapshot:
        """Of a probe; no prompts where it has no signal."""
        curve = [(a.k, a.z, np.nan if a.cosine is None else a.cosine) for a in probe.curve]
        m = probe.prompts
        kernel = np.zeros((m, m)) if probe.gramian is None else np.asarray(probe.gramian, float)
        norms = np.sqrt(np.maximum(np.diag(kernel), 0))
        update = probe.update_alignment
        agreement = np.zeros(m) if update is None else update.agreement
        order = np.argsort(probe.pass_rates, kind="stable")
        order = order[norms[order] > 0] if update is not None else order[:0]
        scales = _root_mean_square(agreement[order]), _mean(probe.weights[order])
        if len(order) > _MOST:
            order = order[np.linspace(0, len(order) - 1, _MOST).round().astype(int)]
        agreement, weights, norms = agreement[order], probe.weights[order], norms[order]
        return cls(
            step=probe.step,
            k=probe.k,
            curve=np.array(curve, dtype=float).reshape(-1, 3),
            rows=np.array(probe.row_ids, dtype=int)[order],
            pass_rates=probe.pass_rates[order],
            agreement=agreement / (scales[0] or 1.0),
            weights=weights / (scales[1] or 1.0),
            cosines=kernel[np.ix_(order, order)] / np.outer(norms, norms),
        )

    def record(self) -> dict[str, Any]:
        """For JSON: rounded, of the symmetric kernel what lies below the diagonal."""
        return {
            "curve": [[int(k), _rounded(z), _rounded(cosine)] for k, z, cosine in self.curve],
            "rows": self.rows.tolist(),
            **{name: self._list(name) for name in ("pass_rates", "agreement", "weights")},
            "cosines": [
                [round(float(c), 2) for c in row[:i]] for i, row in enumerate(self.cosines)
            ],
        }

    def _list(self, name: str) -> list[float | None]:
        return [_rounded(value) for value in getattr(self, name)]

    @classmethod
    def read(cls, step: int | None, k: float, record: Mapping[str, Any]) -> Snapshot:
        """From what :meth:`record` gave."""
        rows = record["cosines"]
        cosines = np.eye(len(rows))
        for i, row in enumerate(rows):
            cosines[i, :i] = cosines[:i, i] = row
        curve = np.array(record["curve"], dtype=float).reshape(-1, 3)
        per_prompt = {
            name: np.array(record[name], dtype=float)
            for name in ("pass_rates", "agreement", "weights")
        }
        rows = np.array(record["rows"], dtype=int)
        return cls(step=step, k=k, curve=curve, rows=rows, cosines=cosines, **per_prompt)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else 0.0


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(_mean(values**2)))


def _rounded(value: float) -> float | None:
    return round(float(value), _DIGITS) if np.isfinite(value) else None
