"""Figures in pages of docs/: what stands between two marks is made of a result, and nothing else is touched."""

import re
from collections.abc import Mapping
from typing import Any

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


def seeds_of(rows: Mapping[str, Mapping[str, Any]]) -> int:
    """Count the seeds of a result: the most that any row has."""
    return int(max(row["repeats"] for row in rows.values()))
