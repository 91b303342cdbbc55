"""How many rollouts of each prompt were right, from whatever wrote it down.

:func:`read_counts` recognises these by their content. Two files are compared prompt by prompt, so
that an id has to be the same in both:

============== ============================================= =====================================
format         what a rollout is                             a prompt's id
============== ============================================= =====================================
``counts``     what ``n`` counts; a line, where that lacks   ``prompt_id``
``probe``      what ``n`` counts                             ``prompt_id``
``lm_eval``    a response, if pass@1 or a list judges all;   task and hash of the question; the
               else the one that the filter leaves           task is the group
``inspect_ai`` an epoch                                      the sample's; after the task's name,
                                                             which is the group, in folders of many
``lighteval``  a response, if pass@k with k=1 or avg@n       task and hash of question and
               judges all; else the only one                 answers; the task is the group
``verl``       a line; an agent's outputs are one rollout    hash of the input and the answer
============== ============================================= =====================================
"""

from passk_guard.counts.counts import Counts, PromptCount, gather
from passk_guard.counts.formats import FORMATS, Choices, Format, Source, register_format
from passk_guard.counts.plain import write_counts
from passk_guard.counts.read import format_of, read_counts

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
