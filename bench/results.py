"""The one shape of a bench result (DESIGN 9), and the machine it was measured on."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure. goal and against are None where an issue asks for none; met follows from the goal.

    Attributes:
        metric: what was measured, with the setting it was measured in.
        value: a median where there were repeats; spread is the least and the greatest.
    """

    metric: str
    value: float
    unit: str
    spread: tuple[float, float] | None = None
    goal: str | None = None
    met: bool | None = None
    against: str | None = None


def write(name: str, rows: Sequence[Row], *, keep: bool = True) -> Path:
    """Print the rows as a table and, to keep them, write bench/results/<name>.json."""
    content = {
        "name": name,
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "machine": machine(),
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "rows": [asdict(row) for row in rows],
    }
    for row in rows:
        spread = f"  [{row.spread[0]:g}, {row.spread[1]:g}]" if row.spread else ""
        goal = f"  goal {row.goal}: {'met' if row.met else 'NOT met'}" if row.goal else ""
        print(f"{row.metric:<64} {row.value:>10g} {row.unit}{spread}{goal}")
    path = RESULTS / f"{name}.json"
    if keep:
        RESULTS.mkdir(exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def machine() -> str:
    """Processor, cores, memory and system, in words."""
    model = next((line for line in _read("/proc/cpuinfo") if line.startswith("model name")), "model name: unknown")
    memory_kib = next((int(line.split()[1]) for line in _read("/proc/meminfo") if line.startswith("MemTotal")), 0)
    processor = model.split(":", 1)[1].strip()
    cores = f"{os.cpu_count()} cores, {memory_kib / 2**20:.0f} GiB"
    return f"{processor}, {cores}, {platform.system()}, Python {platform.python_version()}"


def _read(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, cwd=RESULTS.parent)
    return done.stdout.strip() or "unknown"
