"""How many rollouts of each prompt were right, from whatever wrote it down."""

from passk_guard.counts.counts import Counts, PromptCount, gather
from passk_guard.counts.formats import FORMATS, Choices, Format, register_format
from passk_guard.counts.read import format_of, read_counts
from passk_guard.counts.source import Source
from passk_guard.counts.write import write_counts

__all__ = [
    "FORMATS",
    "Choices",
    "Counts",
    "Format",
    "PromptCount",
    "Source",
    "format_of",
    "gather",
    "read_counts",
    "register_format",
    "write_counts",
]
