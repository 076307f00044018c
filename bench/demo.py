"""Time and peak memory of the whole demo: `make bench NAME=demo`.

Memory is the sum of the proportional set sizes (PSS) of the demo and of every process it started, sampled every
two seconds; shared pages, such as PyTorch's libraries, are counted once.
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.results import Row, write

REPORT = "demo-report"
SAMPLE_PERIOD_S = 2.0  # reading the PSS of large processes stops them for a moment
GOAL_S = 480


def main() -> int:
    """Run the demo once and write bench/results/demo.json."""
    begun = time.monotonic()
    demo = subprocess.Popen([sys.executable, "-m", "client.command", "demo", "--report", REPORT])
    peak = watch(demo, period_s=SAMPLE_PERIOD_S)
    seconds = time.monotonic() - begun
    rows = [
        Row(metric="demo, wall time", value=round(seconds, 1), unit="s", goal="< 480 s", met=seconds < GOAL_S),
        Row(metric="demo, peak memory of all its processes (PSS)", value=round(peak / 2**20), unit="MiB"),
    ]
    write("demo", rows)
    return demo.returncode


def watch(process: "subprocess.Popen[Any]", *, period_s: float) -> int:
    """Wait for a process; return the greatest sum of PSS of its tree, bytes, looked at every period_s seconds."""
    peak = 0
    while True:
        peak = max(peak, sum(_pss(pid) for pid in _tree(process.pid)))
        try:
            process.wait(period_s)
        except subprocess.TimeoutExpired:
            continue
        return peak


def _tree(root: int) -> set[int]:
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # the process ended between the listing and the reading
            continue
        parents[int(path.parent.name)] = int(fields[1])
    tree = {root}
    while new := {pid for pid, parent in parents.items() if parent in tree} - tree:
        tree |= new
    return tree


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


if __name__ == "__main__":
    sys.exit(main())
