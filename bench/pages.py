"""Figures in pages of docs/: what stands between two marks is made of a result, and nothing else is touched."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from wm.attacks import Attack

BEGIN, END = "<!-- figures: {name} -->", "<!-- end of figures -->"


def put(text: str, name: str, content: str) -> str:
    """Put content between a page's marks of that name, behind the comment there that says what is wanted, if any."""
    pattern = re.escape(BEGIN.format(name=name)) + r"(\n<!-- (?!end of figures)[^\n]* -->)?.*?" + re.escape(END)

    def filled(found: re.Match[str]) -> str:
        return f"{BEGIN.format(name=name)}{found[1] or ''}\n{content}\n{END}"

    return re.sub(pattern, filled, text, count=1, flags=re.DOTALL)


def cell(row: Mapping[str, Any]) -> str:
    """Spell a row's median, and the least and the greatest where they differ."""
    value, spread = row["value"], row["spread"]
    if spread is None or spread[0] == spread[1]:
        return f"{value:.4g}"
    return f"{value:.4g} [{spread[0]:.4g}, {spread[1]:.4g}]"


def cell_of(rows: Mapping[str, Mapping[str, Any]], metric: str) -> str:
    """Spell a row by its name, or a dash where there is none."""
    return cell(rows[metric]) if metric in rows else "–"


def sweep_table(rows: Mapping[str, Mapping[str, Any]], attacks: Iterable[Attack], *, measure: str) -> Iterator[str]:
    """Tabulate at which strength the mark still held and at which it failed, with what was left of mark and task.

    Args:
        rows: by name, such as "ftal: fails at, matched".
        attacks: a line each.
        measure: of the task, as the rows' names end.
    """
    of_each = ("matched", f"{measure}, %")
    yield f"| attack | strength | {' | '.join(('the mark holds to', *of_each, 'it fails at', *of_each))} | seeds |"
    yield "|---" * 9 + "|"
    parts = [f"{when}{part}" for when in ("holds to", "fails at") for part in ("", ", matched", f", {measure}")]
    for attack in attacks:
        cells = " | ".join(cell_of(rows, f"{attack.name}: {part}") for part in parts)
        failed = rows.get(f"{attack.name}: fails at", {"repeats": 0})["repeats"]
        yield f"| `{attack.name}` | {attack.scale.unit} | {cells} | {failed} of {seeds_of(rows)} |"


def seeds_of(rows: Mapping[str, Mapping[str, Any]]) -> int:
    """Count the seeds of a result: the most that any row has."""
    return int(max(row["repeats"] for row in rows.values()))
