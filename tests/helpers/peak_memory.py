"""Peak of live tensor memory, as the allocator sees it: tracemalloc does not see torch."""

from __future__ import annotations

import torch
from torch.profiler import ProfilerActivity, profile


def peak_memory(work, device="cpu"):
    """Bytes by which live memory on ``device`` exceeded, at most, what it was before ``work()``."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak
