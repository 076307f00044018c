"""The one shape of a bench result (DESIGN 9), and the machine it was measured on."""

import json
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure. goal and against are None where an issue asks for none; met follows from the goal.

    Attributes:
        metric: what was measured, with the setting it was measured in.
        value: a median where there were repeats; spread is the least and the greatest.
        repeats: how many there were, such as seeds; None where nobody counted.
    """

    metric: str
    value: float
    unit: str
    spread: tuple[float, float] | None = None
    goal: str | None = None
    met: bool | None = None
    against: str | None = None
    repeats: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What a metric should reach; it is met only if the worst of the repeats reaches it.

    Attributes:
        says: for the table.
        least, most: the bounds; None for none.
    """

    says: str
    least: float = -math.inf
    most: float = math.inf

    def holds(self, values: Sequence[float]) -> bool:
        """Whether every value lies within the bounds."""
        return all(self.least <= value <= self.most for value in values)


def summary(metric: str, values: Sequence[float], *, unit: str = "", goal: Goal | None = None, digits: int = 6) -> Row:
    """Sum up the repeats of one metric: median, least and greatest, and whether each of them meets the goal.

    Args:
        metric: what was measured.
        values: of the repeats.
        unit: of the values.
        goal: what each should reach; None for none.
        digits: significant ones that are kept.
    """
    return Row(
        metric=metric,
        value=_rounded(statistics.median(values), digits),
        unit=unit,
        spread=(_rounded(min(values), digits), _rounded(max(values), digits)),
        goal=goal.says if goal else None,
        met=goal.holds(values) if goal else None,
        repeats=len(values),
    )


def write(name: str, rows: Sequence[Row], *, keep: bool = True, measured: Mapping[str, str] | None = None) -> Path:
    """Print the rows as a table and, to keep them, write bench/results/<name>.json.

    Args:
        name: of the file.
        rows: what was measured.
        keep: whether to write it.
        measured: commit, machine and when, where that is not here and now.
    """
    content = {
        "name": name,
        **(measured or provenance()),
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


def beside_earlier(new: Sequence[Row], content: dict[str, Any]) -> list[Row]:
    """Put new rows in the place of a result's, and keep those that were not measured again.

    Args:
        new: in their order; those that the result lacks come last.
        content: of the result, as it was written.
    """
    fresh = {row.metric: row for row in new}
    kept = [fresh.pop(row["metric"]) if row["metric"] in fresh else _row(row) for row in content["rows"]]
    return [*kept, *fresh.values()]


def measured_in(contents: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Say of which commits, on which machines and until when fragments, or results, were measured."""
    return {
        "commit": _distinct(", ", (content["commit"] for content in contents)),
        "machine": _distinct("; ", (content["machine"] for content in contents)),
        "when": max(content["when"] for content in contents),
    }


def kept(fragment: Path, measure: Callable[[], Mapping[str, float] | Iterable[tuple[str, float]]]) -> dict[str, Any]:
    """Return what was measured before, or measure and keep it; a fragment is there as a whole or not at all.

    Args:
        fragment: file of JSON: the figures, seconds of the processor and of the wall, commit, machine and when.
        measure: makes the figures, by name or in pairs.
    """
    if fragment.exists():
        content: dict[str, Any] = json.loads(fragment.read_text())
        return content
    begun_s, cpu_s = time.monotonic(), time.process_time()
    content = {
        "figures": dict(measure()),
        "processor_seconds": round(time.process_time() - cpu_s, 1),
        "seconds": round(time.monotonic() - begun_s, 1),
        **provenance(),
    }
    fragment.parent.mkdir(parents=True, exist_ok=True)
    partial = fragment.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    partial.replace(fragment)
    return content


def provenance() -> dict[str, str]:
    """Say of which commit, on which machine and when something is measured: here and now."""
    return {
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "machine": machine(),
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def silent(_phase: str, _done: int, _total: int, _detail: str) -> None:
    """Show nothing: a bench's output is its table."""


def machine() -> str:
    """Processor, cores, memory and system, in words."""
    model = next((line for line in _read("/proc/cpuinfo") if line.startswith("model name")), "model name: unknown")
    memory_kib = next((int(line.split()[1]) for line in _read("/proc/meminfo") if line.startswith("MemTotal")), 0)
    processor = model.split(":", 1)[1].strip()
    cores = f"{os.cpu_count()} cores, {memory_kib / 2**20:.0f} GiB"
    return f"{processor}, {cores}, {platform.system()}, Python {platform.python_version()}"


def _distinct(separator: str, texts: Iterable[str]) -> str:
    return separator.join(dict.fromkeys(part for text in texts for part in text.split(separator)))


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")


def _row(content: dict[str, Any]) -> Row:
    spread = content["spread"]
    return Row(**{**content, "spread": None if spread is None else tuple(spread)})


def _read(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, cwd=RESULTS.parent)
    return done.stdout.strip() or "unknown"
