"""Time and peak memory of the whole demo, and of the demo with each node killed: `make bench NAME=demo`.

Memory is the sum of the proportional set sizes (PSS) of the demo and of every process it started, sampled every
two seconds; shared pages, such as PyTorch's libraries, are counted once. A demo ends with exit code 0 only if every
command in it did what the story says, the verdicts among them.
"""

import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.results import Row, write

SAMPLE_PERIOD_S = 2.0  # reading the PSS of large processes stops them for a moment
GOAL_S = 480
NODES = (1, 2, 3)


def main() -> int:
    """Run the demo undisturbed, then once for each node with that node killed; write bench/results/demo.json."""
    seconds, peak, failed = _play()
    rows = [
        Row(
            metric="demo, wall time",
            value=round(seconds, 1),
            unit="s",
            goal=f"< {GOAL_S} s",
            met=not failed and seconds < GOAL_S,
        ),
        Row(metric="demo, peak memory of all its processes (PSS)", value=round(peak / 2**20), unit="MiB"),
    ]
    for node in NODES:
        seconds, _, lost = _play("--kill-node", str(node))
        failed |= lost
        metric = f"demo with node-{node} killed when the first claim is made, wall time"
        rows.append(
            Row(metric=metric, value=round(seconds, 1), unit="s", goal="every verdict is reached", met=not lost)
        )
    write("demo", rows)
    return int(failed)


def _play(*options: str) -> tuple[float, int, bool]:
    """Run the demo; return seconds, the peak of memory in bytes, and whether it failed."""
    with TemporaryDirectory() as directory:
        begun = time.monotonic()
        command = [sys.executable, "-m", "client.command", "demo", "--report", f"{directory}/report", *options]
        demo = subprocess.Popen(command)
        peak = watch(demo, period_s=SAMPLE_PERIOD_S)
        return time.monotonic() - begun, peak, demo.returncode != 0


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
