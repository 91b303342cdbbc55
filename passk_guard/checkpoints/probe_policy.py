"""Would pass@k training hurt pass@1 on this model and these prompts? One reading of a policy."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from passk_guard.checkpoints.arguments import (
    FEWEST,
    check_policy,
    check_probe,
    check_run,
    checked_verifier,
    policy_name,
)
from passk_guard.checkpoints.held_out_run import HeldOutRun
from passk_guard.gradients.accumulators import DEFAULT_MEMORY_LIMIT
from passk_guard.gradients.engine import EngineSettings, make_engine
from passk_guard.gradients.parameters import ParameterFilter, select_parameters
from passk_guard.prompts.rows import rows_from
from passk_guard.reporting.policy_record import policy_record, policy_sentence
from passk_guard.reporting.progress_bar import shown
from passk_guard.rollouts.batching import PassSize
from passk_guard.rollouts.group import RolloutGroup, counts, reward_range, truncation
from passk_guard.rollouts.policy import Policy
from passk_guard.rollouts.sampling import usable_groups
from passk_guard.runtime.progress import Progress
from passk_guard.statistics.policy_reading import PolicyReading, has_signal, read_policy
from passk_guard.statistics.sign_test import chance_of_look, look_sizes


@dataclass(frozen=True)
class PolicyProbe:
    """A policy, read on held-out prompts.

    Attributes:
        reading: what was found: verdict, pass@k, alignment, groups.
        name: of the policy.
        settings: how it was read.
        rows: the held-out prompts; ``reading.row_ids`` are places in it.
        prompt_ids: of the prompts that were read.
        remarks: sentences on what to know beside the verdict.
        looks: at how many prompts this round looked, the last of them being this.
        gradients: how they were taken.
        seconds: of this round: ``sampling`` (and verifying), ``gradients``.
        journal: file that every batch went to; ``None`` where there was none.
    """

    reading: PolicyReading
    name: str
    settings: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]] = field(repr=False)
    prompt_ids: tuple[str, ...] = field(repr=False)
    remarks: tuple[str, ...]
    looks: tuple[int, ...]
    gradients: str
    seconds: Mapping[str, float]
    journal: Path | None

    @property
    def sentence(self) -> str:
        """The verdict, how sure it is, and what would settle it."""
        return policy_sentence(self.reading)

    def record(self, log_prompts: bool = False) -> dict[str, Any]:
        """All of it as plain values, for JSON.

        Args:
            log_prompts: quote prompts by their text; else by row.
        """
        return {
            "name": self.name,
            "sentence": self.sentence,
            **policy_record(self.reading, self.rows if log_prompts else None),
            "settings": dict(self.settings),
            "remarks": list(self.remarks),
            "looks": list(self.looks),
            "gradients": self.gradients,
            "seconds": dict(self.seconds),
            "journal": None if self.journal is None else str(self.journal),
        }

    def figure(self) -> Any:
        """Pass@k and the alignment curve, side by side: a ``matplotlib`` figure."""
        from passk_guard.reporting.policy_page import policy_figure

        return policy_figure(self.record())

    def page(self, log_prompts: bool = False) -> str:
        """The whole reading as one HTML page that needs no network; needs jinja2, matplotlib.

        Args:
            log_prompts: quote prompts by their text; else by row.
        """
        from passk_guard.reporting.policy_page import policy_page

        return policy_page(self.record(log_prompts))

    def __str__(self) -> str:
        return self.sentence


def probe_policy(
    policy: Policy,
    prompts: Any,
    verifier: Callable[..., Any] | None = None,
    *,
    k: int = 8,
    num_generations: int | None = None,
    num_prompts: int = 512,
    prompts_at_once: int = 64,
    success_threshold: float = 0.5,
    group_by: str | None = None,
    early_stop: bool = False,
    chance: float = 0.05,
    seed: int = 0,
    journal: str | Path | None = None,
    log_prompts: bool = False,
    name: str | None = None,
    engine: str = "auto",
    parameters: ParameterFilter = None,
    micro_batch: int | None = None,
    memory_limit: float = DEFAULT_MEMORY_LIMIT,
    verifier_timeout: float = 300.0,
    progress: Progress | None = None,
) -> PolicyProbe:
    """Sample, verify and differentiate a policy on held-out prompts; nothing is trained.

    Would a step on the pass@k objective lower pass@1 on prompts like these? Everything comes from
    the same rollouts: pass@k for every k, the alignment of every pass@k gradient with that of
    pass@1, and which prompts pull against each other. The policy is left as it was::

        from passk_guard import HFPolicy, probe_policy

        found = probe_policy(HFPolicy(model, tokenizer), "held_out.jsonl", verify, k=8)
        print(found)         # the verdict in a sentence
        found.figure()       # in a notebook
        found.reading.curve  # alignment for k = 1 to n-1

    Args:
        policy: samples and scores, such as :class:`~passk_guard.HFPolicy`.
        prompts: held-out rows: strings, chats, dict rows, a dataset, a DataFrame or the path of a
            ``.jsonl`` file.
        verifier: ``f(prompts, completions, **columns) -> list of scores``, as in TRL; ``None``
            where the policy verifies by itself.
        k: of the objective that you think of training for.
        num_generations: rollouts per prompt; 2k by default, and more than k.
        num_prompts: prompts to read at most.
        prompts_at_once: prompts per batch.
        success_threshold: score from which a rollout is right.
        group_by: a column: all of it for each group, too.
        early_stop: look after an eighth, a quarter ... of the prompts (128 at least), and stop once
            the sign is sure.
        chance: of ever being sure of the wrong sign, over all looks and continued rounds together.
        seed: of the order of the prompts, and of sampling.
        journal: a file to which every batch is appended. Where it holds some of this probe already,
            those are taken from it: an interrupted probe goes on, and one of few prompts can be
            continued with more.
        log_prompts: write the prompts' texts into the journal.
        name: of the policy; by default the model's.
        engine: that takes gradients, see :mod:`passk_guard.gradients`.
        parameters: to differentiate by: a regular expression or ``f(name, parameter)``.
        micro_batch: rollouts per forward and backward; by default as many as memory allows, up to
            16 384 tokens.
        memory_limit: bytes that gradients may take before they are sketched.
        verifier_timeout: seconds after which a hanging verifier is reported.
        progress: told where it stands; by default a bar where a terminal or a notebook shows one.

    Raises:
        ValueError: an argument is unusable, or the journal is another probe's.
        ProbeError: verifier or policy gave what cannot be used; the journal keeps what was sampled.
    """
    if torch.is_inference_mode_enabled():
        raise ValueError("probe_policy takes gradients: call it outside torch.inference_mode().")
    n = check_probe(k, num_generations, num_prompts, chance)
    check_run(prompts_at_once, success_threshold, group_by, seed, micro_batch)
    check_policy(policy, verifier)
    rows = rows_from(prompts)
    verifier = checked_verifier(verifier, rows[0])
    with shown(progress) as tell:
        run = HeldOutRun(
            policy,
            verifier,
            rows,
            n=n,
            at_once=prompts_at_once,
            threshold=success_threshold,
            timeout=verifier_timeout,
            group_by=group_by,
            seed=seed,
            journal=None if journal is None else Path(journal),
            log_prompts=log_prompts,
            progress=tell,
        )
        if run.available < FEWEST:
            raise ValueError(
                f"prompts must be at least {FEWEST}, got {run.available} that can be sampled. Best "
                "are 512 or more."
            )
        if not hasattr(run.policy, "gramian"):
            select_parameters(run.policy.parameters(), parameters)
        passes = PassSize(micro_batch)
        settings = EngineSettings(parameters, passes, memory_limit, num_prompts, None, tell)
        made = make_engine(run.policy, engine, settings)
        found = _look(run, made, k, num_prompts, early_stop, chance)
    reading, looks, seconds = found
    if passes.said:
        run.remarks.append(f"Gradients were taken{passes.said}, as memory allows.")
    used = {
        "k": k,
        "num_generations": n,
        "num_prompts": num_prompts,
        "success_threshold": success_threshold,
        "group_by": group_by,
        "early_stop": early_stop,
        "chance": chance,
        "seed": seed,
        **getattr(policy, "settings", {}),
    }
    probe = PolicyProbe(
        reading=reading,
        name=name or policy_name(policy),
        settings=used,
        rows=rows,
        prompt_ids=tuple(map(run.prompt_id, reading.row_ids)),
        remarks=tuple(run.remarks),
        looks=looks,
        gradients=str(getattr(made, "said", "")) if reading.gramian is not None else "",
        seconds=seconds,
        journal=None if journal is None else Path(journal),
    )
    run.journal.add_reading(probe.record(log_prompts))
    return probe


def _look(
    run: HeldOutRun, engine: Any, k: int, prompts: int, early_stop: bool, chance: float
) -> tuple[PolicyReading, tuple[int, ...], dict[str, float]]:
    """Sample, and look once, or more often until the sign is sure."""
    round_ = _round(run, prompts, early_stop)
    available = min(prompts, run.available)
    sizes = look_sizes(available, run.at_once) if early_stop else [available]
    seconds, seen = {"sampling": 0.0, "gradients": 0.0}, []
    for look, size in enumerate(sizes, start=1):
        if size < len(run.groups) and look < len(sizes):
            continue  # looked at before
        began = time.perf_counter()
        groups = run.sample_upto(size)
        sampled = time.perf_counter()
        usable = usable_groups(groups, k)
        correct, n = (np.array(values) for values in counts(usable))
        gramian = None
        if has_signal(correct, n):
            gramian = _gramian(run, engine, usable, look)
        seconds["sampling"] += sampled - began
        seconds["gradients"] += time.perf_counter() - sampled
        seen.append(size)
        reading = read_policy(
            correct,
            n,
            k,
            gramian=gramian,
            chance=chance_of_look(chance, round_, look, len(sizes)),
            row_ids=[group.row for group in usable],
            labels=run.labels(usable),
            rewards=reward_range(groups),
            truncation=truncation(groups),
        )
        if reading.test is not None and reading.test.sure:
            break
    return reading, tuple(seen), seconds


def _round(run: HeldOutRun, prompts: int, early_stop: bool) -> int:
    """The first reading of so many prompts is a round; another of the same ones is no new look."""
    rounds: dict[Any, int] = {}
    for record in run.journal.readings:
        used = record.get("settings", {})
        key = used.get("num_prompts"), used.get("early_stop")
        rounds.setdefault(key, len(rounds) + 1)
    return rounds.get((prompts, early_stop), len(rounds) + 1)


def _gramian(
    run: HeldOutRun, engine: Any, groups: Sequence[RolloutGroup], look: int
) -> np.ndarray | None:
    with run.isolated(2, look), torch.enable_grad():  # an evaluation may be under no_grad
        found = engine.gramian(groups, (run.seed, look))
    return None if found is None else np.asarray(found.double().numpy())
