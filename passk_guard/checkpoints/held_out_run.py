"""Verified rollouts of held-out prompts, batch by batch, none of them lost."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from passk_guard.checkpoints.probe_journal import ProbeJournal
from passk_guard.errors import ProbeError
from passk_guard.prompts.identity import fingerprint, prompt_ids, prompt_text
from passk_guard.prompts.pool import HeldOutPool, row_labels
from passk_guard.rollouts.group import RolloutGroup
from passk_guard.rollouts.policy import Policy
from passk_guard.rollouts.sampling import FitRows
from passk_guard.rollouts.verified_again import without_completions
from passk_guard.rollouts.verified_policy import VerifiedPolicy
from passk_guard.rollouts.verifier import verifier_name
from passk_guard.runtime.isolation import isolated, kept_modes
from passk_guard.runtime.processes import everywhere, world
from passk_guard.runtime.progress import Progress
from passk_guard.runtime.sharding import runs_together

SAMPLING = "sampling and verifying"
_OF_EACH = 64  # values of a parameter that its fingerprint reads


class HeldOutRun:
    """Samples a policy on rows in an order that the seed fixes, and goes on where it stopped.

    Every batch has random numbers of its own, so that a run that was interrupted and goes on in
    batches of the same size gives what it would have given. The model is left as it was found.

    Attributes:
        policy: verified.
        journal: what was sampled and read, by this run and those before.
        remarks: sentences on what was found on the way.

    Raises:
        ValueError: the journal is another probe's, or the policy cannot sample these rows.
    """

    def __init__(
        self,
        policy: Policy,
        verifier: Any,
        rows: Sequence[Mapping[str, Any]],
        *,
        n: int,
        at_once: int,
        threshold: float,
        timeout: float,
        group_by: str | None,
        seed: int,
        journal: Path | None,
        log_prompts: bool,
        progress: Progress,
    ) -> None:
        self.rows, self._n, self.at_once, self.seed = rows, n, at_once, seed
        self._progress, self._log_prompts = progress, log_prompts
        self._labels = None if group_by is None else row_labels(rows, group_by)
        self._ids = prompt_ids(rows)
        model = getattr(policy, "model", None)
        module = model if isinstance(model, nn.Module) else None
        self._kept = _as_module(policy) if module is None else module
        own: Any = policy
        self._own = own if isinstance(own, nn.Module) else None
        self.policy = VerifiedPolicy(policy, verifier, threshold, timeout=timeout, module=module)
        pool = HeldOutPool(rows, seed)
        with self.isolated(0):
            fit = FitRows(self.policy, pool, at_once, "prompts")
            self._order = fit(pool.draw(len(pool)))
        settings = {
            "weights": weights_fingerprint(policy),
            "prompts": pool.fingerprint,
            "verifier": "the policy's own" if verifier is None else verifier_name(verifier),
            "verifier_code": None if verifier is None else _code_hash(verifier),
            "n": n,
            "success_threshold": threshold,
            "prompts_at_once": at_once,
            "seed": seed,
            **getattr(policy, "settings", {}),
        }
        self.journal = _opened(journal, settings)
        self.remarks = self._remarks(journal)

    @property
    def groups(self) -> list[RolloutGroup]:
        """Rollouts sampled so far, by this run and those before."""
        return self.journal.groups

    @property
    def available(self) -> int:
        """Prompts that can be sampled."""
        return len(self._order)

    def labels(self, groups: Sequence[RolloutGroup]) -> list[str] | None:
        """The group of each prompt."""
        return None if self._labels is None else [self._labels[group.row] for group in groups]

    def prompt_id(self, row: int) -> str:
        """What the prompt is called in files."""
        return self._ids[row]

    @contextmanager
    def isolated(self, *seed: int) -> Iterator[None]:
        """A context with random numbers of its own, which leaves no trace."""
        number = int(np.random.SeedSequence([self.seed, *seed]).generate_state(1)[0])
        with isolated(self._kept, seed=number), kept_modes(self._own):
            if self._own is not None:
                self._own.eval()
            yield

    def sample_upto(self, prompts: int) -> list[RolloutGroup]:
        """The first so many prompts' rollouts, those that are missing sampled now.

        Raises:
            ProbeError: the verifier's or the policy's answer is unusable; batches before are kept.
        """
        wanted = min(prompts, self.available)
        while (done := len(self.groups)) < wanted:
            self._progress(SAMPLING, done, wanted)
            ids = self._order[done : min(done + self.at_once, wanted)]
            with self.isolated(1, done):
                found = self.policy.generate([self.rows[i] for i in ids], ids, self._n)
            if [group.n for group in found] != [self._n] * len(ids):
                raise ProbeError(
                    f"the policy gave groups of {sorted({group.n for group in found})} rollouts, "
                    f"{len(found)} of them, for {len(ids)} prompts x {self._n} asked for"
                )
            if not self.groups and len(ids) > 1 and not any(one.scorable().n for one in found):
                raise ProbeError(
                    f"the first {len(ids) * self._n} rollouts all have no verdict: each score is "
                    "None or NaN. Correct the verifier; nothing of this batch is kept"
                )
            groups = [group.on_cpu() for group in without_completions(found)]
            everywhere(partial(self.journal.add, groups, [self._facts(i) for i in ids]))
        self._progress(SAMPLING, wanted, wanted)
        return self.groups[:wanted]

    def _facts(self, row: int) -> dict[str, Any]:
        facts: dict[str, Any] = {"prompt_id": self._ids[row]}
        if self._labels is not None:
            facts["group"] = self._labels[row]
        if self._log_prompts:
            facts["prompt"] = prompt_text(self.rows[row])
        return facts

    def _remarks(self, journal: Path | None) -> list[str]:
        said = []
        if self.groups:
            said.append(
                f"{journal} holds {len(self.groups)} prompts of this probe already: it "
                "goes on from there."
            )
        if self.journal.dropped:
            said.append(
                f"{self.journal.dropped} prompts of a batch that was cut off are sampled again."
            )
        different = len({fingerprint(row) for row in self.rows})
        if different < 0.99 * len(self.rows):
            said.append(
                f"Of {len(self.rows)} prompts only {different} are different: the same prompt with "
                "the same answer counts as two, and intervals come out too narrow. Drop the "
                "duplicates."
            )
        return said


def _opened(path: Path | None, settings: Mapping[str, Any]) -> ProbeJournal:
    """One process reads and writes the file; all of them know what is in it."""
    rank, _ = world()
    found = everywhere(lambda: ProbeJournal(path if rank == 0 else None, settings))
    journal = found[rank]
    journal.groups, journal.readings = found[0].groups, found[0].readings
    journal.dropped = found[0].dropped
    return journal


def _as_module(policy: Any) -> nn.Module:
    """A module to isolate where the policy shows no model."""
    held = nn.Module()
    named = policy.parameters() if hasattr(policy, "parameters") else ()
    held.own = nn.ParameterList([parameter for _, parameter in named])
    held.parts = nn.ModuleList(policy.children() if isinstance(policy, nn.Module) else ())
    return held


def _code_hash(verifier: Any) -> str | None:
    """Of the text of a function, or of an object's class; ``None`` where there is none."""
    try:
        text = inspect.getsource(verifier if inspect.isroutine(verifier) else type(verifier))
    except (OSError, TypeError):
        return None
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def weights_fingerprint(policy: Any) -> str | None:
    """16 hexadecimal digits from the names, shapes and some values of all parameters.

    ``None`` where there are none to read: a policy without parameters, or with sharded ones, of
    which each process holds others.
    """
    try:
        named = list(policy.parameters())
    except AttributeError:
        return None
    if not named or runs_together(parameter for _, parameter in named):
        return None
    digest = hashlib.sha256()
    for name, parameter in named:
        values = parameter.detach().flatten()
        at = np.linspace(0, len(values) - 1, min(_OF_EACH, len(values)), dtype=np.int64)
        some = values[torch.from_numpy(at).to(values.device)].to("cpu", torch.float32)
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        digest.update(some.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
