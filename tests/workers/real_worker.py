"""One run of a real pretrained model: what it left, and the process's peak memory."""

import json
import resource
import sys

from real_runs import run

if __name__ == "__main__":
    host, folder, out, action, resume = sys.argv[1:]
    found = run(host, folder, out, action, resume == "resume")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # bytes, on Linux
    print(json.dumps({**found, "peak": peak}))
