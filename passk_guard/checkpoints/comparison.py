"""Did pass@k change from one checkpoint to another, and on which prompts: from counts alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from passk_guard.checkpoints.pairing import Pairs, pair
from passk_guard.counts.counts import Counts
from passk_guard.statistics.common_rollouts import CommonRollouts
from passk_guard.statistics.lost_prompts import changed_prompts
from passk_guard.statistics.paired_counts import PassChange, default_ks, paired_changes


@dataclass(frozen=True)
class GroupChange:
    """The change within a group of prompts. Every interval holds by itself, not all together.

    Attributes:
        name: of the group.
        prompts: in it, that are in both files.
        changes: for k = 1, 2, 4, ... as far as some prompt of the group has k rollouts.
    """

    name: str
    prompts: int
    changes: tuple[PassChange, ...]


@dataclass(frozen=True)
class ChangedPrompt:
    """A prompt that was surely lost or won.

    Attributes:
        id: of the prompt.
        before: right rollouts in the first file.
        n_before: rollouts in the first file.
        after: right rollouts in the second file.
        n_after: rollouts in the second file.
        group: that it belongs to, where there are groups.
        text: of the prompt, where a file has it.
    """

    id: str
    before: int
    n_before: int
    after: int
    n_after: int
    group: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Two checkpoints on the same prompts; a change is that from ``a`` to ``b``.

    Attributes:
        a: name of the first.
        b: name of the second.
        prompts: that are in both.
        only_in_a: prompts left out because the second does not have them.
        only_in_b: likewise.
        changes: one for each k, k = 1 first.
        groups: the change in each group; empty where there are none.
        lost: prompts whose pass@1 surely fell by more than ``margin``, the surest first.
        won: prompts whose pass@1 surely rose by more, likewise.
        seemed_lost: prompts whose observed pass@1 fell by more than ``margin``.
        seemed_won: likewise.
        nameable: prompts with rollouts enough to be named as lost or won.
        margin: change of a prompt's pass@1 that does not count.
        false_discovery: share of the lost that may be wrong on average, and of the won.
        tolerance: fall of pass@1 that is accepted.
        decision: 0 where the lower end of the change of pass@1 is above ``-tolerance``, 1 where the
            upper end is below it, 2 where neither is.
        needed: prompts with such a spread that would decide four times in five if nothing had
            changed; ``None`` where no number can be told.
        sentence: the decision, for people.
        remarks: sentences on what was left out, and what to bear in mind.
        common: the change of pass@1 on rollouts that both score, where both are models.
    """

    a: str
    b: str
    prompts: int
    only_in_a: int
    only_in_b: int
    changes: tuple[PassChange, ...]
    groups: tuple[GroupChange, ...]
    lost: tuple[ChangedPrompt, ...] = field(repr=False)
    won: tuple[ChangedPrompt, ...] = field(repr=False)
    seemed_lost: int
    seemed_won: int
    nameable: int
    margin: float
    false_discovery: float
    tolerance: float
    decision: int
    needed: int | None
    sentence: str
    remarks: tuple[str, ...] = field(repr=False)
    common: CommonRollouts | None = None

    @property
    def pass_at_1(self) -> PassChange:
        """The change of pass@1, on which the decision rests."""
        return self.changes[0]

    def record(self) -> dict[str, Any]:
        """Everything, ready for JSON: an infinite smallest visible change becomes ``None``."""
        return {key: _plain(value) for key, value in asdict(self).items()}

    def figure(self) -> Any:
        """Pass@k of both, and its change, side by side: a ``matplotlib`` figure."""
        from passk_guard.reporting.comparison_page import comparison_figure

        return comparison_figure(self.record())

    def page(self) -> str:
        """All of it as one HTML page that needs no network; needs jinja2 and matplotlib."""
        from passk_guard.reporting.comparison_page import comparison_page

        return comparison_page(self.record())

    def __str__(self) -> str:
        return self.sentence


def compare_counts(
    a: Counts,
    b: Counts,
    *,
    ks: Iterable[int] | None = None,
    tolerance: float = 0.01,
    margin: float = 0.1,
    false_discovery: float = 0.05,
) -> Comparison:
    """Compare two checkpoints, prompt by prompt.

    Args:
        a: counts before, or of the one to compare with.
        b: counts after.
        ks: tries to report pass@k for; k = 1 is always there. By default every k up to 64 that half
            of the prompts have rollouts for in both, then powers of two.
        tolerance: fall of pass@1 that is accepted, from 0 and below 1.
        margin: change of a prompt's pass@1 that does not make it lost or won.
        false_discovery: share of the prompts named as lost that may be wrong on average, and of
            those named as won.

    Raises:
        ValueError: no prompt is in both, counts are not counts, no prompt has k rollouts, or a
            setting is out of range.

    >>> from passk_guard.counts.counts import PromptCount, gather
    >>> a = gather("a", [PromptCount(str(i), 8, 16) for i in range(512)])
    >>> b = gather("b", [PromptCount(str(i), 8 * (i > 99), 16) for i in range(512)])
    >>> found = compare_counts(a, b)
    >>> found.decision, len(found.lost)
    (1, 100)
    """
    if not 0 <= tolerance < 1:
        raise ValueError(
            f"tolerance must lie from 0 up to but not at 1, got {tolerance!r}. .01 is one point."
        )
    pairs = pair(a, b)
    counts = (pairs.before, pairs.n_before, pairs.after, pairs.n_after)
    chosen = _ks(ks, pairs)
    changes = paired_changes(*counts, chosen)
    changed = changed_prompts(*counts, margin=margin, false_discovery=false_discovery)
    decision = decision_code(changes[0].low, changes[0].high, tolerance)
    needed = _needed(changes[0], tolerance)
    texts = {**b.texts, **a.texts}
    return Comparison(
        a=a.name,
        b=b.name,
        prompts=len(pairs.ids),
        only_in_a=pairs.only_in_a,
        only_in_b=pairs.only_in_b,
        changes=changes,
        groups=_groups(pairs, chosen),
        lost=tuple(_changed(pairs, i, texts) for i in changed.lost),
        won=tuple(_changed(pairs, i, texts) for i in changed.won),
        seemed_lost=changed.fell,
        seemed_won=changed.rose,
        nameable=changed.nameable,
        margin=margin,
        false_discovery=false_discovery,
        tolerance=tolerance,
        decision=decision,
        needed=needed,
        sentence=decision_sentence(decision, changes[0], a.name, b.name, tolerance, needed),
        remarks=(*pairs.remarks, *_too_few_rollouts(len(pairs.ids), changed.nameable)),
    )


def decision_sentence(
    code: int, change: PassChange, a: str, b: str, tolerance: float, needed: int | None
) -> str:
    """The decision on a change of pass@1, for people.

    Args:
        code: see :func:`decision_code`.
        change: of pass@1.
        a: name of the checkpoint before.
        b: name of the checkpoint after.
        tolerance: fall that is accepted.
        needed: prompts that would decide, where known.
    """
    accepted = in_points(tolerance)
    hint = ""
    if code == 0:
        if change.low > 0:
            said = "pass@1 rose"
        elif change.high < 0:
            said = f"pass@1 fell, but by less than the {accepted} that are accepted"
        else:
            said = f"pass@1 did not fall by {accepted} or more"
    elif code == 1:
        said = f"pass@1 fell by more than {accepted}" if tolerance else "pass@1 fell"
    else:
        said = "Not enough data to tell whether pass@1 fell"
        if tolerance and change.high < 0:
            said = f"pass@1 fell, but not enough data to tell whether by {accepted}"
        elif tolerance:
            said += f" by {accepted}"
        hint = f" Had nothing changed, {needed:,} such prompts would tell." if needed else ""
    return (
        f"{said}: {_share(change.before)} in {a}, {_share(change.after)} in {b}, a change of "
        f"{100 * change.change:+.1f} points (95 %: {100 * change.low:+.1f} to "
        f"{100 * change.high:+.1f}) on {change.prompts:,} prompts.{hint}"
    )


def _needed(change: PassChange, tolerance: float) -> int | None:
    """What is visible shrinks with the root of the number of prompts; with the number, at most."""
    if not tolerance or not math.isfinite(change.visible):
        return None
    times = change.visible / tolerance
    return math.ceil(change.prompts * max(times, times**2))


def decision_code(low: float, high: float, tolerance: float) -> int:
    """0: pass@1 did not fall by more than the tolerance; 1: it did; 2: the data do not tell.

    >>> decision_code(-0.004, 0.004, 0.01), decision_code(-0.03, -0.02, 0.01)
    (0, 1)
    """
    if low > -tolerance:
        return 0
    return 1 if high < -tolerance else 2


def in_points(share: float) -> str:
    """A share as it is said.

    >>> in_points(0.01)
    '1 point'
    """
    return f"{100 * share:g} point{'' if share == 0.01 else 's'}"


def _share(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _ks(ks: Iterable[int] | None, pairs: Pairs) -> tuple[int, ...]:
    if ks is None:
        return default_ks(np.minimum(pairs.n_before, pairs.n_after))
    asked = list(ks)
    if odd := [k for k in asked if isinstance(k, bool) or int(k) != k or k < 1]:
        raise ValueError(f"ks must hold whole numbers of tries, at least 1, got {odd[0]!r}.")
    return tuple(sorted({1, *map(int, asked)}))


def _groups(pairs: Pairs, ks: tuple[int, ...]) -> tuple[GroupChange, ...]:
    if pairs.groups is None:
        return ()
    powers = [k for k in ks if k & (k - 1) == 0]
    names = np.array(pairs.groups)
    fewest = np.minimum(pairs.n_before, pairs.n_after)
    found = []
    for name in dict.fromkeys(pairs.groups):
        at = names == name
        four = (pairs.before[at], pairs.n_before[at], pairs.after[at], pairs.n_after[at])
        within = [k for k in powers if k <= fewest[at].max()]
        found.append(GroupChange(name, int(at.sum()), paired_changes(*four, within)))
    return tuple(sorted(found, key=lambda group: group.name))


def _changed(pairs: Pairs, i: int, texts: dict[str, str]) -> ChangedPrompt:
    return ChangedPrompt(
        id=pairs.ids[i],
        before=int(pairs.before[i]),
        n_before=int(pairs.n_before[i]),
        after=int(pairs.after[i]),
        n_after=int(pairs.n_after[i]),
        group=pairs.groups[i] if pairs.groups else None,
        text=texts.get(pairs.ids[i]),
    )


def _too_few_rollouts(prompts: int, nameable: int) -> list[str]:
    if nameable == prompts:
        return []
    who = "No prompt has" if not nameable else f"Only {nameable:,} of {prompts:,} prompts have"
    return [f"{who} rollouts enough to be named as surely lost or won; intervals do not need them."]


def _plain(value: Any) -> Any:
    """Lists for tuples, ``None`` for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
