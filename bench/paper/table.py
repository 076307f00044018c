"""A result file as tables of Markdown: cells, rows for each task, and what is not there.

A cell is the median over the seeds, with the least and the greatest in brackets where they differ, and **not met**
where a seed misses the goal. What is not there is a dash.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.paper.settings import Setting, Task

_DASH = "–"


@dataclass(frozen=True, slots=True)
class Table:
    """A result file's rows by metric."""

    setting: Setting
    content: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, Any]]

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks of which something was measured."""
        return tuple(task for task in self.setting.tasks if f"{task.name}: training examples" in self.rows)

    def cell(self, group: str, figure: str, *, digits: int = 1) -> str:
        """Spell one figure."""
        row = self.rows.get(f"{group}: {figure}")
        return _DASH if row is None else spelt(row, digits=digits)

    def goal(self, figure: str) -> str:
        """The goal of a figure, of the first task that has one, for the head of a column."""
        found = (self.rows.get(f"{task.name}: {figure}", {}).get("goal") for task in self.tasks)
        return next((f" ({goal})" for goal in found if goal), "")


def load(path: Path, setting: Setting) -> Table:
    """Read a result file."""
    content = json.loads(path.read_text())
    return Table(setting, content, {row["metric"]: row for row in content["rows"]})


def spelt(row: Mapping[str, Any], *, digits: int) -> str:
    """Spell a row's median, spread and whether the goal is missed."""
    median, (least, greatest) = row["value"], row["spread"]
    texts = [f"{value:.{digits}f}" for value in (median, least, greatest)]
    spread = "" if texts[1] == texts[2] else f" [{texts[1]}, {texts[2]}]"
    return f"{texts[0]}{spread}" + (" **not met**" if row["met"] is False else "")


def by_task(table: Table, figures: Mapping[str, str], *, digits: int = 1, with_goals: bool = False) -> str:
    """One row for each task of which a figure is there, one column for each figure; empty without rows.

    Args:
        table: the result.
        figures: the heads of the columns by figure.
        digits: behind the point.
        with_goals: whether goals stand in the cells, since they differ from task to task, rather than in the head.
    """
    head = ["task", *(title + ("" if with_goals else table.goal(figure)) for figure, title in figures.items())]
    rows = []
    for task in table.tasks:
        if any(f"{task.name}: {figure}" in table.rows for figure in figures):
            cells = [table.cell(task.name, figure, digits=digits) for figure in figures]
            goals = [goal_in(table.rows.get(f"{task.name}: {figure}")) if with_goals else "" for figure in figures]
            rows.append((task.name, *(cell + goal for cell, goal in zip(cells, goals, strict=True))))
    return markdown(head, rows) if rows else ""


def goal_in(row: Mapping[str, Any] | None) -> str:
    """Spell the goal of a row in brackets; nothing where there is none."""
    return f" ({row['goal']})" if row is not None and row["goal"] else ""


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
