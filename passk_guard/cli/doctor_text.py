"""What ``passk-guard doctor`` prints."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from passk_guard.cli.identity import Verdict
from passk_guard.cli.support import Support
from passk_guard.cli.tables import print_line, print_table, signed
from passk_guard.cli.tiny_runs import STEPS
from passk_guard.cli.versions import Package

__all__ = [
    "announce_identity",
    "show_conclusion",
    "show_identity",
    "show_trainers",
    "show_versions",
]

_TONES = {
    **dict.fromkeys(("ok", "identical", "acts"), "good"),
    **dict.fromkeys(("too old", "DIFFERENT", "failed"), "bad"),
    **dict.fromkeys(("too new", "unknown", "cannot tell"), "doubtful"),
}
_WORDS = {"too new": "too new: untested", "unknown": "supported range unknown"}


def show_versions(versions: Sequence[Package], devices: Sequence[str]) -> None:
    """First part."""
    rows = []
    for package in versions:
        tone = _TONES.get(package.mark, "")
        words = _WORDS.get(package.mark, package.mark)
        supported = "" if package.supported is None else package.supported or "any"
        rows.append([package.name, package.installed or "", supported, signed(tone, words)])
    _title("Versions")
    print_table(["package", "installed", "supported", ""], rows)
    print_line()
    _wrap("Accelerator: " + (_counted(devices) or "none, training runs on the CPU"))
    if any(package.mark == "unknown" for package in versions):
        _wrap(
            "passk-guard runs from a folder without being installed, so the releases that it "
            "supports are unknown. To install it: pip install . in its folder, or pip install "
            "'.[all]' for every trainer."
        )
    else:
        for mend in dict.fromkeys(p.mend for p in versions if p.mark == "not installed"):
            names = ", ".join(p.name for p in versions if p.mend == mend)
            print_line(f"To add {names}: {mend}")


def show_trainers(trainers: Sequence[Support], writers: Sequence[str]) -> None:
    """Second part."""
    alike: dict[str, list[str]] = {}
    for trainer in trainers:
        tone = "good" if trainer.usable else "bad" if trainer.installed else ""
        alike.setdefault(signed(tone, _abilities(trainer)), []).append(trainer.trainer)
    rows = [["\n".join(names), abilities] for abilities, names in alike.items()]
    _title("What the guard can do here")
    print_table(["trainer", ""], rows)
    print_line()
    _wrap("Reporters: " + ", ".join([*writers, "passk_guard.jsonl (always)"]))


def announce_identity(names: Sequence[str]) -> None:
    """Before the third part, which takes longest."""
    if not names:
        return
    _title("Is training with the guard the same, bit by bit?")
    _wrap(
        f"Training a tiny model with dropout for {STEPS} steps on each trainer: twice without the "
        "guard, once watched, once with a remedy. This takes about half a minute."
    )
    print_line()


def show_identity(verdicts: Sequence[Verdict]) -> None:
    """Third part."""
    rows = []
    for verdict in verdicts:
        remedy = verdict.remedy or "not tried"
        rows.append(
            [
                verdict.trainer,
                verdict.device or "",
                signed(_TONES[verdict.verdict], verdict.verdict),
                signed(_TONES.get(remedy, ""), remedy),
                f"{verdict.seconds:.1f} s",
            ]
        )
    print_table(["trainer", "on", "weights", 'action="mix"', "took"], rows)
    for verdict in verdicts:
        if verdict.reason is not None and verdict.sound:  # else it is among the problems
            print_line()
            _wrap(f"{verdict.trainer}: {verdict.reason}.")


def show_conclusion(
    wrong: Sequence[str], trainers: Sequence[Support], verdicts: Sequence[Verdict] | None
) -> None:
    """Last line."""
    if wrong:
        _title(f"{len(wrong)} {'problem' if len(wrong) == 1 else 'problems'}")
        for problem in wrong:
            _wrap(signed("bad", problem), "  ")
        return
    usable = [trainer.trainer for trainer in trainers if trainer.usable]
    identical = [v.trainer for v in verdicts or () if v.verdict == "identical"]
    if not usable:
        said = "The core works; no trainer is installed."
    elif verdicts is None:
        said = "Nothing is wrong; whether training stays the same was not tried."
    elif len(identical) < len(verdicts):
        said = "Nothing is wrong; but where training is not repeatable, nothing can be told."
    else:
        said = "All is well: with the guard, training here is the same, bit by bit."
    print_line()
    _wrap(said)


def _abilities(trainer: Support) -> str:
    if not trainer.usable:
        return trainer.reason or ""
    needs = [f"{name} with {need}" if need else name for name, need in trainer.remedies.items()]
    lines = [
        f"sees {trainer.sees}",
        "  remedies: " + ("; ".join(needs) or "none, it only watches"),
        "  works with " + ", ".join(trainer.features),
    ]
    if trainer.lacks:
        lacks = (f"{name} (needs {need})" for name, need in trainer.lacks.items())
        lines.append("  not with " + ", ".join(lacks))
    return "\n".join(lines)


def _counted(names: Sequence[str]) -> str:
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))


def _title(text: str) -> None:
    print_line(f"\n{text}\n")


def _wrap(text: str, indent: str = "") -> None:
    for line in textwrap.wrap(
        text, 80, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    ):
        print_line(line)
